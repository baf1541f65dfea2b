"""`graphprune verify`: is the pruned model what the dense one computes without what was removed?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune import api
from graphprune.cli.options import Before, Inputs, Output, taking
from graphprune.cli.plan import read_plan
from graphprune.cli.prune import plan_path
from graphprune.cli.source import Module, read

if TYPE_CHECKING:
    from graphprune.verify import Verification

Dense = Annotated[Path, typer.Argument(metavar="DENSE", help="The model before pruning.", show_default=False)]
Pruned = Annotated[Path, typer.Argument(metavar="PRUNED", help="The model after pruning.", show_default=False)]


@taking
def verify(
    dense: Dense,
    pruned: Pruned,
    before: Before,
    inputs: Inputs,
    output: Output,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="What was kept; default: PRUNED with .plan.json.", show_default=False)
    ] = None,
) -> int:
    """Prove a pruned model right against the dense one; exit code 1 where it is not.

    Where it was pruned with --optimize or --opset, give them here too: they are done to the dense model first.

    graphprune verify resnet.onnx small.onnx
    """
    console = output.console
    beside = plan_path(pruned)
    if plan is None and beside.exists():
        plan = beside
    with console.working("reading"):
        models = read(dense, before, Module()).model, api.load(pruned)
        made = None if plan is None else read_plan(plan)
    if plan is None:
        console.say(
            f"there is no plan ({beside}): only the interface and the couplings are checked; give one with --plan"
        )
    with console.working("verifying"):
        found = api.verify(*models, made, seed=inputs.seed, sizes=inputs.sizes)
    _show(found, output)
    return 0 if found.ok else 1


def _show(found: Verification, output: Output) -> None:
    from graphprune.report import verdict, verification_dict

    output.console.show(f"{found}\n{verdict(found)}", verification_dict(found))
