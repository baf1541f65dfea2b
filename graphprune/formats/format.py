"""What every sparsity format can do, and the record that a target reads to know whether it has a kernel for it.

The weight of a contraction is a matrix ``[outputs, inputs]``. That of a convolution has three axes, ``[outputs, taps,
channels]``: the taps of the kernel in row-major order, and behind each the input channels, which is the matrix with the
inputs in the order of a pixel-major im2col. What runs "along the inputs" (the columns of a block, the M of N:M) runs
along the channels of one tap and never across two of them. Of a grouped convolution each group is a matrix by itself.
Where a size is no multiple of what the format divides it by, the rest at its end is one smaller block.

Knows NumPy and no framework.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from graphprune.errors import GraphPruneError

Array = NDArray[Any]


@dataclass(frozen=True)
class Needs:
    """What a format needs of a kernel.

    rows:   consecutive outputs that share which inputs they read; 1 where each output has its own
    inputs: consecutive inputs that are kept or removed together
    fixed:  whether every band of ``rows`` outputs stores the same number of entries, so that no counts are needed
    group:  inputs among which the number of kept ones is fixed (the M of N:M); 0 where there is no such group
    taps:   whether entries are patterns over the taps of a kernel
    """

    rows: int = 1
    inputs: int = 1
    fixed: bool = False
    group: int = 0
    taps: bool = False


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights as a format stores them.

    format: its text form
    shape:  that of the weights, ``[outputs, inputs]`` or ``[outputs, taps, channels]``
    arrays: ``values``, and whatever says where they belong; what each holds is said by the format
    bits:   by the name of an array of indices, the bits of one index, where that is not the size of an item
    """

    format: str
    shape: tuple[int, ...]
    arrays: Mapping[str, Array]
    bits: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Bytes of all arrays, indices and counts included."""
        return sum(array.nbytes for array in self.arrays.values())


@dataclass(frozen=True)
class Format(ABC):
    """One set of masks. ``str()`` gives its canonical text."""

    name: ClassVar[str]
    """The registered name of the kind."""
    examples: ClassVar[tuple[str, ...]]
    """Texts of this kind, as a list of formats shows them."""

    @classmethod
    @abstractmethod
    def from_text(cls, text: str) -> Self | None:
        """The format of this kind that a text (lower case, without spaces) names; None where it is of another kind.
        Raises GraphPruneError GP107 for numbers that it cannot have."""

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What it needs of a kernel."""

    @property
    def sparsity(self) -> float | None:
        """The share of zeros where the format itself fixes it (2:4 removes a half), else None."""
        return None

    @property
    def span(self) -> int | None:
        """Consecutive inputs of a tap, counted from its first one, whose zeros can be chosen without looking at other
        inputs; None where the choice needs all of them."""
        return None

    @abstractmethod
    def misfit(self, outputs: int, taps: int, channels: int) -> str:
        """Why weights of this shape cannot have the format, or would have nothing of it; empty where they can."""

    @abstractmethod
    def gains(self, saliency: Array) -> Array | None:
        """What each further level of density keeps of the saliency, most first: with all of them every entry is kept,
        with k of them ``project`` has a sparsity of ``1 - k / levels``. None where there are no such levels, because
        the format fixes its sparsity or part of it."""

    def project(self, saliency: Array, sparsity: float | None = None) -> Array:
        """The mask of this format (True where an entry is kept) that keeps the most saliency, of the shape of
        ``saliency``; of equal ones the first.

        saliency: how important every entry is, not negative, ``[outputs, inputs]`` or ``[outputs, taps, channels]``
        sparsity: the share to remove in ``[0, 1]``, of what the format counts (entries, blocks, slots), rounded to the
                  nearest number of these; None where the format fixes it
        Raises GraphPruneError GP107 for a sparsity that the format cannot have, and saliency that is no such number.
        """
        share = self._share(sparsity)
        if not np.all(np.asarray(saliency) >= 0):  # NaN is not
            raise GraphPruneError(
                "GP107", "saliency must be numbers from 0 on", str(self), "look for NaN in the weights"
            )
        mask: Array = self._project(cube(np.asarray(saliency, np.float64)), share).reshape(saliency.shape)
        return mask

    @abstractmethod
    def _project(self, saliency: Array, sparsity: float) -> Array:
        """:meth:`project` for three axes and a checked sparsity."""

    @abstractmethod
    def cover(self, mask: Array) -> Array | None:
        """The smallest mask of this format, among those that it can store, which keeps all that ``mask`` keeps; None
        where there is none. Same shape."""

    def stored(self, mask: Array) -> int | None:
        """How many entries the smallest mask keeps that covers this one; None where there is none."""
        covered = self.cover(mask)
        return None if covered is None else int(np.count_nonzero(covered))

    def holds(self, mask: Array) -> bool:
        """Whether a mask is one of this format."""
        covered = self.cover(mask)
        return covered is not None and bool(np.array_equal(covered, mask))

    def pack(self, weights: Array, mask: Array) -> Packed:
        """Store the kept entries, bit by bit as they are. Raises GraphPruneError GP107 where the mask is not one of
        this format, or not of the shape of the weights."""
        if weights.shape != mask.shape or not self.holds(mask):
            what = f"the mask is not one of the format {self}" if weights.shape == mask.shape else "the shapes differ"
            raise GraphPruneError("GP107", what, f"a mask of shape {mask.shape}", "take that of project() or cover()")
        arrays, bits = self._pack(cube(weights), cube(mask))
        return Packed(str(self), weights.shape, arrays, bits)

    @abstractmethod
    def _pack(self, weights: Array, mask: Array) -> tuple[dict[str, Array], dict[str, int]]:
        """The arrays of :meth:`pack` and the bits of their indices, from three axes."""

    def unpack(self, packed: Packed) -> Array:
        """The weights that were packed, with positive zeros where the mask removed them."""
        shape = packed.shape if len(packed.shape) == 3 else (packed.shape[0], 1, packed.shape[1])
        weights: Array = np.zeros(shape, packed.arrays["values"].dtype)
        self._unpack(packed, weights)
        return weights.reshape(packed.shape)

    @abstractmethod
    def _unpack(self, packed: Packed, weights: Array) -> None:
        """Write the packed values into zeros ``[outputs, taps, channels]``."""

    def bytes(self, mask: Array, item: int = 4) -> int:
        """Bytes of weights of ``item`` bytes each, packed with this mask; everything that is stored beside them
        counts."""
        return self.pack(np.zeros(mask.shape, f"u{item}"), mask).bytes

    def _share(self, sparsity: float | None) -> float:
        fixed = self.sparsity
        if fixed is not None:
            if sparsity is not None and abs(sparsity - fixed) > 5e-3:
                what = f"{self} removes {fixed:.1%} of the weights, not {sparsity:.1%}"
                raise GraphPruneError("GP107", what, "option sparsity", "leave it out, or choose another format")
            return fixed
        if sparsity is None:
            what = f"{self} does not say how many weights to remove"
            raise GraphPruneError("GP107", what, "option sparsity", "give a share such as 0.9")
        if not 0 <= sparsity <= 1:
            what = f"{sparsity!r} is not a share from 0 to 1"
            raise GraphPruneError("GP107", what, "option sparsity", "give a share such as 0.9")
        return sparsity


