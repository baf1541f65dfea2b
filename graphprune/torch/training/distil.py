"""Knowledge distillation: what the student is taught by the outputs of a teacher, and by what it computes on the way.

Logits: ``T² KL(softmax(t / T) || softmax(s / T))``, the mean over samples (Hinton, Vinyals and Dean, 2015). Features:
``sum (s - t)² / sum t²`` for the output of a module (FitNets, Romero et al., ICLR 2015, without its regressor: whole
blocks keep the shapes of their outputs where widths inside of them are cut).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from graphprune.dialects.aten.capture import evaluating
from graphprune.errors import GraphPruneError
from graphprune.torch.losses import prediction
from graphprune.torch.training.batches import FAILS, Batch


@dataclass(frozen=True)
class Distillation:
    """How much a teacher says.

    share:       of the loss that is the teacher's, in 0..1; the rest is that of the labels
    temperature: T
    features:    names of modules of both networks; weight: of their mean against the rest of the loss
    """

    share: float = 0.9
    temperature: float = 4.0
    features: Sequence[str] = ()
    weight: float = 1.0

    def check(self) -> None:
        """Raise GraphPruneError GP107 for numbers that mean nothing."""
        for option, value, fits in (
            ("distill", self.share, 0 <= self.share <= 1),
            ("temperature", self.temperature, 0 < self.temperature < math.inf),
            ("feature_weight", self.weight, 0 <= self.weight < math.inf),
        ):
            if not fits:
                raise GraphPruneError("GP107", f"{value!r} is out of range", f"option {option}")


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T² KL`` of two tensors of logits, the mean over all but the axis of classes: the last one of two or three axes
    (samples, tokens), the second of more (images).

    >>> logits = torch.tensor([[0.0, 1.0]])
    >>> float(divergence(logits, logits + 3, 2.0))
    0.0
    """
    if student.shape != teacher.shape or student.dim() < 2:
        what = f"logits of shape {tuple(student.shape)} cannot be compared with the teacher's {tuple(teacher.shape)}"
        raise GraphPruneError("GP702", what, "teacher", "give a teacher with the same classes")
    axis = 1 if student.dim() > 3 else student.dim() - 1
    wanted = functional.log_softmax(teacher.float() / temperature, axis)
    found = functional.log_softmax(student.float() / temperature, axis)
    sums = functional.kl_div(found, wanted, reduction="sum", log_target=True)
    return sums * (temperature**2 * student.shape[axis] / student.numel())


@dataclass
class Teaching:
    """A teacher at work, while :meth:`at_work` is open."""

    teacher: nn.Module | Callable[..., Any]
    student: nn.Module
    how: Distillation
    seen: dict[str, dict[str, Tensor]] = field(default_factory=lambda: {"student": {}, "teacher": {}})

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The teacher in evaluation mode, and outputs of modules noted. Raises GraphPruneError GP107."""
        handles = []
        try:
            for who, model in (("student", self.student), ("teacher", self.teacher)) if self.how.features else ():
                for name in self.how.features:
                    handles.append(_found(model, name, who).register_forward_hook(self._noting(who, name)))
            with evaluating(self.teacher) if isinstance(self.teacher, nn.Module) else nullcontext():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """What the teacher says about these outputs of the student: logits times share, and features times weight.

        Raises GraphPruneError GP702 where the two do not fit.
        """
        try:
            with torch.no_grad():
                answer = prediction(self.teacher(*batch.args, **batch.kwargs))
        except FAILS as error:
            what = f"the teacher cannot be run on the batch: {type(error).__name__}: {error}"
            raise GraphPruneError("GP702", what, "teacher") from error
        found = self.how.share * divergence(prediction(outputs), answer, self.how.temperature)
        errors = [self._error(name) for name in self.how.features]
        return found + self.how.weight * torch.stack(errors).mean() if errors else found

    def _error(self, name: str) -> Tensor:
        student, teacher = (self.seen[who].pop(name, None) for who in ("student", "teacher"))
        if student is None or teacher is None or student.shape != teacher.shape:
            shapes = ["nothing" if each is None else str(tuple(each.shape)) for each in (student, teacher)]
            what = f"the student's {name!r} returns {shapes[0]}, the teacher's {shapes[1]}"
            remedy = "choose modules whose outputs were not cut, such as whole residual blocks"
            raise GraphPruneError("GP702", what, "option features", remedy)
        teacher = teacher.float()
        return (student.float() - teacher).square().sum() / teacher.square().sum().clamp_min(1e-12)

    def _noting(self, who: str, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, inputs: Any, outputs: Any) -> None:
            tensors = [each for each in pytree.tree_leaves(outputs) if isinstance(each, Tensor)]
            if tensors:
                self.seen[who][name] = tensors[0]

        return note


def _found(model: Any, name: str, who: str) -> nn.Module:
    try:
        found = model.get_submodule(name)
    except AttributeError as error:
        what = f"the {who} has no module {name!r}"
        raise GraphPruneError("GP107", what, "option features", "give names of modules of both networks") from error
    assert isinstance(found, nn.Module)
    return found
