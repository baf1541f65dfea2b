"""Vector N:M: N:M whose pattern several consecutive outputs share, so that a kernel works on whole vectors (Castro et
al., VENOM, SC 2023; Lin et al., 1xN pattern for pruning, 2022)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np  # noqa: F401  # the example uses it

from graphprune.errors import GraphPruneError
from graphprune.formats.format import whole_number
from graphprune.formats.nm import NM


@dataclass(frozen=True)
class VectorNM(NM):
    """``N:M/V``: V outputs share a pattern.

    >>> VectorNM(1, 2, 2).project(np.array([[1.0, 4.0], [5.0, 1.0]])).tolist()
    [[True, False], [True, False]]
    """

    name: ClassVar[str] = "vector_nm"
    examples: ClassVar[tuple[str, ...]] = ("2:4/4", "1:8/8")

    v: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.v < 2:
            what = f"{self.v} output shares its pattern with none"
            raise GraphPruneError("GP107", what, f"format {self}", f"write {self.n}:{self.m}, or {self.n}:{self.m}/4")

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        match = re.fullmatch(r"(\d+):(\d+)/(\d+)", text, re.ASCII)
        if match is None:
            return None
        n, m, v = (whole_number(each, 1, "a vector N:M") for each in match.groups())
        return cls(n, m, v)

    def __str__(self) -> str:
        return f"{self.n}:{self.m}/{self.v}"

    @property
    def vector(self) -> int:
        return self.v
