"""`--recover`, and `graphprune recoveries`: what can be done without training for the weights that stay."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from graphprune.cli.options import Output, _option, taking
from graphprune.errors import GraphPruneError
from graphprune.recover import RECOVERIES


@dataclass(frozen=True)
class Recovery:
    """What to do after the cut."""

    recover: Annotated[
        str,
        _option(
            "--recover",
            help=f"After the cut, from calibration data: {', '.join(RECOVERIES.builtin)}, in this order; or none.",
            metavar="NAMES",
            show_default=True,
            rich_help_panel="Calibration data",
        ),
    ] = "none"

    def names(self, data: Any) -> tuple[str, ...]:
        """The recoveries that are asked for. Raises GraphPruneError: GP106 for names that are not known, GP704 where
        there is no data."""
        from graphprune.recover.run import checked

        return checked([name.strip() for name in self.recover.split(",")], data)


@taking
def recoveries(output: Output) -> int:
    """List the recoveries that are installed: what they do for the weights that stay. All need inputs and no labels."""
    from graphprune.report import table

    data = [described(name) for name in RECOVERIES.names()]
    rows = [(each["name"], each["package"], each["error"] or each["does"]) for each in data]
    lines = [line.rstrip() for line in table(("recovery", "package", "what it does"), rows)]
    output.console.show("\n".join(lines), data)
    return 0


def described(name: str) -> dict[str, Any]:
    """One recovery, as the list shows it; with the error where it cannot be loaded."""
    entry = next(each for each in RECOVERIES.entries() if each.name == name)
    found: dict[str, Any] = {"name": name, "package": entry.distribution, "does": "", "error": entry.error or None}
    try:
        kind = RECOVERIES.load(name)
    except GraphPruneError:
        return found
    text = sys.modules[kind.__module__].__doc__ or kind.__doc__ or ""
    return {**found, "does": " ".join(text.split()).partition(". ")[0].partition(": ")[0].rstrip(".")}
