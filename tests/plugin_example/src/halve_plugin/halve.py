"""The pass `halve`, as another package would bring it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import graphprune as gp
from graphprune.pipeline import Pass, PassResult


@dataclass(frozen=True)
class Halve(Pass):
    """Remove a share of the channels of every group.    w(64, 3, 3, 3) --> w(32, 3, 3, 3)"""

    name: ClassVar[str] = "halve"
    share: float = 0.5
    """The share of channels that goes, 0 to 1; as text halve{share=0.25}."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise gp.GraphPruneError("GP107", f"share must be between 0 and 1, not {self.share}", "the pass halve")

    def apply(self, model: Any) -> PassResult:
        """Prune by the size of the weights."""
        result = gp.prune(model, ratio=self.share)
        return PassResult(result.model, True, result.report)
