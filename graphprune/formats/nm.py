"""N:M: of every M consecutive inputs of an output at most N are kept (Mishra et al., Accelerating Sparse Deep Neural
Networks, 2021, for 2:4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from graphprune.errors import GraphPruneError
from graphprune.formats.format import Array, Needs, Packed, cube, whole_number
from graphprune.formats.slots import Slots


@dataclass(frozen=True)
class NM(Slots):
    """``N:M``. A mask may keep fewer than N; the slots that are left hold zeros.

    >>> NM(2, 4).project(np.array([[1.0, 4.0, 3.0, 2.0]])).tolist()
    [[False, True, True, False]]
    """

    name: ClassVar[str] = "nm"
    examples: ClassVar[tuple[str, ...]] = ("2:4", "1:4", "4:8")

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            what = f"{self.n} of {self.m} is not a part"
            raise GraphPruneError("GP107", what, f"format {self}", "write N:M with N from 1 to below M, such as 2:4")

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        match = re.fullmatch(r"(\d+):(\d+)", text, re.ASCII)
        return cls(whole_number(match[1], 1, "inputs"), whole_number(match[2], 2, "inputs")) if match else None

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def vector(self) -> int:
        return 1

    @property
    def group(self) -> int:
        return self.m

    @property
    def needs(self) -> Needs:
        return Needs(rows=self.vector, fixed=True, group=self.m)

    @property
    def sparsity(self) -> float:
        return 1 - self.n / self.m

    def misfit(self, outputs: int, taps: int, channels: int) -> str:
        if outputs < self.vector or channels < self.m:
            return f"{outputs} outputs by {channels} inputs of a tap are less than one group of {self}"
        return ""

    def gains(self, saliency: Array) -> None:
        return None

    def slots(self, sparsity: float | None) -> int:
        return self.n

    def count(self, used: Array, channels: int) -> int:
        return self.n

    def holds(self, mask: Array) -> bool:
        """Whether every group keeps at most N, and all V outputs the same ones."""
        whole = cube(mask)
        used = self.used(whole)
        fits = bool(np.all(used.sum(axis=-1) <= self.quotas(whole.shape[2], self.n)))
        return fits and bool(np.array_equal(self.spread(used, whole.shape), whole))

    def _stored_count(self, packed: Packed) -> int:
        return self.n
