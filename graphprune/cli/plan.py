"""`graphprune plan` and `graphprune apply`: deciding and doing, apart, with a file in between that can be edited."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune import api
from graphprune.cli import modules
from graphprune.cli.console import Console
from graphprune.cli.modules import TorchJob
from graphprune.cli.options import Before, Choices, Data, Depth, Inputs, Output, Steps, Writing, taking
from graphprune.cli.prune import In, Out, _Job, calibrated, check_output, finish
from graphprune.cli.source import Module, is_callable, read
from graphprune.errors import GraphPruneError
from graphprune.output import write_text

if TYPE_CHECKING:
    from graphprune.plan import Plan as PlanFile

MadeFor = Annotated[
    Path | None,
    typer.Option(
        "--made-for",
        metavar="MODEL",
        help="The dense model that the plan was made for, where IN is another form of it, such as its ONNX export.",
        show_default=False,
    ),
]
PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan (.json).", show_default=False)]


@taking
def plan(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="The trained model: .onnx, .pt2 or module:callable.", show_default=False),
    ],
    choices: Choices,
    stepwise: Steps,
    blocks: Depth,
    data: Data,
    before: Before,
    module: Module,
    inputs: Inputs,
    output: Output,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the plan; stdout without.", show_default=False)
    ] = None,
) -> int:
    """Choose what to keep, without cutting: JSON that can be read, edited and applied.

    graphprune plan resnet.onnx --macs 0.6 -o resnet.plan.json
    graphprune plan resnet.onnx --macs 0.6 --criterion wanda --calibration images/ --std 0.5 -o resnet.plan.json
    """
    arguments = {**choices.arguments(not blocks.enough), **blocks.arguments(), "steps": stepwise.steps}
    arguments["calibration"] = data.request()
    console = output.console
    with console.working("reading"):
        dense = read(model, before, module, inputs.seed)
    with console.working("finding what is coupled"):
        analysis = dense.analysis()
    arguments = calibrated(analysis, arguments, inputs, console)
    with console.working("choosing what to keep"):
        made = api.plan(analysis, **arguments, seed=inputs.seed, sizes=inputs.sizes)
    if out is None:
        print(made.to_json())
        return 0
    write_text(out, made.to_json())
    report = api.report_of(analysis, made.keep(analysis), sizes=inputs.sizes)
    if not dense.is_of_torch:
        report = report.with_(free=api.free_of(analysis, made.keep(analysis)))
    from graphprune.depth.apply import reported, without_blocks

    small = without_blocks(analysis.program.native, made.blocks)
    report = reported(report, made, small, inputs.sizes).with_(written=(str(out),))
    console.show(report.to_text(), report.to_dict())
    return 0


@taking
def apply(
    dense: In,
    plan: PlanPath,
    out: Out,
    before: Before,
    module: Module,
    writing: Writing,
    inputs: Inputs,
    output: Output,
    made_for: MadeFor = None,
) -> int:
    """Cut a model by a plan, for example one that was edited, or another checkpoint of the network.

    graphprune apply retrained.onnx small.plan.json small2.onnx
    graphprune apply dense.onnx net.plan.json small.onnx --made-for nets:net --weights w.safetensors --input 1,3,32,32
    """
    check_output(dense, out, writing)
    console = output.console
    own, other = (module, Module()) if made_for is None else _shared(dense, made_for, module)
    with console.working("reading"):
        source, made = read(dense, before, own, inputs.seed), cut_only(read_plan(plan), console)
        original = None if made_for is None else read(made_for, Before(), other, inputs.seed)
    if original is not None:
        with console.working("finding the groups of the plan"):
            made = made.translated(original.analysis(), source.analysis())
    if source.is_of_torch:
        return modules.run(TorchJob(dense, out, source, {"plan": made}, writing, console, inputs))
    with console.working("cutting"):
        result = api.result_of(source.analysis(), made, sizes=inputs.sizes)
    return finish(_Job(dense, out, source.model, result, writing, console, inputs))


def _shared(dense: Path, made_for: Path, module: Module) -> tuple[Module, Module]:
    """The options of a module for the one of two models that is made by a callable. Raises GraphPruneError GP107."""
    if is_callable(dense) and is_callable(made_for):
        what = "both models are made by a callable, and --weights and --input can be those of one only"
        remedy = "export one of them, with torch.export.save or torch.onnx.export(..., dynamo=True)"
        raise GraphPruneError("GP107", what, "option --made-for", remedy)
    return (module, Module()) if is_callable(dense) else (Module(), module)


def cut_only(plan: PlanFile, console: Console) -> PlanFile:
    """A plan of a recovered model holds what was kept and no weights: what is cut by it is not recovered."""
    names = plan.options.get("recover")
    if not names:
        return plan
    console.say(f"the plan was made with --recover {','.join(map(str, names))}: here the weights are cut only")
    return replace(plan, options={name: value for name, value in plan.options.items() if name != "recover"})


def read_plan(path: Path) -> PlanFile:
    """Read a plan. Raises GraphPruneError GP101, GP502 or GP503."""
    from graphprune.plan import Plan

    return Plan.load(path)
