"""`--recover`, and `graphprune recoveries`: what can be done without training for the weights that stay."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import Annotated, Any

from graphprune.cli.options import Choices, Output, _option, taking
from graphprune.errors import GraphPruneError
from graphprune.recipes import DATA, NOISE, NOTHING, recipe_of
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
    recipe: Annotated[
        str | None,
        _option(
            "--recipe",
            help="Options that go together: auto, magnitude, reconstruct. What is not left to a default comes first.",
            metavar="NAME",
            rich_help_panel="What to choose",
        ),
    ] = None

    def followed(self, arguments: dict[str, Any], data: Any) -> tuple[dict[str, Any], tuple[str, ...], str]:
        """The arguments of a plan and the recoveries, with what the recipe says where they are left to their defaults,
        and what to tell about it. Raises GraphPruneError: GP106 for names that are not known, GP704 where there is no
        data."""
        recover, told = self.recover, ""
        if self.recipe is not None:
            usual = {each.name: each.default for each in fields(Choices)}
            source = getattr(data, "source", None)
            chosen, told = recipe_of(self.recipe, NOTHING if data is None else NOISE if source == "noise" else DATA)
            fitting = ",".join(chosen.pop("recover"))
            arguments = {**arguments, **{k: v for k, v in chosen.items() if arguments[k] == usual[k]}}
            recover = fitting if fitting and recover == "none" else recover
        return arguments, self._names(recover, data), told

    @staticmethod
    def _names(recover: str, data: Any) -> tuple[str, ...]:
        from graphprune.recover.run import checked

        return checked([name.strip() for name in recover.split(",")], data)


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
