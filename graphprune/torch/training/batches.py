"""Data to train with: whatever holds it, as a stream of batches that can be gone through again and joined midway."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from graphprune.data.named import imported
from graphprune.errors import GraphPruneError

FAILS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError, OSError,
         RuntimeError, TypeError, ValueError)  # fmt: skip
"""What code of users raises: data sources, models, metrics."""


@dataclass(frozen=True)
class Batch:
    """What a model is called with, and what its outputs are compared with; None where there are no labels."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    labels: Any

    @classmethod
    def of(cls, item: Any) -> Batch:
        """From `inputs`, `(inputs, ..., labels)`, or a dict with `labels` beside the arguments of forward.

        >>> Batch.of((1, 2, 3)).args, Batch.of({"ids": 1, "labels": 2}).kwargs
        ((1, 2), {'ids': 1})
        """
        if isinstance(item, Mapping):
            kwargs = dict(item)
            labels = kwargs.pop("labels", None)
            return cls((), kwargs, labels)
        if not isinstance(item, list | tuple):
            return cls((item,), {}, None)
        if not item:
            raise GraphPruneError("GP702", "a batch is empty", "data", "yield (inputs, labels)")
        *inputs, labels = item if len(item) > 1 else (item[0], None)
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return cls((), inputs[0], labels)
        if len(inputs) == 1 and isinstance(inputs[0], list | tuple):
            return cls(tuple(inputs[0]), {}, labels)
        return cls(tuple(inputs), {}, labels)

    def to(self, device: torch.device) -> Batch:
        """With every tensor on a device, and arrays as tensors."""

        def moved(leaf: Any) -> Any:
            if isinstance(leaf, np.ndarray):
                leaf = torch.from_numpy(np.ascontiguousarray(leaf))
            return leaf.to(device) if isinstance(leaf, Tensor) else leaf

        return Batch(*pytree.tree_map(moved, (self.args, dict(self.kwargs), self.labels)))


class Source(Protocol):
    """Data that can be gone through."""

    def epoch(self, number: int) -> Iterator[Any]:
        """One pass over the batches."""

    def length(self) -> int | None:
        """Batches of a pass; None where that is not known."""


@dataclass(frozen=True)
class _Samples:
    """Single samples by their number. With a seed they come in an order of their own in each pass, and a last batch
    that is not full is left out: a mean over few samples is noise, and over one BatchNorm has no variance."""

    count: int
    take: Callable[[Tensor], Any]
    batch: int
    seed: int | None

    def epoch(self, number: int) -> Iterator[Any]:
        order = torch.arange(self.count)
        if self.seed is not None:
            mixed = (self.seed * 1_000_003 + number) % 2**63
            order = torch.randperm(self.count, generator=torch.Generator().manual_seed(mixed))
        starts = range(0, self.count, self.batch)[: self.length()]
        yield from (self.take(order[start : start + self.batch]) for start in starts)

    def length(self) -> int:
        whole, rest = divmod(self.count, self.batch)
        return whole + bool(rest) if self.seed is None or not whole else whole


@dataclass
class _Batches:
    """Something to iterate over."""

    data: Iterable[Any]
    begun: bool = False

    @property
    def once(self) -> bool:
        """Whether this is a generator, or anything else that can be read once."""
        return isinstance(self.data, Iterator)  # not by iter(): that of a DataLoader draws a random number

    def epoch(self, number: int) -> Iterator[Any]:
        if self.begun and self.once:
            what = "the training data is a generator, which can be read once, and another pass is wanted"
            raise GraphPruneError("GP708", what, "data", "give a list, a DataLoader, or a function that makes it anew")
        self.begun = True
        return iter(self.data)

    def length(self) -> int | None:
        try:
            return len(self.data)  # type: ignore[arg-type]
        except TypeError:
            return None


@dataclass
class _Function:
    """A function that is called for each pass with its number, where it takes one; else anew where what it returned can
    be read once only."""

    make: Callable[..., Any]
    numbered: bool
    read: Callable[[Any], Source]
    made: Source | None = None

    def epoch(self, number: int) -> Iterator[Any]:
        if self.numbered:
            return self.read(self.make(number)).epoch(number)
        return self._lasting().epoch(number)

    def length(self) -> int | None:
        return None if self.numbered else self._lasting().length()

    def _lasting(self) -> Source:
        """What the function returned; made anew where that was read."""
        made = self.made
        if made is None or (isinstance(made, _Batches) and made.begun and made.once):
            self.made = made = self.read(self.make())
        return made


