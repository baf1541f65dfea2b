"""Inputs as they may come in use: what is done to them before networks are compared once more.

Noise, blur and less contrast stand for the kinds of corruptions of Hendrycks & Dietterich (ICLR 2019), one strength of
each, in the units of the data. To add one, write a function and a row of :data:`ALTERATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphprune.program import Array

Alteration = Callable[[Array, np.random.Generator], "Array | None"]
"""Of one floating-point input of a batch, samples along the first axis; None where it has no meaning for this input."""

_NOISE = 0.25
"""Standard deviations of the input."""
_CHANNELS = 4
"""An image has at most so many, along the first or the last of its axes."""


def noise(array: Array, generator: np.random.Generator) -> Array | None:
    """Normal numbers are added, with a quarter of the standard deviation of the input."""
    noisy: Array = array + _NOISE * array.std() * generator.standard_normal(array.shape)
    return noisy


def blur(array: Array, generator: np.random.Generator) -> Array | None:
    """Each pixel becomes the mean of the three by three around it; borders are repeated.

    >>> image = np.zeros((1, 1, 3, 3)); image[0, 0, 1, 1] = 9.0
    >>> float(blur(image, np.random.default_rng(0)).max())
    1.0
    """
    axes = _plane(array)
    if axes is None:
        return None
    for axis in axes:
        before, after = np.take(array, [0], axis), np.take(array, [-1], axis)
        size, wide = array.shape[axis], np.concatenate([before, array, after], axis)
        array = np.mean([np.take(wide, range(k, k + size), axis) for k in range(3)], axis=0)
    return array


def contrast(array: Array, generator: np.random.Generator) -> Array | None:
    """Each image goes half of the way to its mean."""
    if _plane(array) is None:
        return None
    halfway: Array = (array + array.mean(axis=tuple(range(1, array.ndim)), keepdims=True)) / 2
    return halfway


ALTERATIONS: Mapping[str, Alteration] = {"noise": noise, "blur": blur, "contrast": contrast}


def altered(case: Any, change: Alteration, generator: np.random.Generator) -> tuple[Any, bool]:
    """A case with all inputs changed that can be, and whether one was. Data types stay."""
    if isinstance(case, Mapping):
        values, changed = altered(list(case.values()), change, generator)
        return dict(zip(case, values, strict=True)), changed
    if isinstance(case, list | tuple):
        pairs = [altered(each, change, generator) for each in case]
        return type(case)(each for each, _ in pairs), any(changed for _, changed in pairs)
    new_tensor = getattr(case, "new_tensor", None)  # of PyTorch, whose types numpy does not all know
    if not getattr(case, "ndim", 0) or not (case.is_floating_point() if new_tensor else case.dtype.kind == "f"):
        return case, False
    found = change(np.asarray(case.double() if new_tensor else case, np.float64), generator)
    if found is None:
        return case, False
    return (new_tensor(found) if new_tensor else found.astype(case.dtype)), True


def _plane(array: Array) -> tuple[int, int] | None:
    """The axes of height and width, where these are images."""
    if array.ndim != 4:
        return None
    return (1, 2) if array.shape[3] <= _CHANNELS < array.shape[1] else (2, 3)
