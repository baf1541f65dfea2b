"""`--max-drop`: the budget is searched, so that a metric loses no more than so much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from graphprune import api
from graphprune.cli import EXIT_INTERRUPTED
from graphprune.cli.console import Console
from graphprune.cli.options import Data, Inputs, _option, _refuse_without
from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from graphprune.analysis import Analysis

_PANEL: dict[str, Any] = {"rich_help_panel": "Within a drop"}
_MOST = 10_000
"""Samples to judge on, where --samples says nothing else."""


def _drop(text: str) -> float:
    """A drop from `0.005` or `0.5%`. Raises GraphPruneError GP107."""
    plain = str(text).strip()
    try:
        number = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        remedy = "write 0.5% or 0.005 for half a point of an accuracy"
        raise GraphPruneError("GP107", f"{text!r} is not a drop of a metric", "option --max-drop", remedy)
    return number


@dataclass(frozen=True)
class Within:
    """How much may be lost, of what, on which data: the arguments of `graphprune.drop`."""

    max_drop: Annotated[
        float | None,
        _option(
            "--max-drop",
            help="Cut as far as the metric loses no more than this; a budget beside it is the lowest share tried.",
            parser=_drop,
            metavar="DROP",
            **_PANEL,
        ),
    ] = None
    metric: Annotated[
        str,
        _option("--metric", help="accuracy, or module:callable of outputs and labels; more is better.", metavar="NAME",
                show_default=True, **_PANEL),
    ] = "accuracy"  # fmt: skip
    validation: Annotated[
        str | None,
        _option("--validation", help="What to judge on, as --calibration; else a part of that is held out.",
                metavar="SOURCE", **_PANEL),
    ] = None  # fmt: skip
    validation_labels: Annotated[
        str | None, _option("--validation-labels", help="Labels of it, as --labels.", metavar="FILE", **_PANEL)
    ] = None
    probes: Annotated[
        Path | None, _option("--probes", help="Write what was tried to this file, as soon as it is there.", **_PANEL)
    ] = None
    resume: Annotated[bool, _option("--resume", help="Go on with the file of --probes.", **_PANEL)] = False

    @property
    def wanted(self) -> bool:
        """Whether a drop is asked for. Raises GraphPruneError GP107 where it is only said how it would be measured."""
        if self.max_drop is None:
            _refuse_without(self, "max_drop", "a drop of a metric", "add --max-drop 0.5%")
        return self.max_drop is not None

    def found(
        self,
        analysis: Analysis,
        arguments: dict[str, Any],
        recover: Sequence[str],
        data: Data,
        inputs: Inputs,
        console: Console,
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The arguments with the budget that was found and the data that is left to compute from, and what to tell."""
        from graphprune.drop import Request, divided, find

        assert self.max_drop is not None
        if self.probes is not None and self.probes.exists() and not self.resume:
            remedy = "go on with it by --resume, or name another file"
            raise GraphPruneError("GP107", "there is a file of this name already", str(self.probes), remedy)
        request = Request(self.max_drop, self.metric, self.probes, self.resume, console.say)
        with console.working("reading data"):
            given, held = (
                api.calibrated(analysis, each, inputs.seed, inputs.sizes)
                for each in (arguments["calibration"], self._data(data))
            )
        fit, judge = divided(given, held)
        options = {name: value for name, value in arguments.items() if name not in ("calibration", "refit")}
        options |= {"seed": inputs.seed, "sizes": inputs.sizes}
        try:
            found = find(analysis, request, judge, calibration=fit, recover=recover, **options)
        except KeyboardInterrupt:
            if self.probes is None or not self.probes.exists():
                raise
            console.say(f"interrupted: what was tried is in {self.probes}; the same command goes on with --resume")
            raise SystemExit(EXIT_INTERRUPTED) from None
        return {**arguments, found.budget: found.target, "calibration": fit}, found.notes

    def _data(self, data: Data) -> Any:
        """What to judge on, read in the same way as calibration data."""
        if self.validation is None:
            if self.validation_labels is not None:
                what = "--validation-labels is about validation data, and there is none"
                raise GraphPruneError("GP107", what, "", "add --validation SOURCE")
            return None
        likewise = replace(data, calibration=self.validation, labels=self.validation_labels)
        return replace(likewise, samples=data.samples or _MOST).request()