def cube(array: Array) -> Array:
    """A matrix as one of a single tap: ``[outputs, taps, channels]``."""
    return array[:, None, :] if array.ndim == 2 else array


def kept(count: int, sparsity: float) -> int:
    """How many of ``count`` stay: the nearest number, never none of several unless all are to go.

    >>> kept(10, 0.9), kept(10, 0.99), kept(10, 1.0), kept(3, 0.5)
    (1, 1, 0, 2)
    """
    if sparsity >= 1:
        return 0
    return min(count, max(1, int(np.floor((1 - sparsity) * count + 0.5))))


def highest(scores: Array, count: int) -> Array:
    """A mask of the ``count`` highest scores of any shape; of equal ones the first.

    >>> highest(np.array([[1.0, 3.0], [1.0, 1.0]]), 2).tolist()
    [[True, True], [False, False]]
    """
    flat = scores.reshape(-1)
    if count <= 0:
        return np.zeros(scores.shape, bool)
    least = np.partition(flat, flat.size - count)[flat.size - count]
    mask = flat > least
    ties = np.flatnonzero(flat == least)
    mask[ties[: count - int(np.count_nonzero(mask))]] = True
    shaped: Array = mask.reshape(scores.shape)
    return shaped


def padded(array: Array, rows: int, channels: int) -> Array:
    """Three axes with zeros at the end, so that outputs and channels are multiples of these.

    >>> padded(np.ones((3, 1, 5)), 2, 4).shape
    (4, 1, 8)
    """
    outputs, taps, inputs = array.shape
    if outputs % rows == 0 and inputs % channels == 0:
        return array
    full = np.zeros((outputs + -outputs % rows, taps, inputs + -inputs % channels), array.dtype)
    full[:outputs, :, :inputs] = array
    return full


def index_type(largest: int) -> type[np.unsignedinteger[Any]]:
    """The narrowest type of one, two or four bytes for indices up to this."""
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.uint32


def starts(counts: Array) -> Array:
    """Where each of several runs begins, and behind them where the last ends; four bytes each.

    >>> starts(np.array([2, 0, 3])).tolist()
    [0, 2, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)


def owners(starts: Array) -> Array:
    """Which run each entry of several runs belongs to.

    >>> owners(np.array([0, 2, 2, 5], np.uint32)).tolist()
    [0, 0, 2, 2, 2]
    """
    begins = starts.astype(np.int64)
    return np.repeat(np.arange(len(begins) - 1), begins[1:] - begins[:-1])


def any_along(mask: Array, *axes: int) -> Array:
    """Whether anything is kept along some axes."""
    found: Array = np.logical_or.reduce(mask, axis=axes)
    return found


def whole_number(text: str, least: int, what: str) -> int:
    """A number of a format. Raises GraphPruneError GP107 where it is below ``least`` or beyond any matrix."""
    number = int(text) if len(text) <= 7 else 0
    if number < least:
        raise GraphPruneError("GP107", f"{text!r} is not a number of {what} from {least} on", "", "such as 8x1 or 2:4")
    return number
