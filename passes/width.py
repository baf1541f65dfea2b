"""Fewer channels, heads and features: the structural pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from graphprune.api import Result, prune
from graphprune.pipeline import Pass, PassResult


@dataclass(frozen=True)
class Width(Pass):
    """Remove the least important entries of every group until the budget is met.    width{macs=0.6}

    The fields are the options of :func:`graphprune.api.plan`.
    """

    name: ClassVar[str] = "width"

    macs: float | None = None
    params: float | None = None
    bytes: float | None = None
    latency: float | None = None
    ratio: float | None = None
    criterion: str = "l2"
    reduction: str = "mean"
    normalize: str = "mean"
    allocate: str = "global"
    max_ratio: float = 0.9
    min_width: int = 1
    align: int = 1
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    heads: str = "both"
    seed: int = 0
    latency_table: str | None = None
    threads: int | None = None

    def apply(self, model: Any) -> PassResult:
        """The pruned model, unverified; the report is a :class:`graphprune.api.Result`."""
        result: Result = prune(model, verify=False, **asdict(self))
        if result.report.cut == 0:
            return PassResult(model, False, result)
        return PassResult(result.model, True, result)
