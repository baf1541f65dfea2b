"""Blocks: R outputs by C inputs are kept or removed together (Gray et al., GPU Kernels for Block-Sparse Weights, 2017;
Elsen et al., Fast Sparse ConvNets, CVPR 2020, for C of 1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from graphprune.formats.format import (
    Array,
    Format,
    Needs,
    Packed,
    any_along,
    cube,
    highest,
    index_type,
    kept,
    owners,
    padded,
    starts,
    whole_number,
)


@dataclass(frozen=True)
class Block(Format):
    """``RxC``: R outputs by C inputs. The sparsity counts blocks, and a smaller one at the end as one of them.

    Packed as compressed rows of blocks: ``values [n, R, C]`` (smaller blocks padded with zeros), ``columns [n]``
    (position of the block in its band, taps outermost; the narrowest of 1, 2 or 4 bytes) and ``starts [bands + 1]``
    (4 bytes).

    >>> Block(1, 2).project(np.array([[1.0, 1.0, 4.0, 0.0]]), 0.5).tolist()
    [[False, False, True, True]]
    """

    name: ClassVar[str] = "block"
    examples: ClassVar[tuple[str, ...]] = ("4x1", "8x1", "16x1", "16x16", "32x32")

    rows: int
    columns: int

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        match = re.fullmatch(r"(\d+)x(\d+)", text, re.ASCII)
        return cls(whole_number(match[1], 1, "outputs"), whole_number(match[2], 1, "inputs")) if match else None

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"

    @property
    def needs(self) -> Needs:
        return Needs(rows=self.rows, inputs=self.columns)

    @property
    def span(self) -> int:
        return self.columns

    def misfit(self, outputs: int, taps: int, channels: int) -> str:
        if outputs < self.rows or channels < self.columns:
            return f"{outputs} outputs by {channels} inputs of a tap are less than one block of {self}"
        return ""

    def gains(self, saliency: Array) -> Array:
        return -np.sort(-self._sums(cube(saliency)), axis=None)

    def _blocks(self, array: Array) -> Array:
        """``[bands, R, taps, blocks, C]``, zeros at the ends."""
        full = padded(array, self.rows, self.columns)
        return full.reshape(-1, self.rows, full.shape[1], full.shape[2] // self.columns, self.columns)

    def _sums(self, saliency: Array) -> Array:
        """Of every block, ``[bands, taps, blocks]``."""
        sums: Array = self._blocks(saliency).sum(axis=(1, 4), dtype=np.float64)
        return sums

    def _spread(self, chosen: Array, shape: tuple[int, ...]) -> Array:
        """Chosen blocks as a mask of entries."""
        wide = chosen.repeat(self.rows, axis=0).repeat(self.columns, axis=2)
        return wide[: shape[0], :, : shape[2]]

    def _project(self, saliency: Array, sparsity: float) -> Array:
        sums = self._sums(saliency)
        return self._spread(highest(sums, kept(sums.size, sparsity)), saliency.shape)

    def cover(self, mask: Array) -> Array:
        whole = cube(mask)
        return self._spread(any_along(self._blocks(whole), 1, 4), whole.shape).reshape(mask.shape)

    def _pack(self, weights: Array, mask: Array) -> tuple[dict[str, Array], dict[str, int]]:
        chosen = any_along(self._blocks(mask), 1, 4)
        values = self._blocks(weights).transpose(0, 2, 3, 1, 4)[chosen]
        flat = chosen.reshape(len(chosen), -1)
        columns = np.nonzero(flat)[1].astype(index_type(flat.shape[1]))
        return {"values": values, "columns": columns, "starts": starts(flat.sum(axis=1))}, {}

    def _unpack(self, packed: Packed, weights: Array) -> None:
        outputs, taps, channels = weights.shape
        bands, wide = -(-outputs // self.rows), -(-channels // self.columns)
        full = np.zeros((bands, taps * wide, self.rows, self.columns), weights.dtype)
        full[owners(packed.arrays["starts"]), packed.arrays["columns"]] = packed.arrays["values"]
        spread = full.reshape(bands, taps, wide, self.rows, self.columns).transpose(0, 3, 1, 2, 4)
        weights[...] = spread.reshape(bands * self.rows, taps, -1)[:outputs, :, :channels]
