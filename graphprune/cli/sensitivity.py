"""`graphprune sensitivity`: what it costs to remove a part of one group and nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli.options import Before, Data, Inputs, Output, taking
from graphprune.cli.source import Module, read
from graphprune.errors import one_line

if TYPE_CHECKING:
    from graphprune.sensitivity import Sensitivity


@taking
def sensitivity(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="The trained model: .onnx, .pt2 or module:callable.", show_default=False),
    ],
    data: Data,
    before: Before,
    module: Module,
    inputs: Inputs,
    output: Output,
    criterion: Annotated[str, typer.Option("--criterion", help="Which entries of a group go first.")] = "l2",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Look at these groups only (repeatable).", metavar="PATTERN")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="Leave out these groups (repeatable).", metavar="PATTERN")
    ] = None,
) -> int:
    """Remove 25, 50 and 75 % of each group alone, and say what the outputs lose on calibration data.

    graphprune sensitivity resnet.onnx --calibration data.npz
    """
    from graphprune.sensitivity import sensitivity as measure

    request, console = data.needed(), output.console
    with console.working("reading"):
        source = read(model, before, module, inputs.seed)
    found = measure(
        source.model, source.example_inputs, calibration=request, criterion=criterion, only=tuple(only or ()),
        ignore=tuple(ignore or ()), seed=inputs.seed, sizes=inputs.sizes, tell=console.say,
    )  # fmt: skip
    console.show("\n".join(_lines(found)), [_data(each) for each in found])
    return 0


def _lines(found: list[Sensitivity]) -> list[str]:
    from graphprune.report import table

    shares = list(found[0].errors)
    heads = ["group", "size", *(text for share in shares for text in (f"-{share:.0%}: error", "MACs"))]
    rows = [
        [
            one_line(each.group), str(each.size),
            *(text for share in shares for text in (_number(each.errors[share]), f"{-each.saved[share]:.1%}")),
        ]
        for each in found
    ]  # fmt: skip
    return [
        *table(heads, rows, right=range(1, len(heads))),
        "",
        "error: relative mean squared error of the outputs on the calibration data, when nothing else is removed",
    ]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _data(each: Sensitivity) -> dict[str, Any]:
    removed = [
        {"share": share, "error": error if math.isfinite(error) else None, "macs saved": each.saved[share]}
        for share, error in each.errors.items()
    ]
    return {"group": each.group, "size": each.size, "kind": each.kind, "removed": removed}
