"""Batches from what sources yield, and a digest that says which numbers they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.data.inputs import Inputs, misfit
from graphprune.program import Array

Named = dict[str, Array]


@dataclass(frozen=True)
class Reading:
    """How a source is read: see :func:`graphprune.data.calibration.calibration`. Most sources ask for little of it."""

    seed: int = 0
    labels: Any = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    tokenizer: Any = None
    length: int = 128
    mean: Any = 0.0
    std: Any = 1.0


@dataclass(eq=False)
class Batches:
    """Collects batches until there are enough samples.

    size:    samples of a batch where single samples or whole arrays are given; batches that are given stay as they are
    samples: the most to take
    left:    samples that did not fill a batch of a model that takes just so many at a time
    """

    inputs: Inputs
    size: int
    samples: int
    cases: list[Named] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    count: int = 0
    left: int = 0
    waiting: list[tuple[Named, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        fixed = [each.shape[0] for each in self.inputs if each.shape and isinstance(each.shape[0], int)]
        self.fixed = fixed[0] if fixed else None
        self.size = self.fixed or self.size

    def take(self, items: Iterable[Any], what: str) -> None:
        """Read items, each of which is a batch or a sample, until there are enough. Raises GraphPruneError GP702."""
        if self.samples <= 0:
            return
        for place, item in enumerate(items, 1):
            arrays, labels = self.inputs.bound(item, f"{what} {place}")
            self.add(arrays, labels, f"{what} {place}")
            if self.count + len(self.waiting) >= self.samples:
                break
        self.flush()

    def add(self, arrays: Mapping[str, Array], labels: Any, where: str) -> None:
        """One batch, or one sample, which waits for others of its shapes."""
        found, single = self.inputs.fitted(arrays, where)
        if not single:
            self.flush()
            self._close(found, labels)
            return
        if self.waiting and any(found[name].shape != each.shape for name, each in self.waiting[0][0].items()):
            self.flush()
        self.waiting.append((found, labels))
        if len(self.waiting) == self.size:
            self.flush()

    def split(self, arrays: Mapping[str, Array], labels: Any, chosen: Array, where: str) -> None:
        """Samples along the first axes of whole arrays, with these numbers."""
        for begin in range(0, len(chosen), self.size):
            some = chosen[begin : begin + self.size]
            if self.fixed and len(some) < self.fixed:
                self.left += len(some)
                continue
            found, _ = self.inputs.fitted({name: np.asarray(each[some]) for name, each in arrays.items()}, where)
            self._close(found, None if labels is None else labels[some])

    def flush(self) -> None:
        """Make a batch of the samples that wait."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        if self.fixed and len(waiting) < self.fixed:
            self.left += len(waiting)
            return
        arrays = {name: np.stack([each[name] for each, _ in waiting]) for name in waiting[0][0]}
        labels = [label for _, label in waiting]
        self._close(arrays, None if any(label is None for label in labels) else np.stack(labels))

    def _close(self, arrays: Named, labels: Any) -> None:
        self.cases.append(arrays)
        self.labels.append(labels)
        self.count += max((len(each) for each in arrays.values() if each.ndim), default=1)

    @property
    def labelled(self) -> list[Any] | None:
        """A list of labels for each batch; None where there are none. Raises GraphPruneError GP702 for some."""
        known = [labels is not None for labels in self.labels]
        if not any(known):
            return None
        if not all(known):
            raise misfit("some batches have labels and others have none")
        return [np.asarray(labels).tolist() for labels in self.labels]

    def digest(self) -> str:
        """SHA-256 of names, types, shapes and numbers, in order."""
        digest = hashlib.sha256()
        for case, labels in zip(self.cases, self.labels, strict=True):
            for name, array in sorted(case.items()) + ([] if labels is None else [("labels", np.asarray(labels))]):
                digest.update(repr((name, array.dtype.name, array.shape)).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def draw(count: int, most: int, seed: int) -> Array:
    """Which of ``count`` samples to take, ascending: all, or ``most`` of them drawn with the seed.

    >>> draw(3, 5, 0).tolist(), len(draw(100, 5, 0))
    ([0, 1, 2], 5)
    """
    if count <= most:
        return np.arange(count)
    drawn: Array = np.sort(np.random.Generator(np.random.PCG64(seed)).choice(count, most, replace=False))
    return drawn
