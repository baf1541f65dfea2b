"""What a model takes, and whether data is that: names, shapes, types, finite numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.program import Array, Program

_TYPES = {"float": "float32", "double": "float64", "bfloat16": "float32"}
LABELS = ("labels", "label")
"""What the labels are called in a file or a dict that holds them beside the inputs."""


@dataclass(frozen=True)
class Input:
    """One input of a model: its name, its sizes (a name or None where any will do) and what NumPy calls its type."""

    name: str
    shape: tuple[int | str | None, ...] | None
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name!r} of {self.dtype.name}[{sizes}]"


@dataclass(frozen=True)
class Inputs:
    """All inputs of a model, in order."""

    all: tuple[Input, ...]

    @staticmethod
    def of(program: Program) -> Inputs:
        """Those of a program that are arrays."""
        found = [value for value in program.main.inputs if value.dtype and value.stored is None]
        return Inputs(tuple(Input(v.name, v.shape, np.dtype(_TYPES.get(v.dtype, v.dtype))) for v in found))

    def __iter__(self) -> Iterator[Input]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def __str__(self) -> str:
        return "; ".join(map(str, self.all))

    def only(self, what: str) -> Input:
        """The only input. Raises GraphPruneError GP702 where there are several."""
        if len(self.all) == 1:
            return self.all[0]
        raise misfit(f"{what} holds one input, and the model takes {len(self.all)}", str(self), "name them: a dict")

    def bound(self, item: Any, where: str) -> tuple[dict[str, Array], Any]:
        """What a source yielded, as arrays by name, and its labels (None where there are none): a mapping by names, or
        arguments in order, of which one more than the model takes is the labels. Raises GraphPruneError GP702."""
        if _is_case(item):
            item = item[1] if item[1] and not item[0] else (*item[0], *item[1].values())
        if isinstance(item, Mapping):
            return self._named(item, where)
        given = list(_flat(item)) if isinstance(item, tuple | list) and not _is_numbers(item) else [item]
        if len(given) == len(self) + 1:
            *given, labels = given
        elif len(given) == len(self):
            labels = None
        else:
            raise misfit(f"{where} has {len(given)} arrays, and the model takes {len(self)}", str(self))
        return {each.name: array_of(value) for each, value in zip(self, given, strict=True)}, as_labels(labels)

    def _named(self, item: Mapping[str, Any], where: str) -> tuple[dict[str, Array], Any]:
        # An argument whose name Python itself knows, such as `input`, is called input_1 in a captured graph.
        alias = {each.name.removesuffix("_1"): each.name for each in self}
        known = {each.name for each in self}
        found, labels = {}, None
        for name, value in item.items():
            if name in known or name in alias:
                found[name if name in known else alias[name]] = array_of(value)
            elif name in LABELS:
                labels = as_labels(value)
            else:
                raise misfit(f"{where} has {name!r}, which is no input of the model", str(self), ask(name, known))
        missing = [name for name in known if name not in found]
        if missing:
            raise misfit(f"{where} lacks the input {min(missing)!r}", str(self))
        return found, labels

    def fitted(self, arrays: Mapping[str, Array], where: str) -> tuple[dict[str, Array], bool]:
        """The arrays in the types of the inputs, and whether they are one sample, without the axis of the batch.

        Raises GraphPruneError: GP702 for shapes and types that do not fit, GP703 for numbers that are not finite.
        """
        found = {each.name: _typed(arrays[each.name], each, where) for each in self}
        single = all(each.shape is not None and found[each.name].ndim == len(each.shape) - 1 for each in self)
        for each in self:
            array = found[each.name][None] if single else found[each.name]
            if each.shape is not None and not _fits(array.shape, each.shape, single):
                shown = "x".join(map(str, found[each.name].shape)) or "a single number"
                raise misfit(f"{where} gives {shown} for the input {each.name!r}", f"it takes {each}")
        return found, single and len(self) > 0


def misfit(what: str, where: str = "", remedy: str = "") -> GraphPruneError:
    """GP702."""
    return GraphPruneError("GP702", what, where, remedy)


def ask(name: str, known: Any) -> str:
    """A remedy for a name that is not among these."""
    return did_you_mean(name, known)


def array_of(value: Any) -> Array:
    """An array of NumPy from anything that is one, a tensor among them, or a list of numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise misfit(f"lists of different lengths are no array: {error}") from error
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise misfit(
            f"{type(value).__name__} is no array of numbers but of {array.dtype}",
            remedy="give arrays, tensors or lists of numbers",
        )
    return array


def as_labels(value: Any) -> Any:
    """Labels as an array; None where there are none."""
    return None if value is None else array_of(value)


def _typed(array: Array, each: Input, where: str) -> Array:
    kinds = array.dtype.kind, each.dtype.kind
    if array.dtype.kind == "V":
        array, kinds = array.astype(np.float32), ("f", each.dtype.kind)
    if kinds[0] == "f" and not np.isfinite(array).all():
        raise GraphPruneError("GP703", f"{where} has numbers that are not finite", f"input {each.name!r}")
    if array.dtype == each.dtype:
        return array
    if kinds == ("f", "f"):
        return array.astype(each.dtype)  # rounding is all that can happen
    whole = set(kinds) <= {"i", "u"}
    if whole and (array.size == 0 or _holds(each.dtype, array)):
        return array.astype(each.dtype)
    remedy = "convert it on purpose, with the scale that the model was trained with: images.astype('float32') / 255"
    what = f"{where} has {array.dtype.name} for the input {each.name!r}"
    raise misfit(what, f"it takes {each}", remedy if kinds[1] == "f" else f"give {each.dtype.name}")


def _holds(dtype: np.dtype[Any], array: Array) -> bool:
    limits = np.iinfo(dtype)
    return bool(int(array.min()) >= limits.min and int(array.max()) <= limits.max)


def _fits(shape: tuple[int, ...], wanted: tuple[int | str | None, ...], single: bool) -> bool:
    if len(shape) != len(wanted):
        return False
    pairs = list(zip(shape, wanted, strict=True))[1 if single else 0 :]
    return all(not isinstance(size, int) or size == there for there, size in pairs)


def _is_case(item: Any) -> bool:
    """Whether this is arguments and keyword arguments, as a module is called."""
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], tuple) and isinstance(item[1], dict)


def _is_numbers(item: Any) -> bool:
    """Whether these are nested lists of plain numbers, and so one array."""
    while isinstance(item, list) and item:
        item = item[0]
    return isinstance(item, int | float)


def _flat(item: Any) -> Iterator[Any]:
    if isinstance(item, tuple | list) and not _is_numbers(item):
        for each in item:
            yield from _flat(each)
    else:
        yield item
