"""The law that the oracles check, on arrays: what becomes of a tensor under a keep-set, and when two tensors agree.

May import numpy and the algebra. Must never import a framework or a dialect: every dialect's oracle reads this.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.dims import Axis, Dim, Sum, find, is_cut
from graphprune.kept import evaluated, indices
from graphprune.rules.numbers import later
from graphprune.rules.trace import Typed
from graphprune.sizes import symbols

Arrays = list[Any]
Keep = dict[Dim, np.ndarray]

# How often each dimension of a case is permuted and cut.
ROUNDS = 2

# How far two orders of the same sums may drift apart, relative to the largest entry of the output.
TOLERANCE = {
    "float64": 1e-9,
    "float32": 2e-5,
    "float16": 4e-3,
    "bfloat16": 3e-2,
    "complex64": 2e-5,
    "complex128": 1e-9,
}


@dataclass
class Outcome:
    """What was checked of one case, and what did not hold."""

    checked: int = 0
    free: int = 0
    mismatches: list[str] = field(default_factory=list)


def keeps(
    name: str, free: Sequence[Dim], inexact: Collection[Dim], rounds: int = ROUNDS, *, each: bool = True
) -> Iterator[tuple[str, Keep]]:
    """Each dimension permuted, each exact one cut, then all at once (without ``each``: this alone); seeded by the name
    of the case."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(rounds):
        for what, keep in _round(free, inexact, rng):
            if each or len(keep) == len(free):
                yield what, keep


def _round(free: Sequence[Dim], inexact: Collection[Dim], rng: np.random.Generator) -> Iterator[tuple[str, Keep]]:
    permuted: Keep = {}
    cut: Keep = {}
    for dim in free:
        order = rng.permutation(size_of(dim))
        permuted[dim] = order
        yield f"permuting {dim}", {dim: order}
        if dim not in inexact:
            cut[dim] = order[: rng.integers(1, size_of(dim))]
            yield f"cutting {dim}", {dim: cut[dim]}
    if len(free) > 1:
        yield "permuting all", permuted
    if len(cut) > 1:
        yield "cutting all", {**permuted, **cut}


def removing(keep: Keep) -> Keep:
    """The part of a keep-set that removes entries."""
    return {dim: kept for dim, kept in keep.items() if len(kept) < size_of(dim)}


def size_of(dim: Dim) -> int:
    """A size that is known."""
    assert isinstance(dim.size, int)
    return dim.size


def gathered(array: Any, typed: Typed, keep: Keep) -> list[Any]:
    """What becomes of an array of this type: more than one answer where the position of a part is only known to the
    run. Entries that are sizes are worked out anew."""
    if typed.entries is not None and isinstance(array, np.ndarray):
        sizes = [later(entry) for entry in typed.entries]
        numbers = [
            old if new is None or not all(isinstance(item, Dim) for item in symbols(new)) else evaluated(new, keep)
            for old, new in zip(array.flat, sizes, strict=True)
        ]
        return [np.asarray(numbers, array.dtype).reshape(array.shape)]
    found = [array]
    for place, axis in enumerate(typed.axes or []):
        if is_cut(axis, keep):
            ways = [indices(way, keep) for way in _resolved(axis, array.shape[place])]
            found = [np.take(each, kept, place) for each in found for kept in ways]
    return found


def _resolved(axis: Axis, total: int) -> list[Axis]:
    """The axis with run-time sizes filled in so that it has ``total`` entries, in every way there is."""
    axis = find(axis)
    if isinstance(axis.size, int) or isinstance(axis, Dim):
        return [axis]
    unknown = [place for place, part in enumerate(axis.parts) if not isinstance(part.size, int)]
    known = [part.size for part in axis.parts if isinstance(part.size, int)]
    rest = total - sum(known) if isinstance(axis, Sum) else total // math.prod(known)
    found: list[Axis] = []
    for sizes in itertools.product(range(rest + 1), repeat=len(unknown)):
        if (sum(sizes) if isinstance(axis, Sum) else math.prod(sizes)) == rest:
            parts = list(axis.parts)
            for place, size in zip(unknown, sizes, strict=True):
                parts[place] = Dim(size)
            found.append(type(axis)(parts))
    return found


def difference(a: Any, b: Any) -> str | None:
    """Why two outputs are not the same, ``None`` where they are."""
    if isinstance(a, list | tuple) or isinstance(b, list | tuple):
        problems = [difference(x, y) for x, y in zip(a, b, strict=True)]
        return next((problem for problem in problems if problem), None)
    if a is None or b is None:
        return None if a is b else f"{a} became {b}"
    a, b = np.asarray(a), np.asarray(b)
    if a.size == 0 or b.size == 0:
        return None if a.shape == b.shape else f"{a.shape} became {b.shape}"
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{a.shape} became {b.dtype}{b.shape}"
    if a.dtype.kind in "OUSb" or np.issubdtype(a.dtype, np.integer):
        return None if np.array_equal(a, b) else f"{int((a != b).sum())} of {a.size} entries differ"
    kind = np.complex128 if a.dtype.kind == "c" else np.float64
    allowed, x, y = TOLERANCE.get(a.dtype.name, 0.0), a.astype(kind), b.astype(kind)
    finite = np.isfinite(x)
    if not np.array_equal(finite, np.isfinite(y)) or not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return "the places of infinity and NaN differ"
    error, scale = np.abs(x[finite] - y[finite]).max(initial=0.0), np.abs(x[finite]).max(initial=0.0)
    return None if error <= allowed * scale else f"off by {error:.3g} where the largest entry is {scale:.3g}"
