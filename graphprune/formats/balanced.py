"""Balanced: every row is divided into banks of M inputs, each of which keeps equally many (Cao et al., Bank-Balanced
Sparsity, FPGA 2019; Yao et al., Balanced Sparsity, AAAI 2019). M is large, and how many of it stay follows from the
sparsity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from graphprune.errors import GraphPruneError
from graphprune.formats.format import Array, Needs, Packed, cube, kept, whole_number
from graphprune.formats.slots import Slots


@dataclass(frozen=True)
class Balanced(Slots):
    """``balanced/M``. The sparsity counts the slots of a bank. Packed as N:M is, with ``kept [1]`` (2 bytes), the slots
    of a whole bank.

    >>> Balanced(4).project(np.array([[1.0, 4.0, 3.0, 2.0]]), 0.75).tolist()
    [[False, True, False, False]]
    """

    name: ClassVar[str] = "balanced"
    examples: ClassVar[tuple[str, ...]] = ("balanced/32", "balanced/64")

    m: int

    def __post_init__(self) -> None:
        if not 1 < self.m < 2**16:
            what = f"{self.m} is not the size of a bank"
            raise GraphPruneError("GP107", what, f"format {self}", "write balanced/M with M from 2 to 65535")

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        match = re.fullmatch(r"balanced/(\d+)", text, re.ASCII)
        return cls(whole_number(match[1], 2, "inputs")) if match else None

    def __str__(self) -> str:
        return f"{self.name}/{self.m}"

    @property
    def vector(self) -> int:
        return 1

    @property
    def group(self) -> int:
        return self.m

    @property
    def needs(self) -> Needs:
        return Needs(fixed=True, group=self.m)

    def misfit(self, outputs: int, taps: int, channels: int) -> str:
        return f"{channels} inputs of a tap are less than one bank of {self}" if channels < self.m else ""

    def gains(self, saliency: Array) -> Array:
        whole = cube(saliency)
        ranked = -np.sort(-self.vectors(whole.astype(np.float64), 0.0), axis=-1)[:, 0]  # [outputs, taps, groups, M]
        levels = np.array([self.quotas(whole.shape[2], count) for count in range(self.m + 1)])
        sums = np.concatenate([np.zeros((len(ranked[0, 0]), 1)), ranked.sum(axis=(0, 1)).cumsum(axis=-1)], axis=1)
        totals = sums[np.arange(len(sums)), levels].sum(axis=1)
        return np.minimum.accumulate(np.diff(totals))  # a smaller bank at the end fills up in steps of its own

    def slots(self, sparsity: float | None) -> int:
        return kept(self.m, 0.0 if sparsity is None else sparsity)

    def count(self, used: Array, channels: int) -> int:
        """The least with which every bank has enough."""
        counts = used.sum(axis=-1).reshape(-1, used.shape[2]).max(axis=0)
        needed = [count for count in range(self.m + 1) if np.all(counts <= self.quotas(channels, count))]
        return needed[0]

    def _counts(self, count: int) -> dict[str, Array]:
        return {"kept": np.array([count], np.uint16)}

    def _stored_count(self, packed: Packed) -> int:
        return int(packed.arrays["kept"][0])
