"""Remove what cannot matter: entries that nobody reads, and constants, which biases take over. Exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphprune.api import Result, analyze, apply, report_of
from graphprune.dead import dead_entries, folds, survivors
from graphprune.dialects import tools_of
from graphprune.dialects.onnx.files import carry
from graphprune.dialects.onnx.fold import fold
from graphprune.dialects.onnx.tools import ONNX
from graphprune.errors import GraphPruneError
from graphprune.pipeline import Pass, PassResult
from graphprune.plan import Plan, named
from graphprune.program import Array

# Each round removes entries that became dead in the round before; real files need two or three.
_MOST_ROUNDS = 64


@dataclass(frozen=True)
class Clean(Pass):
    """model --> the same function without dead and constant entries.    clean

    Keeps: the outputs, up to the rounding of sums with fewer zeros in them.
    """

    name: ClassVar[str] = "clean"

    def apply(self, model: Any) -> PassResult:
        """The cleaned model; the report is a :class:`graphprune.api.Result` with one plan for all rounds.

        Raises GraphPruneError GP103 for models other than those of ONNX: constants are moved into their biases.
        """
        if tools_of(model) is not ONNX:
            raise GraphPruneError("GP103", f"a {type(model).__name__} is not an ONNX model, and only those are cleaned")
        dense = analyze(model)
        kept: dict[str, Array] = {name: np.arange(group.size) for name, group in named(dense).items()}
        current, analysis = model, dense
        constants = folds(dense)
        if constants:
            current = fold(dense, constants)
            carry(model, current)
            analysis = analyze(current)
        for _ in range(_MOST_ROUNDS):
            names = {group.dim: name for name, group in named(analysis).items()}
            keep = survivors(dead_entries(analysis))
            if not keep:
                break
            for dim, entries in keep.items():
                kept[names[dim]] = kept[names[dim]][entries]
            current = apply(analysis, Plan.of(analysis, keep))
            analysis = analyze(current)
        total = {group.dim: kept[name] for name, group in named(dense).items()}
        plan = Plan.of(dense, total, {"pass": self.name})
        keep = plan.keep(dense)
        result = Result(current, plan, report_of(dense, keep))
        return PassResult(current if keep else model, bool(keep), result)
