"""Fewer layers: the pass that leaves out residual blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphprune.api import Result, prune
from graphprune.pipeline import Pass, PassResult


@dataclass(frozen=True)
class Depth(Pass):
    """Leave out the residual blocks that change least what goes through them.    depth{blocks=2}

    by, unit: `depth_by` and `depth_unit` of :func:`graphprune.api.plan`
    calibration: a source of data by name, as on the command line
    """

    name: ClassVar[str] = "depth"

    blocks: int
    by: str = "block_influence"
    unit: int = 1
    calibration: str = "noise"
    seed: int = 0

    def apply(self, model: Any) -> PassResult:
        """The model without them, unverified; the report is a :class:`graphprune.api.Result`."""
        result: Result = prune(
            model, verify=False, depth=self.blocks, depth_by=self.by, depth_unit=self.unit,
            calibration=self.calibration, seed=self.seed,
        )  # fmt: skip
        return PassResult(result.model, True, result)
