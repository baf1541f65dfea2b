"""Arrays that come in and go out: checked against what the network declares, copied only where memory does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.runtime.artifact import ALIGNMENT, Tensor

Array = np.ndarray[Any, np.dtype[Any]]


def aligned(tensor: Tensor) -> Array:
    """A new array for a tensor that begins at a multiple of ALIGNMENT; its numbers are not set."""
    whole = np.empty(tensor.bytes + ALIGNMENT, np.uint8)
    return np.ndarray(tensor.shape, tensor.dtype, whole, -whole.ctypes.data % ALIGNMENT)


def aligned_bytes(count: int, *, zero: bool) -> Array:
    """`count` bytes that begin at a multiple of ALIGNMENT. Zero pages cost nothing until they are written."""
    whole = (np.zeros if zero else np.empty)(count + ALIGNMENT, np.uint8)
    first = -whole.ctypes.data % ALIGNMENT
    return whole[first : first + count]


def fits(array: Array) -> bool:
    """Whether a library can use the memory of an array as it is."""
    return bool(array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0 and array.dtype.isnative)


def named(tensors: Sequence[Tensor], given: Sequence[Any], by_name: Mapping[str, Any], what: str) -> list[Any]:
    """One value for each tensor, in order, from values in order and by name. Raises GraphPruneError GP512."""
    names = [tensor.name for tensor in tensors]
    if len(given) > len(names):
        raise misfit(tensors, f"{len(given)} {what}s were given, and there are {len(names)}", what)
    found = dict(zip(names, given, strict=False))
    for name, value in by_name.items():
        if name not in names:
            raise GraphPruneError("GP512", f"there is no {what} {name!r}", _listed(tensors), did_you_mean(name, names))
        if name in found:
            raise misfit(tensors, f"the {what} {name!r} was given twice", what)
        found[name] = value
    missing = [name for name in names if name not in found]
    if missing:
        raise misfit(tensors, f"the {what} {missing[0]!r} is missing", what)
    return [found[name] for name in names]


def misfit(tensors: Sequence[Tensor], fact: str, what: str) -> GraphPruneError:
    """The error for arrays that are not those that a network takes: GP512, with what it does take."""
    return GraphPruneError("GP512", fact, _listed(tensors), f"give each {what} once, in order or by name")


def _listed(tensors: Sequence[Tensor]) -> str:
    return "; ".join(map(str, tensors))


def taken(tensor: Tensor, value: Any) -> Array:
    """An input as an array of numpy, without a copy. Takes whatever speaks DLPack. Raises GraphPruneError GP512."""
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "__dlpack__"):
        try:
            array = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            what = f"the {type(value).__name__} for {tensor.name!r} cannot be read: {error}"
            raise GraphPruneError("GP512", what, str(tensor), "give a tensor on the CPU, detached") from error
    elif isinstance(value, np.generic):
        array = np.asarray(value)
    else:
        what = f"{tensor.name!r} is a {type(value).__name__}, not an array"
        raise GraphPruneError("GP512", what, str(tensor), f"give numpy.asarray(..., {tensor.dtype!r})")
    check(tensor, array)
    return array


def check(tensor: Tensor, array: Array) -> None:
    """Whether an array is what a tensor declares. Raises GraphPruneError GP512."""
    if array.dtype != np.dtype(tensor.dtype):
        what = f"{tensor.name!r} has the data type {array.dtype}, not {tensor.dtype}"
        raise GraphPruneError("GP512", what, str(tensor), f"convert it: array.astype({tensor.dtype!r})")
    if array.shape != tensor.shape:
        what = f"{tensor.name!r} has the shape {list(array.shape)}, not {list(tensor.shape)}"
        remedy = "give that shape, or build the network for another with --shape"
        raise GraphPruneError("GP512", what, str(tensor), remedy)


def written(tensor: Tensor, array: Any) -> Array:
    """An output that the caller brought. Raises GraphPruneError GP512."""
    if not isinstance(array, np.ndarray):
        what = f"out for {tensor.name!r} is a {type(array).__name__}, not an array of numpy"
        raise GraphPruneError("GP512", what, str(tensor), f"give numpy.empty({list(tensor.shape)}, {tensor.dtype!r})")
    check(tensor, array)
    if not array.flags.writeable:
        raise GraphPruneError("GP512", f"out for {tensor.name!r} is read-only", str(tensor), "give one of your own")
    return array


def random_inputs(tensors: Sequence[Tensor], rng: np.random.Generator) -> dict[str, Array]:
    """Standard normal numbers; integers are 0 or 1, which every vocabulary has, and booleans true."""
    found: dict[str, Array] = {}
    for each in tensors:
        array = aligned(each)
        if array.dtype.kind == "b":
            array[...] = True
        elif array.dtype.kind in "iu":
            array[...] = rng.integers(0, 2, each.shape)
        else:
            array[...] = rng.standard_normal(each.shape)
        found[each.name] = array
    return found
