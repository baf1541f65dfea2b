"""What a criterion is."""

from __future__ import annotations

from typing import ClassVar, Protocol

from graphprune.program import Array


class Criterion(Protocol):
    """Scores entries: low scores go first. A criterion on weights scores each element of a weight (``elements``, same
    shape) and says what becomes of their sum over one entry (``entry``); one that needs no weights draws ``scores``."""

    name: ClassVar[str]

    def elements(self, weight: Array) -> Array | None:
        """The saliency of every element, same shape as the weight; ``None`` where weights do not matter."""

    def entry(self, sums: Array) -> Array:
        """The score of an entry from the sum over its elements."""

    def scores(self, group: str, size: int, seed: int) -> Array:
        """Scores of a group without looking at weights."""
