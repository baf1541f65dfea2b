"""`graphprune targets`: what can be built for, and what of it this machine can run."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli.options import Output, taking
from graphprune.errors import GraphPruneError, one_line

if TYPE_CHECKING:
    from graphprune.targets.selftest import Checked


@taking
def targets(
    output: Output,
    verify: Annotated[
        bool, typer.Option("--verify", help="Build a small network for each that runs here, in every sparsity format.")
    ] = False,
) -> int:
    """List the targets that are installed, their variants, and which of these this machine can run."""
    from graphprune.report import table
    from graphprune.runtime.cpu import cpu

    here = cpu()
    rows = described()
    shown = [(row["target"], row["variant"], row["about"], row["error"] or row["runs here"]) for row in rows]
    found = table(("target", "variant", "processors", "runs here"), shown)
    tvm = _version("apache-tvm")
    notes = [f"this machine: {here}", f"TVM {tvm} is installed" if tvm else "TVM is not installed: graphprune[tvm]"]
    data = {"cpu": str(here), "level": here.level, "tvm": tvm or None, "targets": rows}
    if not verify:
        output.console.show("\n".join([*found, "", *notes]), data)
        return 0
    checked = _checked(output)
    data["verified"] = [asdict(each) for each in checked]
    others = [row["variant"] for row in rows if row["variant"] and not row["runs here"].startswith("yes")]
    notes += [f"not verified, because they do not run here: {', '.join(others)}"] * bool(others)
    output.console.show("\n".join([*found, "", *_verdicts(checked), "", *notes]), data)
    return 1 if any(each.failure for each in checked) else 0


def _checked(output: Output) -> list[Checked]:
    """What was built and run here."""
    with output.console.working("building"):
        from graphprune.targets.selftest import selftest

        return list(selftest())


def _verdicts(checked: list[Checked]) -> list[str]:
    """A line for each format, a column for each variant: the error against onnxruntime, or what was wrong."""
    from graphprune.report import table

    variants = list(dict.fromkeys(each.variant for each in checked))
    found = {(each.format, each.variant): each.failure or f"error {each.error:.0e}" for each in checked}
    formats = list(dict.fromkeys(each.format for each in checked))
    rows = [(text, *(one_line(found.get((text, name), "")) for name in variants)) for text in formats]
    return [line.rstrip() for line in table(("built and run here", *variants), rows)]


def described() -> list[dict[str, Any]]:
    """One row for each variant; one with an error for a target that cannot be loaded."""
    from graphprune.runtime.cpu import cpu
    from graphprune.targets import TARGETS

    here = cpu()
    rows: list[dict[str, Any]] = []
    for name in TARGETS.names():
        try:
            target = TARGETS.load(name)
            processors = [(target.machine, each) for each in target.processors]
        except (GraphPruneError, AttributeError) as error:
            what = f"{error.code} {error.what}" if isinstance(error, GraphPruneError) else str(error)
            rows.append({"target": name, "variant": "", "about": "", "runs here": "", "needs": [], "error": what})
            continue
        for machine, each in processors:
            missing = here.missing(set(each.features))
            runs = "yes" if machine == here.machine and not missing else "no"
            if runs == "no":
                runs += f": no {', '.join(missing[:4])}" if machine == here.machine else f": it is for {machine}"
            row = {"target": name, "variant": each.name, "about": each.about, "runs here": runs}
            rows.append({**row, "needs": list(each.features), "error": None})
    return rows


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
