"""`graphprune inspect`: what could be pruned, what is coupled to what, what is kept and why, and what it all costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune import api
from graphprune.cli.drawing import check_picture, draw
from graphprune.cli.options import Before, Inputs, Output, taking
from graphprune.cli.source import Module, read
from graphprune.errors import one_line

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.cost import Cost
    from graphprune.sparsity.zeros import Zeros

_MOST_MEMBERS = 4


@taking
def inspect(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The model: .onnx, .pt2 or module:callable.", show_default=False)
    ],
    before: Before,
    module: Module,
    inputs: Inputs,
    output: Output,
    graph: Annotated[
        Path | None, typer.Option("--graph", help="Draw the groups: a .svg or .dot file.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="List every coupled tensor and kept axis.")] = False,
) -> int:
    """Show what can be pruned, what is coupled, what is kept and why, what the model costs, and what is zero already.

    graphprune inspect resnet.onnx --graph groups.svg
    """
    from graphprune.run_sizes import assumed
    from graphprune.sparsity.zeros import zeros_of

    console = output.console
    if graph is not None:
        check_picture(graph)
    with console.working("analysing"):
        source = read(model, before, module, inputs.seed)
        analysis = source.analysis()
        cost = api.cost(analysis, sizes=inputs.sizes)
        free = None if source.is_of_torch else api.free_of(analysis)[0]
    if graph is not None:
        with console.working("drawing"):
            draw(analysis, graph)
        console.say(f"wrote {graph}")
    with console.working("looking for zeros"):
        zeros = zeros_of(analysis)
    blocks = _blocks(analysis, inputs.sizes)
    lines = [
        *_lines(analysis, cost, everything, free, assumed(analysis, inputs.sizes)),
        *_block_lines(blocks, cost),
        *_zeros(zeros),
    ]
    console.show("\n".join(lines), {**_data(analysis, cost, zeros, free), "blocks": blocks})
    return 0


def _lines(analysis: Analysis, cost: Cost, everything: bool, free: int | None, notes: Sequence[str]) -> Iterator[str]:
    from graphprune.report import free_line, quantity, skipped, skipped_lines, table

    yield (
        f"{quantity(cost.parameters)} parameters ({quantity(cost.nonzeros)} not zero), {quantity(cost.bytes, 'B')}; "
        f"{quantity(cost.macs)} MACs; {quantity(cost.peak_activation_bytes, 'B')} of activations at the peak"
    )
    yield from map(one_line, notes)
    yield ""
    rows = []
    for group in analysis.groups:
        names = [one_line(member.name) for member in group.members if member.name != group.name]
        shown = names if everything else names[:_MOST_MEMBERS]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        rows.append(
            (
                one_line(group.name),
                str(group.size),
                group.kind,
                "" if group.exact else "inexact",
                ", ".join(shown) + more,
            )
        )
    if rows:
        yield from table(("group", "size", "kind", "", "coupled with"), rows, right=(1,))
    else:
        yield "no group can be pruned"
    if free:
        yield ""
        yield free_line(free)
    if everything and analysis.refusals:
        yield ""
        kept = [
            (one_line(f"{r.tensor}:{r.axis}"), str(r.size), r.code, one_line(r.where), one_line(r.reason))
            for r in analysis.refusals
        ]
        yield from table(("kept axis", "size", "code", "at", "because"), kept, right=(1,))
    found = skipped(analysis)
    if found:
        yield ""
        yield "kept on purpose:"
        yield from skipped_lines(found)
        yield "graphprune explain CODE and graphprune explain MODEL NAME say more"


def _blocks(analysis: Analysis, sizes: dict[str, int]) -> list[dict[str, Any]]:
    """The residual blocks that could be left out, with what goes with each."""
    from graphprune.cost import Costing
    from graphprune.depth.residual import residuals

    costing, found = Costing(analysis, sizes), []
    for block in residuals(analysis):
        macs, parameters = block.cost(analysis, costing)
        found.append({"name": block.name, "skip": block.before.name, "macs": macs, "parameters": parameters})
    return found


def _block_lines(blocks: list[dict[str, Any]], cost: Cost) -> Iterator[str]:
    from graphprune.report import quantity, table

    if not blocks:
        return
    yield ""
    rows = [
        (
            one_line(each["name"]),
            one_line(each["skip"]),
            quantity(each["parameters"]),
            f"{each['macs'] / max(1, cost.macs):.1%}",
        )
        for each in blocks
    ]
    yield from table(("residual block", "what is left of it", "parameters", "of the MACs"), rows, right=(2, 3))
    yield "graphprune prune --depth N leaves out N of them"


def _zeros(zeros: list[Zeros]) -> Iterator[str]:
    """What is zero already, and in which formats; nothing where no layer has zeros."""
    from graphprune.sparsity.zeros import zero_lines

    if zeros:
        yield ""
        yield from zero_lines(zeros)


def _data(analysis: Analysis, cost: Cost, zeros: list[Zeros], free: int | None) -> dict[str, Any]:
    from graphprune.codes import CODES
    from graphprune.sparsity.zeros import zero_data

    groups = [
        {
            "name": group.name,
            "size": group.size,
            "kind": group.kind,
            "exact": group.exact,
            "members": [{**member._asdict(), "path": list(member.path)} for member in group.members],
        }
        for group in analysis.groups
    ]
    kept = [
        {**asdict(refusal), "size": str(refusal.size), "remedy": CODES[refusal.code].remedy}
        for refusal in analysis.refusals
    ]
    return {"cost": asdict(cost), "groups": groups, "free": free, "kept": kept, "zeros": zero_data(zeros)}
