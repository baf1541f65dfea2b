"""What a training did: its history, the best of it, and why it ended. Imports no framework."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from graphprune.report import table
from graphprune.torch.training.budget import clock


@dataclass(frozen=True)
class Moment:
    """What was seen at one validation, or at the end of a pass where there is none.

    step, epoch: updates and whole passes so far
    seconds: since the training began
    rate:    the learning rate of the last step; None before the first
    loss:    the mean over the steps since the moment before; None where there were none
    metric:  on the validation data; None where there is none
    """

    step: int
    epoch: int
    seconds: float
    rate: float | None = None
    loss: float | None = None
    metric: float | None = None


@dataclass(frozen=True)
class Finetuned:
    """A trained model and how it came about.

    model:    a trained copy; of the moment with the best metric, where there is validation data
    history:  moments, the first before any step
    metric:   what was measured (accuracy, loss, the name of a function); empty without validation data
    best:     its best value; best_step: after how many steps, 0 where training did not improve the model
    steps, epochs, seconds: what was spent
    trained, parameters: numbers that were trained, and those of the whole model
    stopped:  the limit that was reached (epochs, steps, minutes), or patience
    """

    model: Any
    history: tuple[Moment, ...]
    metric: str
    best: float | None
    best_step: int
    steps: int
    epochs: int
    seconds: float
    trained: int
    parameters: int
    stopped: str

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, as JSON has it."""
        plain = {name: value for name, value in vars(self).items() if name not in ("model", "history")}
        return {**plain, "history": [asdict(each) for each in self.history]}

    def to_text(self) -> str:
        """A table of the history, and what came of it."""
        head = ("step", "epoch", "time", "rate", "loss", *([self.metric] if self.metric else []))
        rows = [_cells(each)[: len(head)] for each in self.history]
        lines = [line.rstrip() for line in table(head, rows)]
        share = self.trained / max(1, self.parameters)
        spent = f"{self.steps} steps in {clock(self.seconds)} of {self.trained:,} parameters ({share:.1%})"
        lines += ["", f"{spent}; stopped by {self.stopped}"]
        if self.best is not None:
            what = f"best {self.metric} {self.best:.4g} after step {self.best_step}"
            lines.append(what if self.best_step else f"{what}: training made it no better, the model is as before")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()


def _cells(moment: Moment) -> tuple[str, ...]:
    numbers = (f"{value:.4g}" if value is not None else "" for value in (moment.rate, moment.loss, moment.metric))
    return (str(moment.step), str(moment.epoch), clock(moment.seconds), *numbers)
