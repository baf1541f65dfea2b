"""`graphprune explain`, `ops` and `passes`: what codes mean, why an axis is as it is, and what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from graphprune.cli.options import Before, Output, taking
from graphprune.cli.source import Module, read
from graphprune.errors import GraphPruneError


@taking
def explain(
    subject: Annotated[
        str, typer.Argument(metavar="CODE|MODEL", help="A code such as GP204, or a model.", show_default=False)
    ],
    output: Output,
    module: Module,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A tensor, axis or group: conv1.weight:0.", show_default=False)
    ] = None,
) -> int:
    """Say what a code means, or why an axis of a model is tied to others or kept.

    graphprune explain GP204
    graphprune explain resnet.onnx conv1.weight:0
    """
    from graphprune.explain import explain as explain_name
    from graphprune.explain import explain_code

    if name is None:
        if re.fullmatch(r"(?i)gp\d+", subject):
            text = explain_code(subject)
            output.console.show(text, {"code": subject.upper(), "text": text})
            return 0
        remedy = "write graphprune explain GP204, or graphprune explain MODEL NAME"
        raise GraphPruneError(
            "GP107", f"{subject!r} is not a code, and no name was given", "graphprune explain", remedy
        )
    with output.console.working("analysing"):
        analysis = read(Path(subject), Before(), module).analysis()
    text = explain_name(analysis, name)
    output.console.show(text, {"name": name, "text": text})
    return 0


@taking
def ops(output: Output) -> int:
    """List the operators that are known: those with a rule, and those that are kept whole and why."""
    from graphprune.dialects.onnx.dialect import TABLE
    from graphprune.report import table

    rows = [(name, "kept whole" if row.pinned else "rule", row.pinned) for name, row in sorted(TABLE.items())]
    data = [{"operator": name, "pinned": reason or None} for name, _, reason in rows]
    ruled = sum(not reason for _, _, reason in rows)
    summary = f"{ruled} operators with a rule, {len(rows) - ruled} kept whole"
    lines = [line.rstrip() for line in table(("operator", "", "because"), rows)]
    output.console.show("\n".join([*lines, "", summary]), data)
    return 0


@taking
def passes(output: Output) -> int:
    """List the passes that are installed, built in or brought by other packages, and those that cannot be loaded."""
    from graphprune.passes import PASSES
    from graphprune.report import table

    entries = PASSES.entries()
    rows = [(entry.name, entry.distribution, entry.error or entry.target) for entry in entries]
    data = [{"name": e.name, "package": e.distribution, "target": e.target, "error": e.error or None} for e in entries]
    output.console.show("\n".join(table(("pass", "package", "where"), rows)), data)
    return 0
