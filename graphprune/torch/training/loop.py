"""The loop: batch by batch until the budget is spent, in a state that can be saved after every step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graphprune.errors import GraphPruneError
from graphprune.torch.losses import Function
from graphprune.torch.training import state as states
from graphprune.torch.training.batches import FAILS, Batch, Source, batches, length
from graphprune.torch.training.budget import Budget, Done, clock
from graphprune.torch.training.distil import Teaching
from graphprune.torch.training.gradual_zeros import GradualZeros
from graphprune.torch.training.interrupts import Interrupts
from graphprune.torch.training.metric import Judge, run
from graphprune.torch.training.mixing import mixed
from graphprune.torch.training.randomness import RandomState, seeded
from graphprune.torch.training.result import Moment
from graphprune.torch.training.schedule import Schedule
from graphprune.torch.training.scope import is_batch_norm

_TELL_SECONDS = 10.0
_SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Course:
    """What a training is asked for, checked and made ready.

    loss, teaching: one of them at least
    judge, validation: both or none; every: steps between two validations, None for once a pass
    patience:  validations without a better one after which to stop
    frozen:    leave the statistics of batch norms as they are
    mixes:     how batches are mixed, which only a teacher knows the answers to
    asked:     all of it, as JSON has it: a checkpoint is of one course
    """

    budget: Budget
    schedule: Schedule
    source: Source
    loss: Function | None
    judge: Judge | None
    validation: Source | None
    augment: Callable[[Any], Any] | None
    every: int | None
    patience: int | None
    clip: float | None
    precision: torch.dtype | None
    frozen: bool
    checkpoint: Path | None
    tell: Callable[[str], None] | None
    teaching: Teaching | None = None
    mixes: tuple[str, ...] = ()
    zeros: GradualZeros | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Loop:
    """A training under way.

    best, best_step, best_tensors: of the best validation so far; stale: validations since then
    total, count: of the losses since the last moment
    cuts: how often zeros have become more
    random, begun: random numbers after the last step, and when the pass under way began
    """

    model: nn.Module
    optimizer: Optimizer
    course: Course
    done: Done = field(default_factory=Done)
    history: list[Moment] = field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    best_tensors: dict[str, Tensor] = field(default_factory=dict)
    stale: int = 0
    stopped: str = ""
    rate: float | None = None
    total: float = 0.0
    count: int = 0
    random: RandomState | None = None
    begun: RandomState | None = None
    cuts: int = 0
    whole: bool = True
    saved: int | None = None
    _clock: float = 0.0
    _told: float = 0.0
    _kept: float = 0.0

    def __post_init__(self) -> None:
        self.parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.device = self.parameters[0].device

    # ------------------------------------------------------------------ the course
    def run(self, resume: bool) -> None:
        """Train until the budget is spent. Raises GraphPruneError, with where the last checkpoint is."""
        teaching: AbstractContextManager[None] = nullcontext()
        if self.course.teaching is not None:
            teaching = self.course.teaching.at_work()
        self._clock = self._told = self._kept = time.monotonic()
        try:
            with Interrupts() as interrupts, teaching:
                if not (resume and self._resumed()):
                    self._judge()
                while not self.stopped:
                    self._pass(interrupts)
                self._judge()
                self.save()
        except KeyboardInterrupt:
            if self.whole:
                self.save()
            if self.saved is not None:
                self._say(f"interrupted: the training up to step {self.saved} is in {self.course.checkpoint}")
            raise
        except GraphPruneError as error:
            if self.saved is not None:
                error.remedy += f"; the training up to step {self.saved} is in {self.course.checkpoint}"
            raise

    def _pass(self, interrupts: Interrupts) -> None:
        done = self.done
        if done.position == 0:
            self.begun = self.random = RandomState.now()
            done.per_epoch = length(self.course.source) or done.per_epoch
        assert self.begun is not None
        self.begun.restore()
        for item in batches(self.course.source, done.epoch, done.position, self._restore_random):
            self._step(self._batch(item))
            self._after(interrupts)
            if self.stopped:
                return
        done.per_epoch = done.position
        self._judge()
        done.epoch, done.position = done.epoch + 1, 0
        self._end(interrupts)

    def _batch(self, item: Any) -> Batch:
        if self.course.augment is not None:
            try:
                item = self.course.augment(item)
            except FAILS as error:
                what = f"the function that augments failed: {type(error).__name__}: {error}"
                remedy = "it is given a whole batch, as the data yields it, and returns one"
                raise GraphPruneError("GP708", what, f"step {self.done.step + 1}", remedy) from error
        batch = Batch.of(item).to(self.device)
        return mixed(batch, self.course.mixes) if self.course.mixes else batch

    def _restore_random(self) -> None:
        assert self.random is not None
        self.random.restore()

    def _step(self, batch: Batch) -> None:
        course, at = self.course, f"step {self.done.step + 1}"
        self.rate = self._set_rate()
        self._train_mode()
        self.whole = False
        autocast = torch.autocast(self.device.type, course.precision) if course.precision else nullcontext()
        try:
            with autocast:
                outputs = run(self.model, batch)
                loss = self._loss(outputs, batch)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
        except GraphPruneError as error:
            error.where = f"{error.where}, {at}".removeprefix(", ")
            raise
        except FAILS as error:
            what = f"the loss cannot be differentiated: {type(error).__name__}: {error}"
            raise GraphPruneError("GP702", what, at, "check the loss, the labels and the teacher") from error
        if course.zeros is not None:
            course.zeros.watch()
        value = float(loss.detach())
        gradients = [each.grad for each in self.parameters if each.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, course.clip) if course.clip
                     else torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0  # fmt: skip
        if value - value or norm - norm:  # not 0 for what is not finite
            before = f", after a mean of {self.total / self.count:.4g}" if self.count else ""
            what = f"the loss is {value:g} and the length of its gradient {norm:g}{before}"
            raise GraphPruneError("GP707", what, f"{at}, learning rate {self.rate:g}")
        self.optimizer.step()
        self.total, self.count = self.total + value, self.count + 1

    def _loss(self, outputs: Any, batch: Batch) -> Tensor:
        course = self.course
        found = []
        if course.loss is not None:
            share = 1.0 if course.teaching is None else 1 - course.teaching.how.share
            if share:
                found.append(share * course.loss(outputs, batch.labels))
        if course.teaching is not None:
            found.append(course.teaching.loss(outputs, batch))
        return torch.stack(found).sum()

    def _set_rate(self) -> float:
        factor = float(self.course.schedule(self.course.budget.progress(self.done)))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return float(self.rates[0]) * factor

    def _train_mode(self) -> None:
        self.model.train()
        if self.course.frozen:
            for module in self.model.modules():
                if is_batch_norm(module):
                    module.eval()

    def _after(self, interrupts: Interrupts) -> None:
        done = self.done
        done.step, done.position = done.step + 1, done.position + 1
        self._count_time()
        if self.course.zeros is not None:
            self.cuts = self.course.zeros.cut(self.course.budget.progress(done), self.cuts)
        self.random = RandomState.now()
        self.whole = True
        self._judge_if_due()
        now = time.monotonic()
        if now - self._told >= _TELL_SECONDS:
            self._told = now
            left = clock(self.course.budget.left(done))
            self._say(f"step {done.step}, pass {done.epoch + 1}: loss {self.total / max(1, self.count):.4g}, "
                      f"rate {self.rate:.3g}, {left} left")  # fmt: skip
        if now - self._kept >= _SAVE_SECONDS:
            self.save()
        self._end(interrupts)

    def _end(self, interrupts: Interrupts) -> None:
        self.stopped = self.stopped or self.course.budget.ended(self.done)
        if interrupts.asked:
            raise KeyboardInterrupt

    def _count_time(self) -> None:
        now = time.monotonic()
        self.done.seconds += now - self._clock
        self._clock = now

    # ------------------------------------------------------------------ judging
    def _judge_if_due(self) -> None:
        if self.course.every and self.done.step % self.course.every == 0:
            self._judge()

    def _judge(self) -> None:
        """Note the moment, and measure where there is something to measure on; once for each step."""
        if self.history and self.history[-1].step == self.done.step:
            return
        value = None
        if self.course.judge is not None and self.course.validation is not None:
            with seeded(None):
                value = self.course.judge.measure(self.model, self._held(self.course.validation))
            if self.course.zeros is not None and self.cuts < self.course.zeros.cuts:
                pass  # what is not yet as sparse as it is to be cannot be the result
            elif self.course.judge.better(value, self.best):
                self.best, self.best_step, self.stale = value, self.done.step, 0
                self.best_tensors = {name: each.detach().clone()
                                     for name, each in states.tensors_of(self.model).items()}  # fmt: skip
            else:
                self.stale += 1
                if self.course.patience is not None and self.stale >= self.course.patience:
                    self.stopped = "patience"
        self._count_time()
        loss = self.total / self.count if self.count else None
        moment = Moment(self.done.step, self.done.epoch + bool(self.done.position), self.done.seconds, self.rate, loss,
                        value)  # fmt: skip
        self.total, self.count = 0.0, 0
        self.history.append(moment)
        shown = f", {self.course.judge.name} {value:.4g}" if self.course.judge is not None and value is not None else ""
        self._say(f"step {moment.step}" + (f": loss {loss:.4g}" if loss is not None else ": before training") + shown)

    def _held(self, source: Source) -> Iterator[Batch]:
        return (Batch.of(item).to(self.device) for item in batches(source, 0))

    def _say(self, text: str) -> None:
        if self.course.tell is not None:
            self.course.tell(text)

    # ------------------------------------------------------------------ files
    def save(self) -> None:
        """Write the checkpoint, where there is one."""
        if self.course.checkpoint is None:
            return
        random = self.random or RandomState.now()
        begun = self.begun or random
        tensors, optimizer = states.optimizer_state(self.optimizer)
        parts = {
            "model": states.tensors_of(self.model), "best": self.best_tensors, "optimizer": tensors,
            "random": random.tensors, "begun": begun.tensors,
        }  # fmt: skip
        numbers = {name: getattr(self, name) for name in _NUMBERS} | {
            "done": asdict(self.done), "history": [asdict(each) for each in self.history], "optimizer": optimizer,
            "random": random.numbers, "begun": begun.numbers,
        }  # fmt: skip
        flat = {f"{part}/{name}": each for part, held in parts.items() for name, each in held.items()}
        states.save(self.course.checkpoint, states.State(flat, numbers, self.course.asked))
        self.saved, self._kept = self.done.step, time.monotonic()

    def _resumed(self) -> bool:
        """Go on from the checkpoint, if there is one. Raises GraphPruneError: GP505, GP710."""
        folder = self.course.checkpoint
        if folder is None or not folder.exists():
            return False
        found = states.load(folder, self.course.asked)
        states.restore_tensors(self.model, found.part("model"))
        numbers = found.numbers
        try:
            states.restore_optimizer(self.optimizer, found.part("optimizer"), numbers["optimizer"])
            for name in _NUMBERS:
                setattr(self, name, numbers[name])
            self.done = Done(**numbers["done"])
            self.history = [Moment(**each) for each in numbers["history"]]
            self.random = RandomState(found.part("random"), numbers["random"])
            self.begun = RandomState(found.part("begun"), numbers["begun"])
        except (KeyError, TypeError) as error:
            raise GraphPruneError("GP505", f"the training lacks {error}", str(folder)) from error
        self.best_tensors = found.part("best")
        self.saved = self.done.step
        self.random.restore()
        self._say(f"going on after step {self.done.step}, {clock(self.done.seconds)} spent")
        self._judge_if_due()  # the interrupt may have come in the middle of it
        return True


_NUMBERS = ("best", "best_step", "stale", "stopped", "rate", "total", "count", "cuts")
