"""Tile-wise: every tile of G outputs keeps inputs and outputs of its own, so that what is left of it is a smaller dense
matrix (Guo et al., Accelerating Sparse DNN Models without Hardware-Support via Tile-Wise Sparsity, SC 2020)."""

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
    padded,
    starts,
    whole_number,
)


@dataclass(frozen=True)
class Tile(Format):
    """``tile/G``: tiles of G outputs and all inputs. The sparsity counts the inputs of tiles.

    ``project`` removes inputs, and is optimal among the masks that do; to choose outputs at the same time would be the
    search for a heaviest biclique, which is NP-hard. An output of a tile goes where nothing of it is important, such as
    one that an earlier pass removed.

    Packed as ``values [n]`` (the dense rests ``[outputs, inputs]``, one tile after the other), ``rows`` and ``columns``
    (the outputs of each tile within it, and the inputs; the narrowest of 1, 2 or 4 bytes), ``row_starts`` and
    ``column_starts [tiles + 1]`` (4 bytes).

    >>> Tile(2).project(np.array([[1.0, 4.0, 1.0], [1.0, 1.0, 2.0]]), 2 / 3).tolist()
    [[False, True, False], [False, True, False]]
    """

    name: ClassVar[str] = "tile"
    examples: ClassVar[tuple[str, ...]] = ("tile/64", "tile/128")

    outputs: int

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        match = re.fullmatch(r"tile/(\d+)", text, re.ASCII)
        return cls(whole_number(match[1], 2, "outputs")) if match else None

    def __str__(self) -> str:
        return f"{self.name}/{self.outputs}"

    @property
    def needs(self) -> Needs:
        return Needs(rows=self.outputs)

    def misfit(self, outputs: int, taps: int, channels: int) -> str:
        return f"{outputs} outputs are less than one tile of {self}" if outputs < self.outputs else ""

    def gains(self, saliency: Array) -> Array:
        return -np.sort(-self._tiles(cube(saliency)).sum(axis=1, dtype=np.float64), axis=None)

    def _tiles(self, array: Array) -> Array:
        """``[tiles, G, inputs]``, zeros behind the last output."""
        full = padded(array, self.outputs, 1)
        return full.reshape(-1, self.outputs, full.shape[1] * full.shape[2])

    def _spread(self, rows: Array, columns: Array, shape: tuple[int, ...]) -> Array:
        mask = rows[:, :, None] & columns[:, None, :]
        return mask.reshape(-1, *shape[1:])[: shape[0]]

    def _project(self, saliency: Array, sparsity: float) -> Array:
        tiles = self._tiles(saliency)
        sums = tiles.sum(axis=1, dtype=np.float64)
        columns = highest(sums, kept(sums.size, sparsity))
        rows = any_along(tiles > 0, 2)
        whole = ~any_along(rows, 1)  # nothing in it is important, so nothing says which outputs to remove
        return self._spread(rows | whole[:, None], columns, saliency.shape)

    def cover(self, mask: Array) -> Array:
        whole = cube(mask)
        tiles = self._tiles(whole)
        return self._spread(any_along(tiles, 2), any_along(tiles, 1), whole.shape).reshape(mask.shape)

    def _pack(self, weights: Array, mask: Array) -> tuple[dict[str, Array], dict[str, int]]:
        tiles = self._tiles(mask)
        rows, columns = any_along(tiles, 2), any_along(tiles, 1)
        return {
            "values": self._tiles(weights)[tiles],
            "rows": np.nonzero(rows)[1].astype(index_type(self.outputs)),
            "columns": np.nonzero(columns)[1].astype(index_type(columns.shape[1])),
            "row_starts": starts(rows.sum(axis=1)),
            "column_starts": starts(columns.sum(axis=1)),
        }, {}

    def _unpack(self, packed: Packed, weights: Array) -> None:
        found, full, begin = packed.arrays, self._tiles(weights).copy(), 0
        for place, tile in enumerate(full):
            rows = found["rows"][found["row_starts"][place] : found["row_starts"][place + 1]]
            columns = found["columns"][found["column_starts"][place] : found["column_starts"][place + 1]]
            end = begin + len(rows) * len(columns)
            tile[np.ix_(rows, columns)] = found["values"][begin:end].reshape(len(rows), len(columns))
            begin = end
        weights[...] = full.reshape(-1, *weights.shape[1:])[: len(weights)]
