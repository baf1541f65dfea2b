"""Runs recoveries one after the other, each on what the one before it made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.analysis import Analysis, analyze_program
from graphprune.apply import apply_keep
from graphprune.calibrate import Calibration
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Model
from graphprune.dims import Dim, Keep, walk
from graphprune.errors import GraphPruneError
from graphprune.fidelity import errors_of
from graphprune.program import Array
from graphprune.recover import RECOVERIES
from graphprune.recover.pair import Outcome, Pair, held_cases

_ALONE = "GP706"
"""Begins the notes on layers that are fitted, but not together with others."""


@dataclass(frozen=True)
class Refitted:
    """The pruned network with other numbers, which tensors got them, and what to tell about it."""

    model: Model
    arrays: Mapping[str, Array]
    notes: tuple[str, ...]


def checked(names: str | Sequence[str], calibration: Calibration | None) -> tuple[str, ...]:
    """The recoveries that an option names. Raises GraphPruneError: GP106 for names that are not known, GP107 for
    those that do the same twice, GP704 where there is no data."""
    listed = tuple(name for name in (names.split(",") if isinstance(names, str) else names) if name != "none")
    for name in listed:
        RECOVERIES.load(name)
    fitting = [name for name in ("gauss_newton", "least_squares", "mask_tuning", "obspa") if name in listed]
    if fitting and "bias" in listed:
        what = f"{fitting[0]} makes up for means itself: bias beside it would add the same once more"
        raise GraphPruneError("GP107", what, "option recover", "leave bias out")
    if {"gauss_newton", "least_squares"} <= set(listed):
        what = "gauss_newton is least_squares with steps before it: both would do the same twice"
        raise GraphPruneError("GP107", what, "option recover", "leave least_squares out")
    if listed and calibration is None:
        raise GraphPruneError("GP704", f"the recovery {listed[0]!r} needs calibration data", "option recover",
                              "give calibration data, or recover='none'")  # fmt: skip
    return listed


def cut(analysis: Analysis, keep: Keep, names: Sequence[str], calibration: Calibration | None, seed: int = 0) -> Model:
    """The network without what is not kept, with other numbers where recoveries are named and there is data."""
    return refitted(analysis, keep, apply_keep(analysis, keep), names, calibration, seed)


def refitted(
    analysis: Analysis, keep: Keep, small: Model, names: Sequence[str], calibration: Calibration | None, seed: int = 0
) -> Model:
    """What a cut left, with other numbers where recoveries are named and there is data."""
    if not names or calibration is None:
        return small
    return recover(analysis, keep, small, names, calibration, seed).model


def recover(
    analysis: Analysis, keep: Keep, small: Model, names: Sequence[str], calibration: Calibration, seed: int = 0
) -> Refitted:
    """A pruned network with other numbers; the one that is given stays as it is.

    Raises GraphPruneError: GP402 where a model cannot be run, GP701 and GP703 for the data.
    """
    arrays: dict[str, Array] = {}
    notes = []
    tools = tools_of(small)
    whole = _between_floats(analysis, keep)
    for name in names:
        seen = small if whole is None else tools.between_floats(small)
        pair = Pair.of(*(whole or (analysis, keep)), seen, calibration, seed)
        made: Any = RECOVERIES.load(name)().run(pair)
        small = tools.with_stored(pair.small.program if seen is small else tools.read(small), made.arrays)
        arrays.update(made.arrays)
        notes.append(f"{name}: {_told(made.outcomes)}")
    return Refitted(small, arrays, tuple(notes))


def _between_floats(analysis: Analysis, keep: Keep) -> tuple[Analysis, Keep] | None:
    """The network with its products of integers between floats, and what is kept of it, by the parts of the tensors
    that both have; None where there are none, or where a dimension that is cut is not one dimension there."""
    tools, native = tools_of(analysis.program.native), analysis.program.native
    model = tools.between_floats(native)
    if model is native:
        return None
    other = analyze_program(tools.read(model, analysis.program.rules))
    axes = {stored.name: each for stored, _, _, each in other.stored_axes()}
    twins: dict[Dim, set[Dim]] = {}
    for stored, _, _, ours in analysis.stored_axes():
        for mine, theirs in zip(ours, axes.get(stored.name, []), strict=False):
            parts = dict(walk(theirs))
            for path, dim in walk(mine):
                if dim in keep and path in parts:
                    twins.setdefault(dim, set()).add(parts[path])
    sizes = {dim: {twin.size for twin in twins.get(dim, ())} for dim in keep}
    if any(sizes[dim] != {dim.size} for dim in keep):
        return None
    return other, {twin: kept for dim, kept in keep.items() for twin in twins[dim]}


def on_outputs(analysis: Analysis, before: Model, after: Model, calibration: Calibration) -> tuple[str, ...]:
    """What recovery did to the outputs, on the cases that fits are judged on; nothing where there is but one case.
    Raises GraphPruneError GP402 where a model cannot be run."""
    cases = list(calibration.cases)
    last = held_cases(len(cases))
    if not last:
        return ()
    first, second = errors_of(analysis, (before, after), cases[-last:])
    text = f"recovery: error of the outputs on the last fifth of the data {first:.3g} -> {second:.3g}"
    worse = "; GP712 that is more than without it: recover in another way, or not at all"
    return (text + worse if second > first else text,)


def _told(outcomes: Sequence[Outcome]) -> str:
    alone = [each for each in outcomes if each.note.startswith(_ALONE)]
    fitted = [each for each in outcomes if each not in alone]
    done = [each for each in fitted if each.applied]
    text = f"{len(done)} of {len(fitted)} fits applied"
    errors = [(each.before, each.after) for each in done if np.isfinite(each.before)]
    if errors:
        before, after = np.mean(errors, axis=0)
        text += f", their error on held-out data {before:.3g} -> {after:.3g} of what they compute"
    left = [each for each in fitted if not each.applied]
    text += f"; left as they were: {', '.join(map(str, left[:3]))}" if left else ""
    return text + (f"; {len(alone)} layers fitted by themselves: {', '.join(map(str, alone[:2]))}" if alone else "")
