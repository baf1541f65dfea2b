"""What the tests of cost, criteria, allocation and plans share: the hard cases, analysed."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from graphprune.analysis import Analysis, Group, analyze_program
from graphprune.dialects.onnx.reader import read
from tests.models import CASES
from tests.models.case import seeded


def analysed(model: onnx.ModelProto) -> Analysis:
    """The analysis of a model."""
    return analyze_program(read(ir.from_proto(model)))


def case(name: str) -> Analysis:
    """The analysis of a hard case."""
    return analysed(CASES[name].build())


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
