"""What a model is judged by, where more is better: accuracy, or a function of outputs and labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphprune.criteria.custom import name_of
from graphprune.data.named import imported
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.program import Array
from graphprune.registry import LOADING_FAILS

Metric = Callable[[list[list[Array]], Any], float]
"""From the outputs of a model (a list of its outputs for every batch) and the labels of these batches (None where there
are none) to a number; the same as in a sweep."""


def accuracy(outputs: list[list[Array]], labels: Any) -> float:
    """The share of samples whose largest number in the first output is at the place of the label.

    >>> accuracy([[np.array([[0.1, 0.9], [0.8, 0.2]])]], [np.array([1, 1])])
    0.5
    """
    if labels is None:
        remedy = "give labels with the data (--validation-labels), or another metric"
        raise GraphPruneError("GP709", "there are no labels to count what is right by", "accuracy", remedy)
    right = [
        np.asarray(batch[0]).reshape(len(label), -1).argmax(axis=1) == np.asarray(label).reshape(-1)
        for batch, label in zip(outputs, map(np.asarray, labels), strict=True)
    ]
    return float(np.concatenate(right).mean())


METRICS: dict[str, Metric] = {"accuracy": accuracy}


def metric_of(metric: str | Metric) -> Metric:
    """A metric by its name or its place. Raises GraphPruneError: GP106 where there is none of the name, GP101 where it
    cannot be imported, GP107 where it is no function."""
    found: Any = metric
    if isinstance(metric, str):
        if metric not in METRICS and ":" not in metric:
            remedy = did_you_mean(metric, METRICS) + ", or module:function"
            raise GraphPruneError("GP106", f"there is no metric {metric!r}", "option metric", remedy)
        found = METRICS[metric] if metric in METRICS else imported(metric)
    if not callable(found):
        what = f"{name_of(metric)} is no function"
        raise GraphPruneError("GP107", what, "option metric", "write a function of outputs and labels")
    return found  # type: ignore[no-any-return]


def measured(metric: str | Metric, outputs: list[list[Array]], labels: Any) -> float:
    """What a metric says. Raises GraphPruneError GP709 where it fails, or returns anything but a finite number."""
    function, name = metric_of(metric), name_of(metric)
    try:
        value = np.asarray(function(outputs, labels))
    except GraphPruneError:
        raise
    except LOADING_FAILS as error:
        missing = " (there are no labels)" if labels is None else ""
        what = f"the metric failed{missing}: {type(error).__name__}: {error}"
        remedy = "it is given a list of outputs for every batch, as arrays, and a list of labels"
        raise GraphPruneError("GP709", what, name, remedy) from error
    if value.size != 1 or value.dtype.kind not in "fiub":
        raise GraphPruneError("GP709", f"the metric returned {value.dtype} of {value.shape}", name, "return one number")
    if not math.isfinite(float(value.reshape(()))):
        raise GraphPruneError("GP709", f"the metric is {value}", name, "return one finite number")
    return float(value.reshape(()))
