"""How long to train: epochs, steps and minutes, whichever ends first. Imports no framework."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from graphprune.errors import GraphPruneError


@dataclass
class Done:
    """How far a training is.

    step:      updates of the weights
    epoch:     whole passes over the data
    position:  batches of the pass under way
    per_epoch: batches of a pass; None where that is not known yet
    seconds:   time taken, validation included, over all parts of a training that was interrupted
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    per_epoch: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Budget:
    """What may be spent; None where there is no limit of this kind.

    >>> budget = Budget(epochs=2, steps=None, minutes=1)
    >>> budget.progress(Done(step=5, epoch=1, position=5, per_epoch=10, seconds=30)), budget.ended(Done(seconds=60))
    (0.75, 'minutes')
    """

    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None

    def check(self) -> None:
        """Raise GraphPruneError GP107 where there is no limit, or one that is none."""
        if all(getattr(self, each.name) is None for each in fields(self)):
            remedy = "give epochs, steps or minutes; whichever ends first counts"
            raise GraphPruneError("GP107", "it was not said how long to train", "", remedy)
        for name in ("epochs", "steps"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise GraphPruneError("GP107", f"{value!r} is not a whole number from 1 on", f"option {name}")
        minutes = self.minutes
        if minutes is not None and (isinstance(minutes, bool) or not 0 < minutes < math.inf):
            raise GraphPruneError("GP107", f"{minutes!r} is not a time above 0", "option minutes")

    def progress(self, done: Done) -> float:
        """The share of the budget that is spent, in 0..1; of the limit that is closest."""
        shares = [0.0]
        if self.epochs is not None:
            part = done.position / max(done.per_epoch, done.position, 1) if done.per_epoch else 0.0
            shares.append((done.epoch + part) / self.epochs)
        if self.steps is not None:
            shares.append(done.step / self.steps)
        if self.minutes is not None:
            shares.append(done.seconds / (60 * self.minutes))
        return min(1.0, max(shares))

    def ended(self, done: Done) -> str:
        """The name of the limit that is reached; empty while none is."""
        if self.steps is not None and done.step >= self.steps:
            return "steps"
        if self.epochs is not None and done.epoch >= self.epochs:
            return "epochs"
        if self.minutes is not None and done.seconds >= 60 * self.minutes:
            return "minutes"
        return ""

    def left(self, done: Done) -> float:
        """Seconds that are left, at the pace so far; infinite before the first step."""
        progress = self.progress(done)
        return done.seconds * (1 - progress) / progress if progress > 0 else math.inf


def clock(seconds: float) -> str:
    """Seconds as a reader likes them.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
