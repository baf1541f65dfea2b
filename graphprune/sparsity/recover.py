"""What can be done without training for the weights that stay beside zeros, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.fidelity import Fidelity
from graphprune.recover.batch_norm import BatchNormRecalibration
from graphprune.recover.pair import Outcome, Pair, held_cases
from graphprune.sparsity.choose import Choice, applied
from graphprune.sparsity.refit import SparseWalk

RECOVERIES = {
    "sparsegpt": "columns one after the other, each made up for by those behind it (Frantar & Alistarh, ICML 2023)",
    "least_squares": "the exact minimum with these zeros; layers that stay dense are fitted, too",
    "batch_norm": "new statistics of every BatchNorm",
}
"""The recoveries, in the order in which they run, and what each does."""

_FITS = ("sparsegpt", "least_squares")


def checked(recover: str | Sequence[str], calibration: Calibration | None) -> tuple[str, ...]:
    """The recoveries that an option names, in running order. Raises GraphPruneError: GP106 for names that are not
    known, GP704 where there is no data."""
    asked = [name.strip() for name in (recover.split(",") if isinstance(recover, str) else recover)]
    for name in asked:
        if name not in (*RECOVERIES, "none"):
            what = f"there is no recovery {name!r} for zeros"
            raise GraphPruneError("GP106", what, "option recover", did_you_mean(name, [*RECOVERIES, "none"]))
    names = tuple(name for name in RECOVERIES if name in asked)
    if names and calibration is None:
        what = f"the recovery {names[0]!r} needs calibration data"
        raise GraphPruneError("GP704", what, "option recover", "give calibration data, or recover='none'")
    return names


def recovered(
    analysis: Analysis, choice: Choice, names: Sequence[str], calibration: Calibration, seed: int = 0
) -> Choice:
    """The choice with other numbers, and where its criterion is ``obs`` other masks.

    Raises GraphPruneError: GP402 where a model cannot be run, GP701 and GP703 for the data.
    """
    notes = []
    fits = [name for name in _FITS if name in names]
    if fits:
        walk = SparseWalk(Pair.of(analysis, {}, applied(analysis, choice), calibration, seed), choice, fits)
        outcomes = [each for place in range(len(walk.pair.layers)) if (each := walk.layer(place)) is not None]
        choice = walk.result()
        notes += [f"{' and '.join(fits)}: {_told(outcomes)}", *_scarce(walk.scarce)]
    if "batch_norm" in names:
        choice, note = _recalibrated(analysis, choice, calibration, seed)
        notes.append(note)
    return replace(choice, notes=(*choice.notes, *notes))


def _told(outcomes: Sequence[Outcome]) -> str:
    done = [each for each in outcomes if each.applied]
    text = f"{len(done)} of {len(outcomes)} layers fitted"
    if done:
        before, after = np.mean([(each.before, each.after) for each in done], axis=0)
        text += f", their error on held-out data {before:.3g} -> {after:.3g} of what they compute"
    partly = [str(each) for each in outcomes if each.note]
    return text + (f"; {len(partly)} not in every way: {', '.join(partly[:3])}" if partly else "")


def _scarce(layers: Sequence[str]) -> list[str]:
    if not layers:
        return []
    return [f"{len(layers)} layers have more inputs than there are samples, {layers[0]} first: more data would help"]


def _recalibrated(analysis: Analysis, choice: Choice, calibration: Calibration, seed: int) -> tuple[Choice, str]:
    """With new statistics of BatchNorms, where they bring the outputs closer on data that they were not taken from."""
    cases = list(calibration.cases)
    last = held_cases(len(cases))
    seen, held = (cases[:-last], cases[-last:]) if last else (cases, cases)

    def anew(some: Sequence[object]) -> Choice:
        pair = Pair.of(analysis, {}, applied(analysis, choice), replace(calibration, cases=some), seed)
        arrays = BatchNormRecalibration().run(pair).arrays
        return replace(choice, others={**choice.others, **arrays})

    fidelity = Fidelity(analysis, held)
    before, after = (fidelity.error(fidelity.outputs(applied(analysis, each))) for each in (choice, anew(seen)))
    if not after < before:
        return choice, "batch_norm: not applied, GP705 the error of the outputs on held-out data would not be lower"
    return anew(cases), f"batch_norm: error of the outputs on held-out data {before:.3g} -> {after:.3g}"
