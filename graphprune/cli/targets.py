"""`graphprune targets`: what can be built for, and what of it this machine can run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from graphprune.cli.options import Output, taking
from graphprune.errors import GraphPruneError


@taking
def targets(output: Output) -> int:
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
    output.console.show("\n".join([*found, "", *notes]), data)
    return 0


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
