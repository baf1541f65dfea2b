"""Operators that the backend tests only show with one channel or one sample, wide enough to have free dimensions: each
with the number of dimensions that must be free, and the law of its rule checked along all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from graphprune.analysis import analyze_program
from graphprune.dialects.onnx.reader import read
from tests.conformance.cases import Case
from tests.conformance.oracle import Subject

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def small(dtype: Any, *shape: int) -> np.ndarray:
    return RANDOM.integers(0, 9, shape).astype(dtype)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def floats(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def case(
    op: str, operands: list[Any], outputs: int = 1, version: int = 24, stored: tuple[int, ...] = (), **attributes: Any
) -> Case:
    """One node; operands of ``None`` are absent, those in ``stored`` are constants whatever the rest is."""
    names = ["" if x is None else f"x{k}" for k, x in enumerate(operands)]
    node = helper.make_node(op, names, [f"y{k}" for k in range(outputs)], **attributes)
    given = {name: (k, x) for k, (name, x) in enumerate(zip(names, operands, strict=True)) if x is not None}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, (k, x) in given.items()
        if k not in stored
    ]
    tensors = [numpy_helper.from_array(x, name) for name, (k, x) in given.items() if k in stored]
    results = [helper.make_empty_tensor_value_info(f"y{k}") for k in range(outputs)]
    graph = helper.make_graph([node], op, values, results, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=11)
    return Case(op, op, model, {name: x for name, (k, x) in given.items() if k not in stored}, [])


# What is free: (with all tensors stored, with those fed that are not stored anyhow), named by case.
CASES: dict[str, tuple[tuple[int, int], Case]] = {
    "conv": ((3, 3), case("Conv", [normal(2, 4, 5, 5), normal(6, 4, 3, 3), normal(6)])),
    "conv in groups": ((4, 4), case("Conv", [normal(2, 6, 5), normal(9, 2, 3), normal(9)], group=3)),
    "conv by channel": ((2, 2), case("Conv", [normal(2, 6, 5), normal(6, 1, 3)], group=6)),
    "conv transposed": ((4, 4), case("ConvTranspose", [normal(2, 6, 5), normal(6, 3, 3), normal(6)], group=2)),
    "conv deformed": (
        (3, 3),
        case("DeformConv", [normal(2, 4, 5, 5), normal(6, 4, 2, 2), normal(2, 8, 4, 4), normal(6), normal(2, 4, 4, 4)]),
    ),
    "conv deformed in groups": (
        (3, 3),
        case(
            "DeformConv",
            [normal(2, 8, 5, 5), normal(6, 4, 2, 2), normal(2, 32, 4, 4)],
            group=2,
            offset_group=4,
        ),
    ),
    "conv of integers": (
        (3, 3),
        case("ConvInteger", [small(np.uint8, 2, 4, 5), small(np.uint8, 6, 4, 3), np.uint8(3)], version=10),
    ),
    "columns to image": ((2, 2), case("Col2Im", [normal(2, 12, 9), ints(4, 4), ints(2, 2)], stored=(1, 2))),
    "affine grid": ((1, 1), case("AffineGrid", [normal(3, 2, 3), ints(3, 5, 4, 6)], stored=(1,))),
    "grid sample": ((2, 2), case("GridSample", [normal(2, 3, 4, 4), normal(2, 5, 5, 2)], version=20)),
    "resize by scales": ((2, 2), case("Resize", [normal(2, 3, 4, 4), None, floats(1, 1, 2, 2)], stored=(2,))),
    "resize to sizes": ((3, 3), case("Resize", [normal(2, 3, 4, 4), None, None, ints(2, 3, 8, 4)], stored=(3,))),
    "resize some axes": (
        (2, 2),
        case("Resize", [normal(2, 3, 4, 4), None, None, ints(8, 8)], stored=(3,), axes=[2, 3]),
    ),
    "resize in proportion": (
        (2, 2),
        case(
            "Resize",
            [normal(2, 3, 4, 6), None, None, ints(8, 9)],
            stored=(3,),
            axes=[2, 3],
            keep_aspect_ratio_policy="not_larger",
        ),
    ),
    "upsample": ((2, 2), case("Upsample", [normal(2, 3, 4, 4), floats(1, 1, 2, 2)], version=9, stored=(1,))),
    "regions": (
        (1, 1),
        case(
            "RoiAlign",
            [normal(2, 3, 6, 6), floats(0, 0, 4, 4, 1, 1, 5, 5).reshape(2, 4), ints(0, 1)],
            version=16,
            output_height=2,
            output_width=2,
        ),
    ),
    "regions by maximum": (
        (1, 1),
        case(
            "MaxRoiPool",
            [normal(2, 3, 6, 6), floats(0, 0, 0, 4, 4, 1, 1, 1, 5, 5).reshape(2, 5)],
            version=16,
            pooled_shape=[2, 2],
        ),
    ),
    "pool": ((2, 2), case("MaxPool", [normal(2, 3, 6, 6)], kernel_shape=[2, 2])),
    "normalised in groups": ((4, 4), case("GroupNormalization", [normal(2, 6, 4), normal(6), normal(6)], num_groups=3)),
    "cache": ((3, 3), case("TensorScatter", [normal(2, 3, 6, 4), normal(2, 3, 2, 4), ints(1, 3)])),
    "flagged along an axis": (
        (2, 2),
        case("Compress", [normal(2, 3, 4), np.array([1, 0, 1], bool)], version=11, stored=(1,), axis=1),
    ),
    "reversed": ((2, 2), case("ReverseSequence", [normal(5, 3, 4), ints(5, 2, 3)], version=10)),
    "determinants": ((2, 2), case("Det", [normal(2, 3, 4, 4)], version=22)),
    "cropped around the middle": (
        (2, 2),
        case("CenterCropPad", [normal(2, 6, 4), ints(3)], version=18, stored=(1,), axes=[1]),
    ),
    "transform of a signal": (
        (2, 2),
        case("DFT", [normal(2, 3, 8, 1), None, np.array(2, np.int64)], version=20, stored=(2,)),
    ),
    "transform of frames": (
        (1, 1),
        case("STFT", [normal(3, 16, 1), np.array(4, np.int64), None, np.array(8, np.int64)], version=17, stored=(1, 3)),
    ),
    "quantised conv": (
        (3, 3),
        case(
            "QLinearConv",
            [
                *(small(np.uint8, 2, 4, 5, 5), np.float32(0.5), np.uint8(3)),
                *(small(np.uint8, 6, 4, 3, 3), RANDOM.random(6).astype(np.float32) + 0.1, np.full(6, 5, np.uint8)),
                *(np.float32(2), np.uint8(7), small(np.int32, 6)),
            ],
            version=10,
        ),
    ),
    "entries of an axis": ((2, 2), case("GatherElements", [normal(3, 4, 5), small(np.int64, 3, 2, 5) % 4], axis=1)),
    "entries written": (
        (2, 2),
        case("ScatterElements", [normal(3, 4, 5), small(np.int64, 3, 2, 5) % 4, normal(3, 2, 5)], axis=1),
    ),
    "slices at positions": ((3, 3), case("GatherND", [normal(3, 4, 5), small(np.int64, 6, 1) % 3])),
    "slices written": ((2, 2), case("ScatterND", [normal(3, 4, 5), ints(2, 0).reshape(2, 1), normal(2, 4, 5)])),
    "causal convolution": (
        (2, 2),
        case("CausalConvWithState", [normal(2, 3, 6), normal(3, 1, 4), normal(3), normal(2, 3, 3)], 2, version=27),
    ),
    "linear attention": (
        (5, 5),
        case(
            "LinearAttention",
            [
                normal(2, 5, 24),
                normal(2, 5, 12),
                normal(2, 5, 6),
                normal(2, 3, 4, 2),
                normal(2, 5, 12),
                normal(2, 5, 3),
            ],
            2,
            version=27,
            q_num_heads=6,
            kv_num_heads=3,
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gathered_inputs_give_gathered_outputs(name: str) -> None:
    free, about = CASES[name]
    for stored, count in zip((True, False), free, strict=True):
        outcome = Subject(about, stored=stored).check()
        assert (outcome.mismatches, outcome.free) == ([], count)


SHAPE_IN_A_BRANCH = """
<ir_version: 10, opset_import: ["": 20]>
branch (float[4, 3] x, bool c) => (float[4, 3] y)
{
    n = If (c) <
        then_branch = a () => (int64[2] p) { p = Shape (x) },
        else_branch = b () => (int64[2] q) { q = Shape (x) }
    >
    f = Cast <to = 1> (n)
    s = ReduceSum <keepdims = 0> (f)
    y = Mul (x, s)
}
"""


def test_a_loop_carries_free_dimensions() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    rounds (int64 n, bool go, float[4, 3] x, float[3, 3] w) => (float[4, 3] y, float[R, 4, 3] all)
    {
        y, all = Loop (n, go, x) <body = step (int64 k, bool c, float[4, 3] h)
            => (bool again, float[4, 3] g, float[4, 3] s) {
            again = Identity (c)
            p = MatMul (h, w)
            g = Tanh (p)
            s = Identity (g)
        }>
    }"""
    inputs = {"n": np.array(3, np.int64), "go": np.array(True), "x": normal(4, 3), "w": normal(3, 3)}
    outcome = Subject(Case("rounds", "Loop", onnx.parser.parse_model(text), inputs, []), stored=False).check()
    assert (outcome.mismatches, outcome.free) == ([], 2)


