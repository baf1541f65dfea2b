"""What the tests of cost, criteria, allocation and plans share: the hard cases, analysed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.allocate.bounds import bounds
from graphprune.allocate.problem import Problem, limits_of
from graphprune.analysis import Analysis, Group, analyze_program
from graphprune.cost import Costing
from graphprune.criteria.transfer import score_groups
from graphprune.dialects.onnx.reader import read
from graphprune.dims import Dim
from tests.models import CASES
from tests.models.case import seeded


def analysed(model: onnx.ModelProto) -> Analysis:
    """The analysis of a model."""
    return analyze_program(read(ir.from_proto(model)))


def case(name: str) -> Analysis:
    """The analysis of a hard case."""
    return analysed(CASES[name].build())


def concatenated(*widths: int) -> onnx.ModelProto:
    """x[1, 8] -> three layers of these widths, side by side -> y[1, 4]."""
    a, b, c = widths
    return seeded(f"""
    parts (float[1, 8] x) => (float[1, 4] y)
    <float[8, {a}] a, float[8, {b}] b, float[8, {c}] c, float[{a + b + c}, 4] d>
    {{
        i = MatMul(x, a)
        j = MatMul(x, b)
        k = MatMul(x, c)
        h = Concat<axis = 1>(i, j, k)
        y = MatMul(h, d)
    }}""")


def two_layers() -> onnx.ModelProto:
    """x[batch, 3] -> 8 -> 4 -> y[batch, 2], with biases."""
    return seeded("""
    layers (float[batch, 3] x) => (float[batch, 2] y)
    <float[3, 8] "first", float[8] "first.bias", float[8, 4] "second", float[4, 2] "third">
    {
        a = Gemm(x, "first", "first.bias")
        b = Relu(a)
        c = MatMul(b, "second")
        d = Relu(c)
        y = MatMul(d, "third")
    }""")


def group(analysis: Analysis, member: str) -> Group:
    """The group that has this member, such as ``first:1``."""
    return next(each for each in analysis.groups if member in {m.name for m in each.members})


def problem(
    analysis: Analysis,
    fractions: Mapping[str, float] | None = None,
    *,
    ratio: float | None = None,
    scores: Mapping[Dim, np.ndarray[Any, Any]] | None = None,
    **limits: Any,
) -> Problem:
    """What an allocator is asked for these budgets; ``limits`` are options of bounds. Scores by L2 unless given."""
    found = bounds(analysis, analysis.groups, **limits)
    costing = Costing(analysis, {})
    most = limits_of(costing, analysis.groups, found, fractions or {}, ratio or 0.0)
    scores = scores or score_groups(analysis, analysis.groups)
    return Problem(analysis, analysis.groups, scores, found, costing, most, ratio)
