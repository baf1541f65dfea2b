"""What a training is judged by: accuracy, the loss, or a function of one's own, on data that is not trained with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphprune.data.named import imported
from graphprune.dialects.aten.capture import evaluating
from graphprune.dialects.aten.reader import numbers
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.metric import Metric, measured
from graphprune.program import Array
from graphprune.torch.losses import IGNORED, Function, prediction
from graphprune.torch.training.batches import FAILS, Batch

NAMES = ("accuracy", "loss")


@dataclass(frozen=True)
class Judge:
    """Measures a model. Of the accuracy and of what a function returns more is better, of the loss less."""

    metric: str | Metric
    loss: Function | None

    @classmethod
    def of(cls, metric: str | Metric, loss: Function | None) -> Judge:
        """Raises GraphPruneError: GP101 and GP106 for names, GP107 where there is no loss to measure."""
        if not callable(metric) and metric not in NAMES:
            if ":" not in metric:
                remedy = did_you_mean(metric, NAMES) + ", or module:function"
                raise GraphPruneError("GP106", f"there is no metric {metric!r}", "option metric", remedy)
            metric = imported(metric)
        if metric == "loss" and loss is None:
            raise GraphPruneError("GP107", "there is no loss that could be measured", "option metric", "give a loss")
        return cls(metric, loss)

    @property
    def name(self) -> str:
        """As a history says it."""
        return self.metric if isinstance(self.metric, str) else getattr(self.metric, "__name__", "metric")

    def better(self, value: float, than: float | None) -> bool:
        """Whether one value is better than another; any number is better than none."""
        return than is None or (value < than if self.metric == "loss" else value > than)

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """The metric over all batches, in evaluation mode.

        Raises GraphPruneError: GP702 where the model cannot be run on a batch or labels do not fit, GP709 where the
        metric fails, or returns something else than a number.
        """
        with evaluating(model), torch.no_grad():
            if self.metric == "accuracy":
                value = _share((prediction(run(model, each)), each.labels) for each in batches)
            elif self.metric == "loss":
                value = self._mean_loss(model, batches)
            else:
                value = measured(self.metric, *_outputs(model, batches))
        if not math.isfinite(value):
            raise GraphPruneError("GP709", f"the metric is {value}", self.name)
        return value

    def _mean_loss(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        assert self.loss is not None
        found = [float(self.loss(run(model, each), each.labels)) for each in batches]
        return sum(found) / len(found)


def _outputs(model: nn.Module, batches: Iterable[Batch]) -> tuple[list[list[Array]], Any]:
    outputs, labels = [], []
    for each in batches:
        tensors = [leaf for leaf in pytree.tree_leaves(run(model, each)) if isinstance(leaf, Tensor)]
        outputs.append([numbers(leaf).copy() for leaf in tensors])
        labels.append(numbers(each.labels).copy() if isinstance(each.labels, Tensor) else each.labels)
    return outputs, labels if any(each is not None for each in labels) else None


def run(model: nn.Module, batch: Batch) -> Any:
    """What a model returns for a batch. Raises GraphPruneError GP702 where it cannot be run."""
    try:
        return model(*batch.args, **batch.kwargs)
    except FAILS as error:
        lines = str(error).strip().splitlines()
        what = f"the model cannot be run on it: {type(error).__name__}: {lines[0] if lines else ''}"
        remedy = "yield (inputs, labels), the inputs as forward takes them"
        raise GraphPruneError("GP702", what, "a batch", remedy) from error


def _share(pairs: Iterable[tuple[Tensor, Any]]) -> float:
    """How many of the predictions with the largest score have the label's number. Raises GraphPruneError GP702."""
    right = count = 0
    for logits, labels in pairs:
        if labels is None:
            raise GraphPruneError("GP702", "accuracy needs labels, and a batch has none", "validation data",
                                  "yield (inputs, labels), or measure with a metric of your own")  # fmt: skip
        axis = 1 if logits.dim() > 3 or logits.dim() < 3 else 2
        found, given = logits.argmax(min(axis, logits.dim() - 1)), torch.as_tensor(labels, device=logits.device)
        if found.shape != given.shape:
            what = f"labels of shape {tuple(given.shape)} do not fit outputs of shape {tuple(logits.shape)}"
            raise GraphPruneError("GP702", what, "validation data")
        counted = given != IGNORED
        right, count = right + int(((found == given) & counted).sum()), count + int(counted.sum())
    return right / count if count else math.nan