def test_sizes_that_leave_a_branch_stay() -> None:
    inputs = {"x": normal(4, 3), "c": np.array(True)}
    outcome = Subject(
        Case("branch", "If", onnx.parser.parse_model(SHAPE_IN_A_BRANCH), inputs, []), stored=False
    ).check()
    assert (outcome.mismatches, outcome.free) == ([], 0)


def test_a_size_that_is_an_output_stays() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    sized (float[4, 3] x) => (float[4, 5] y, int64[2] n)
    <float[3, 6] w = {0}, float[6, 5] v = {0}> { h = MatMul (x, w)  y = MatMul (h, v)  n = Shape (h) }"""
    model = onnx.parser.parse_model(text.replace("{0}", "{0.0}"))
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        [numpy_helper.from_array(normal(3, 6), "w"), numpy_helper.from_array(normal(6, 5), "v")]
    )
    assert analyze_program(read(ir.from_proto(model))).groups == []
    del model.graph.output[1], model.graph.node[2]
    assert [group.size for group in analyze_program(read(ir.from_proto(model))).groups] == [6]


def test_a_number_that_is_a_size_and_read_as_data_stays() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    shared (float[2, 3] x, float[3, 8] w, float[8, 5] v) => (float[2, 5] y)
    <int64[2] c = {2, 8}>
    {
        h = MatMul (x, w)
        t = Identity (c)
        r = Reshape (h, t)
        f = Cast <to = 1> (t)
        s = ReduceSum <keepdims = 0> (f)
        z = Mul (r, s)
        y = MatMul (z, v)
    }"""
    inputs = {"x": normal(2, 3), "w": normal(3, 8), "v": normal(8, 5)}
    outcome = Subject(Case("shared", "Reshape", onnx.parser.parse_model(text), inputs, []), stored=False).check()
    assert (outcome.mismatches, outcome.free) == ([], 2)
