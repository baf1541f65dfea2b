"""Unstructured: any entry may be zero (Han et al., Learning both Weights and Connections, NeurIPS 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from graphprune.formats.format import Array, Format, Needs, Packed, highest, index_type, kept, owners, starts


@dataclass(frozen=True)
class Unstructured(Format):
    """Packed as compressed rows: ``values [n]``, ``columns [n]`` (position in a row of taps times channels, in the
    narrowest of 1, 2 or 4 bytes) and ``starts [outputs + 1]`` (4 bytes).

    >>> Unstructured().project(np.array([[1.0, 4.0], [3.0, 2.0]]), 0.5).tolist()
    [[False, True], [True, False]]
    """

    name: ClassVar[str] = "unstructured"
    examples: ClassVar[tuple[str, ...]] = ("unstructured",)

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        return cls() if text == cls.name else None

    def __str__(self) -> str:
        return self.name

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def span(self) -> int:
        return 1

    def misfit(self, outputs: int, taps: int, channels: int) -> str:
        return ""

    def gains(self, saliency: Array) -> Array:
        return -np.sort(-np.asarray(saliency, np.float64), axis=None)

    def _project(self, saliency: Array, sparsity: float) -> Array:
        return highest(saliency, kept(saliency.size, sparsity))

    def cover(self, mask: Array) -> Array:
        return mask.copy()

    def _pack(self, weights: Array, mask: Array) -> tuple[dict[str, Array], dict[str, int]]:
        flat = mask.reshape(len(mask), -1)
        columns = np.nonzero(flat)[1].astype(index_type(flat.shape[1]))
        return {"values": weights[mask], "columns": columns, "starts": starts(flat.sum(axis=1))}, {}

    def _unpack(self, packed: Packed, weights: Array) -> None:
        rows = owners(packed.arrays["starts"])
        weights.reshape(len(weights), -1)[rows, packed.arrays["columns"]] = packed.arrays["values"]
