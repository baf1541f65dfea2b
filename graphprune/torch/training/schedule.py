"""The learning rate over a training: a factor for each share of the budget that is spent. Imports no framework.

Learning-rate rewinding (Renda, Frankle and Carbin, "Comparing rewinding and fine-tuning", ICLR 2020) keeps the weights
and replays the schedule of the original training from some point on: `rewind` is that point as a share of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphprune.errors import GraphPruneError, did_you_mean

Schedule = Callable[[float], float]
"""From the share of the budget that is spent, in 0..1, to a factor of the learning rate."""

_RISE = 0.3
_DROPS = (0.5, 0.75)


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _one_cycle(progress: float) -> float:
    if progress < _RISE:
        return 0.04 + 0.96 * (1 - _cosine(progress / _RISE))
    return _cosine((progress - _RISE) / (1 - _RISE))


def _drops(progress: float) -> float:
    factor: float = 0.1 ** sum(progress >= each for each in _DROPS)
    return factor


SCHEDULES: dict[str, Schedule] = {
    "cosine": _cosine,
    "linear": lambda progress: 1 - progress,
    "one_cycle": _one_cycle,
    "step": _drops,
    "constant": lambda progress: 1.0,
}
"""
- ``cosine``: down to 0 on half a wave (Loshchilov and Hutter, ICLR 2017)
- ``linear``: down to 0 on a line (PERP)
- ``one_cycle``: up from 4 % in the first 30 %, then as cosine (Smith, 2018)
- ``step``: a tenth after a half, and again after three quarters
- ``constant``: the same all the time
"""


def schedule_of(chosen: str | Schedule, rewind: float | None = None) -> Schedule:
    """A schedule by name, or a function of one's own; replayed from the share `rewind` of it on, where that is given.

    >>> schedule_of("step", rewind=0.5)(0.0), schedule_of("linear", rewind=0.5)(0.5)
    (0.1, 0.25)

    Raises GraphPruneError: GP106 for an unknown name, GP107 for a share outside of 0..1.
    """
    if not callable(chosen):
        if chosen not in SCHEDULES:
            raise GraphPruneError(
                "GP106", f"there is no schedule {chosen!r}", "option schedule", did_you_mean(str(chosen), SCHEDULES)
            )
        chosen = SCHEDULES[chosen]
    if rewind is None:
        return chosen
    if isinstance(rewind, bool) or not 0 <= rewind < 1:
        what = f"{rewind!r} is no share of the schedule to return to"
        raise GraphPruneError("GP107", what, "option rewind", "write a share from 0 to below 1, such as 0.5")
    whole, start = chosen, float(rewind)
    return lambda progress: whole(start + (1 - start) * progress)
