"""The format that docs/sparsity.md adds: whole outputs are kept or removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from graphprune.formats.format import Array, Format, Needs, Packed, any_along, cube, highest, index_type, kept


@dataclass(frozen=True)
class Rows(Format):
    """``rows``: packed as the ``values`` of the outputs that stay, and their ``rows``."""

    name: ClassVar[str] = "rows"
    examples: ClassVar[tuple[str, ...]] = ("rows",)

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        return cls() if text == "rows" else None

    def __str__(self) -> str:
        return "rows"

    @property
    def needs(self) -> Needs:
        return Needs()

    def misfit(self, outputs: int, taps: int, channels: int) -> str:
        return "there is one output" if outputs == 1 else ""

    def gains(self, saliency: Array) -> Array:
        return -np.sort(-cube(saliency).sum(axis=(1, 2)))

    def _project(self, saliency: Array, sparsity: float) -> Array:
        rows = highest(saliency.sum(axis=(1, 2)), kept(len(saliency), sparsity))
        return np.broadcast_to(rows[:, None, None], saliency.shape)

    def cover(self, mask: Array) -> Array:
        rows = any_along(cube(mask), 1, 2)
        return np.broadcast_to(rows.reshape(-1, *[1] * (mask.ndim - 1)), mask.shape).copy()

    def _pack(self, weights: Array, mask: Array) -> tuple[dict[str, Array], dict[str, int]]:
        rows = np.flatnonzero(any_along(mask, 1, 2))
        return {"values": weights[rows], "rows": rows.astype(index_type(len(mask)))}, {}

    def _unpack(self, packed: Packed, weights: Array) -> None:
        weights[packed.arrays["rows"]] = packed.arrays["values"]