def source_of(data: Any, batch: int, seed: int | None, option: str = "data") -> Source:
    """Data as a source.

    data:  whole tensors or arrays, as `(inputs, ..., labels)` or a dict; a dataset of samples; batches in anything that
           can be iterated over; a function that returns one of these, once for each pass, with its number if it takes
           one argument; or ``"module:function"``
    batch: samples of a batch, where the data does not come in batches
    seed:  of the order of samples; None keeps it
    Raises GraphPruneError: GP101 where a name cannot be imported, GP702 for anything else, and for arrays that differ
    in their numbers of samples.
    """
    if isinstance(data, str):
        return source_of(imported(data), batch, seed, option)
    if isinstance(data, Tensor | np.ndarray):
        return _whole(data, batch, seed, option)
    leaves = list(data.values()) if isinstance(data, Mapping) else list(data) if isinstance(data, tuple) else []
    if leaves and all(isinstance(each, Tensor | np.ndarray) for each in leaves):
        return _whole(data, batch, seed, option)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Sequence | Mapping):
        from torch.utils.data import default_collate

        return _Samples(len(data), lambda part: default_collate([data[i] for i in part.tolist()]), batch, seed)
    if isinstance(data, Iterable) and not isinstance(data, Mapping):
        return _Batches(data)
    if callable(data):
        return _Function(data, _takes_number(data), lambda made: source_of(made, batch, seed, option))
    remedy = "give tensors, batches that can be iterated over, or a function that returns them"
    raise GraphPruneError("GP702", f"a {type(data).__name__} holds no data to train with", f"option {option}", remedy)


def _whole(data: Any, batch: int, seed: int | None, option: str) -> Source:
    data = pytree.tree_map(lambda leaf: torch.as_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, data)
    leaves = pytree.tree_leaves(data)
    counts = {len(each) if each.dim() else 0 for each in leaves}
    if len(counts) != 1 or counts == {0}:
        shapes = ", ".join(str(tuple(each.shape)) for each in leaves)
        what = f"arrays of shapes {shapes} have no first axis of samples in common"
        raise GraphPruneError("GP702", what, f"option {option}")
    return _Samples(counts.pop(), lambda part: pytree.tree_map(lambda leaf: leaf[part], data), batch, seed)


def _takes_number(function: Callable[..., Any]) -> bool:
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
               for each in found)  # fmt: skip


def length(source: Source) -> int | None:
    """Batches of a pass, where that is known. Raises GraphPruneError GP708 where the source fails."""
    try:
        return source.length()
    except FAILS as error:
        what = f"the data source failed: {type(error).__name__}: {error}"
        raise GraphPruneError("GP708", what, "data", "check what yields the batches") from error


def first(source: Source) -> Any:
    """The first batch, which the source still has afterwards. Raises GraphPruneError GP708 where there is none."""
    if isinstance(source, _Batches) and source.once:
        stream = iter(source.data)
        for item in stream:
            source.data = itertools.chain([item], stream)
            return item
    return next(batches(source, 0))


def batches(source: Source, number: int, skip: int = 0, joined: Callable[[], None] = lambda: None) -> Iterator[Any]:
    """The batches of one pass behind the first `skip`, as the source has them; `joined` is called behind these, if any.

    Raises GraphPruneError GP708 where the source fails, or has none.
    """
    place = 0
    try:
        stream = source.epoch(number)
        place = sum(1 for _ in itertools.islice(stream, skip))
        if place < skip:
            what = f"there are {place} batches, where {skip} were gone through before the interrupt"
            raise GraphPruneError("GP708", what, f"pass {number + 1}", "give the data that the training began with")
        if skip:
            joined()
        for item in stream:
            place += 1
            yield item
    except FAILS as error:
        what = f"the data source failed after {place} batches: {type(error).__name__}: {error}"
        raise GraphPruneError("GP708", what, f"pass {number + 1}", "check what yields the batches") from error
    if not place:
        what = "there is not one batch of data" if not number else "there was data for some passes, and now is none"
        remedy = "give a list, a DataLoader, or a function that makes it anew for each pass"
        raise GraphPruneError("GP708", what, f"pass {number + 1}", remedy)
