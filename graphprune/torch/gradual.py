"""Pruning while training: a little every so many steps, the optimizer and averages following each time.

The shares follow the cubic schedule of Zhu and Gupta, "To prune, or not to prune" (2017): fast at first, when there is
much to spare, and slower towards the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphprune.errors import GraphPruneError
from graphprune.torch.pruned import pruned_of
from graphprune.torch.pruning import prune_

if TYPE_CHECKING:
    from graphprune.api import Result
    from graphprune.plan import Plan


class Gradual:
    """Prunes a module in place to a share of its multiply-accumulates, in `times` cuts, one every `every` steps.

        gradual = Gradual(model, images, macs=0.4, times=5, every=200, optimizer=optimizer)
        for batch in batches:
            ...
            optimizer.step()
            gradual.step()

    model:      the module itself, not a wrapper: DistributedDataParallel must be put around it anew after each cut
    macs:       the share of the dense multiply-accumulates that remains at the end
    begin:      how many steps pass before the first cut
    optimizer, averages: what has to follow the parameters; averages are copies such as AveragedModel
    options:    those of :func:`graphprune.torch.pruning.prune_`
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        macs: float,
        times: int,
        every: int,
        begin: int = 0,
        optimizer: Optimizer | None = None,
        averages: Sequence[nn.Module] = (),
        **options: Any,
    ):
        for name, value, least in (("times", times, 1), ("every", every, 1), ("begin", begin, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise GraphPruneError("GP107", f"{name} is {value!r}, not an integer from {least} on", "Gradual")
        if not 0 < macs <= 1:
            raise GraphPruneError("GP107", f"macs is {macs!r}, not a share in (0, 1]", "Gradual")
        self.model = model
        self.example_inputs = example_inputs
        self.macs, self.times, self.every, self.begin = macs, times, every, begin
        self.optimizer, self.averages, self.options = optimizer, tuple(averages), options
        self.steps = self.cuts = 0
        self.share = 1.0
        """The share of the dense multiply-accumulates that is left now."""

    def target(self, cut: int) -> float:
        """The share that remains after so many cuts: ``1 - (1 - macs) * (1 - (1 - cut / times) ** 3)``."""
        return 1.0 - (1.0 - self.macs) * (1.0 - (1.0 - cut / self.times) ** 3)

    def step(self) -> Result | None:
        """Count one training step, and cut where one is due; the outcome of the cut, if there was one.

        Raises GraphPruneError as `prune_` does, and GP508 where the ranks of a distributed run do not agree.
        """
        self.steps += 1
        due = self.begin + self.every * (self.cuts + 1)
        return self.cut() if self.cuts < self.times and self.steps >= due else None

    def cut(self) -> Result:
        """Make the next cut now."""
        share = self.target(self.cuts + 1) / self.share
        result = prune_(self.model, self.example_inputs, macs=min(1.0, share), **self.options)
        agree(result.plan)
        if self.optimizer is not None:
            result.plan.transplant(self.optimizer, self.model)
        for average in self.averages:
            from graphprune.torch.transplant import transplant_average

            done = pruned_of(self.model)
            assert done is not None
            transplant_average(average, done)
        self.cuts += 1
        self.share *= result.report.pruned.macs / result.report.dense.macs
        return result


def agree(plan: Plan) -> None:
    """Make sure that all ranks of a distributed run cut alike; does nothing where there is one process.

    Equal weights give equal plans, so that a difference means that the ranks have drifted apart.
    Raises GraphPruneError GP508 on every rank.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    digest = torch.frombuffer(bytearray(hashlib.sha256(plan.to_json().encode()).digest()), dtype=torch.uint8)
    digests = [torch.empty_like(digest) for _ in range(distributed.get_world_size())]
    distributed.all_gather(digests, digest)
    if any(not torch.equal(digest, other) for other in digests):
        remedy = "broadcast the parameters before pruning, or make the plan on one rank and pass it on with plan="
        raise GraphPruneError("GP508", "the ranks have made different plans", f"rank {distributed.get_rank()}", remedy)


def lightning_callback(gradual: Gradual) -> Any:
    """A callback for `lightning.pytorch.Trainer` that counts the steps of its optimizer, of several batches where it
    accumulates gradients. Raises GraphPruneError GP108 without it; where the trainer has several optimizers, training
    raises GP107 unless `gradual` was given its own."""
    try:
        from lightning.pytorch import Callback
    except ImportError as error:
        raise GraphPruneError("GP108", "lightning is not installed", "", "pip install lightning") from error

    class GradualCallback(Callback):
        steps = 0

        def on_train_start(self, trainer: Any, *_: Any) -> None:
            if gradual.optimizer is None and len(trainer.optimizers) != 1:
                what = f"the trainer has {len(trainer.optimizers)} optimizers, and one has to follow the module"
                raise GraphPruneError("GP107", what, "Gradual", "give optimizer=, the one that trains the module")
            gradual.optimizer = gradual.optimizer or trainer.optimizers[0]
            self.steps = trainer.global_step

        def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
            if trainer.global_step > self.steps:
                self.steps = trainer.global_step
                gradual.step()

    return GradualCallback()


def transformers_callback(gradual: Gradual) -> Any:
    """A callback for `transformers.Trainer` that counts its steps. Raises GraphPruneError GP108 without it."""
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise GraphPruneError("GP108", "transformers is not installed", "", "pip install transformers") from error

    class GradualCallback(TrainerCallback):
        def on_step_end(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
            inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
            gradual.optimizer = gradual.optimizer or inner
            gradual.step()

    return GradualCallback()
