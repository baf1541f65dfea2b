"""What N:M, vector N:M and balanced sparsity have in common: in every group of M inputs the same number is kept.

The inputs of a tap are divided into groups of M. A vector is what V consecutive outputs have of one input. Of every
group n vectors have a slot in the packed form; of the smaller group at the end, of r inputs, ``ceil(n r / M)``. No
counts and no starts are stored: where a slot belongs follows from its place but for the position within its group.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from graphprune.formats.format import Array, Format, Packed, any_along, cube, padded


@dataclass(frozen=True)
class Slots(Format):
    """Packed as ``values [bands, slots, V]`` (zeros in slots that are not needed and behind the last output) and
    ``positions``: for each slot of each band its place within the group, in ``ceil(log2 M)`` bits, the first one in the
    lowest bits."""

    @property
    @abstractmethod
    def vector(self) -> int:
        """V: outputs that share a pattern."""

    @property
    @abstractmethod
    def group(self) -> int:
        """M: inputs of a group."""

    @property
    def span(self) -> int:
        return self.group

    @abstractmethod
    def slots(self, sparsity: float | None) -> int:
        """The slots of a whole group at this sparsity, which is None where the format fixes it."""

    def quotas(self, channels: int, count: int) -> Array:
        """Slots of each group of a tap, where a whole one has ``count``.

        >>> from graphprune.formats.nm import NM
        >>> NM(2, 4).quotas(10, 2).tolist()
        [2, 2, 1]
        """
        sizes = np.full(-(-channels // self.group), self.group)
        sizes[-1] -= -channels % self.group
        return -(-sizes * count // self.group)

    def vectors(self, array: Array, fill: float | bool) -> Array:
        """Vectors in their groups, ``[bands, V, taps, groups, M]``; ``fill`` behind the last output and channel."""
        _, taps, channels = array.shape
        full = padded(array, self.vector, self.group)
        if fill:
            full = full.copy()
            full[:, :, channels:] = fill
        return full.reshape(-1, self.vector, taps, full.shape[2] // self.group, self.group)

    def chosen(self, saliency: Array, count: int) -> Array:
        """The vectors with the most saliency, ``count`` of each whole group: ``[bands, taps, groups, M]``."""
        sums = self.vectors(saliency.astype(np.float64), -np.inf)
        sums = np.where(np.isneginf(sums), -1.0, sums).sum(axis=1)
        return self._first(np.argsort(-sums, axis=-1, kind="stable"), saliency.shape[2], count)

    def _project(self, saliency: Array, sparsity: float) -> Array:
        return self.spread(self.chosen(saliency, self.slots(sparsity)), saliency.shape)

    def _first(self, order: Array, channels: int, count: int) -> Array:
        """Of each group the first ones of an order, as many as it has slots."""
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(np.arange(self.group), order.shape), axis=-1)
        mask: Array = rank < self.quotas(channels, count)[:, None]
        return mask

    def spread(self, chosen: Array, shape: tuple[int, ...]) -> Array:
        """Chosen vectors as a mask of entries ``[outputs, taps, channels]``."""
        outputs, taps, channels = shape
        mask = chosen.reshape(len(chosen), taps, -1).repeat(self.vector, axis=0)
        return mask[:outputs, :, :channels]

    def used(self, mask: Array) -> Array:
        """The vectors of which anything is kept, ``[bands, taps, groups, M]``."""
        return any_along(self.vectors(mask, False), 1)

    def filled(self, used: Array, channels: int, count: int) -> Array | None:
        """Vectors that fill all slots, the used ones among them; None where a group uses more than it has slots."""
        if np.any(used.sum(axis=-1) > self.quotas(channels, count)):
            return None
        return self._first(np.argsort(~used, axis=-1, kind="stable"), channels, count)

    @abstractmethod
    def count(self, used: Array, channels: int) -> int:
        """The slots of a whole group that a mask needs, from the vectors that it uses."""

    def cover(self, mask: Array) -> Array | None:
        whole = cube(mask)
        used, channels = self.used(whole), whole.shape[2]
        filled = self.filled(used, channels, self.count(used, channels))
        return None if filled is None else self.spread(filled, whole.shape).reshape(mask.shape)

    def stored(self, mask: Array) -> int | None:
        whole = cube(mask)
        used, (outputs, taps, channels) = self.used(whole), whole.shape
        quotas = self.quotas(channels, self.count(used, channels))
        return None if np.any(used.sum(axis=-1) > quotas) else int(quotas.sum()) * outputs * taps

    def _pack(self, weights: Array, mask: Array) -> tuple[dict[str, Array], dict[str, int]]:
        used, channels = self.used(mask), mask.shape[2]
        count = self.count(used, channels)
        slots = self.filled(used, channels, count)
        assert slots is not None, "the mask was checked"
        kept = np.where(mask, weights, np.zeros((), weights.dtype))
        bands = len(slots)
        values = self.vectors(kept, False).transpose(0, 2, 3, 4, 1)[slots].reshape(bands, -1, self.vector)
        bits = max(1, int(self.group - 1).bit_length())
        arrays = {"values": values, "positions": in_bits(np.nonzero(slots)[3], bits), **self._counts(count)}
        return arrays, {"positions": bits}

    def _counts(self, count: int) -> dict[str, Array]:
        """What else must be stored to know how many slots a group has."""
        return {}

    @abstractmethod
    def _stored_count(self, packed: Packed) -> int:
        """The slots of a whole group of packed weights."""

    def _unpack(self, packed: Packed, weights: Array) -> None:
        outputs, taps, channels = weights.shape
        values = packed.arrays["values"]
        quotas = self.quotas(channels, self._stored_count(packed))
        bands, slots = values.shape[:2]
        positions = from_bits(packed.arrays["positions"], packed.bits["positions"], bands * slots)
        where = np.tile(np.repeat(np.arange(len(quotas)), quotas) * self.group, taps)
        tap = np.repeat(np.arange(taps), quotas.sum())
        full = np.zeros((bands, taps, len(quotas) * self.group, self.vector), weights.dtype)
        full[np.arange(bands)[:, None], tap, where + positions.reshape(bands, slots)] = values
        spread = full.transpose(0, 3, 1, 2).reshape(bands * self.vector, taps, -1)
        weights[...] = spread[:outputs, :, :channels]


def in_bits(numbers: Array, bits: int) -> Array:
    """Numbers of so many bits each, one behind the other in bytes.

    >>> in_bits(np.array([1, 2, 3, 0, 1]), 2).tolist()
    [57, 1]
    """
    each = (numbers[:, None] >> np.arange(bits)) & 1
    return np.packbits(each.astype(np.uint8).reshape(-1), bitorder="little")


def from_bits(stored: Array, bits: int, count: int) -> Array:
    """The reverse of :func:`in_bits`.

    >>> from_bits(np.array([57, 1], np.uint8), 2, 5).tolist()
    [1, 2, 3, 0, 1]
    """
    each = np.unpackbits(stored, count=bits * count, bitorder="little").reshape(count, bits)
    numbers: Array = each.astype(np.int64) @ (1 << np.arange(bits))
    return numbers
