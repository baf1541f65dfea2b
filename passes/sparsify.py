"""Zeros in a pattern that kernels can use: the pass of weights, beside those of structure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from graphprune.formats import parse
from graphprune.pipeline import Pass, PassResult
from graphprune.sparsity.run import sparsify


@dataclass(frozen=True)
class Sparsify(Pass):
    """Write zeros into the weights of every layer that can have the format.    sparsify{format="8x1", sparsity=0.9}

    The fields are the options of :func:`graphprune.sparsity.run.sparsify`.
    """

    name: ClassVar[str] = "sparsify"

    format: str
    sparsity: float | None = None
    criterion: str = "l2"
    allocate: str = "uniform"
    permute: bool = False
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        parse(self.format)

    def apply(self, model: Any) -> PassResult:
        """The sparse model, unverified; the report is a :class:`graphprune.sparsity.report.SparsityReport`."""
        result = sparsify(model, verify=False, **asdict(self))
        before, after = result.report.nonzeros
        if before == after:
            return PassResult(model, False, result.report)
        return PassResult(result.model, True, result.report)
