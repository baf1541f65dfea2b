"""Costs against counts made another way: from the shapes of a run, by brute force, and on the pruned file itself."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.api import report_of
from graphprune.cost import MEASURES, Costing, bits_of, measure
from graphprune.dialects.onnx.writer import write
from graphprune.plan import make_plan
from tests.execution import feeds, run
from tests.models import CASES
from tests.planning import analysed, case, group, two_layers

PRUNABLE = sorted(name for name in CASES if case(name).groups)


OTHERS_THAT_MULTIPLY = {"LSTM", "GRU", "RNN", "Einsum", "Attention", "MultiHeadAttention", "If", "Loop", "Scan"}


def everything(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs and all intermediate results of a run, by name."""
    shown = onnx.ModelProto.FromString(model.SerializeToString())
    known = {value.name for value in shown.graph.output}
    names = {name for node in shown.graph.node for name in node.output if name}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - known))
    return {**run(shown, inputs), **inputs}


def peak_by_running(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> int | None:
    """The most bytes alive at once when nodes run in file order; None where a node has a body of its own."""
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    if any(a.type == onnx.AttributeProto.GRAPH for node in nodes for a in node.attribute) or model.functions:
        return None
    found = everything(model, inputs)
    lives = dict.fromkeys((value.name for value in model.graph.output), len(nodes))
    for place, node in enumerate(nodes):
        lives.update((name, max(place, lives.get(name, 0))) for name in (*node.input, *node.output))
    alive, most = {value: found[value].nbytes for value in inputs}, 0
    for place, node in enumerate(nodes):
        alive.update((name, found[name].nbytes) for name in node.output if name)
        most = max(most, sum(alive.values()))
        alive = {name: count for name, count in alive.items() if lives.get(name, -1) > place}
    return most


def macs_by_running(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> int | None:
    """MACs of Conv, Gemm and MatMul from the shapes that a run has; None where another operator multiplies."""
    if any(node.op_type in OTHERS_THAT_MULTIPLY or node.domain for node in model.graph.node):
        return None
    shapes = {name: array.shape for name, array in everything(model, inputs).items()}
    shapes.update((t.name, tuple(t.dims)) for t in model.graph.initializer)
    total = 0
    for node in model.graph.node:
        if node.op_type in {"Conv", "ConvTranspose"}:
            spread = shapes[node.input[0] if node.op_type == "ConvTranspose" else node.output[0]]
            total += math.prod(shapes[node.input[1]]) * math.prod(spread[2:]) * spread[0]
        elif node.op_type in {"Gemm", "MatMul"}:
            turned = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-2 if turned else -1]
    return total


def sizes_of(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, int]:
    """The numbers that dynamic axes have in these inputs."""
    return {
        axis.dim_param: size
        for value in model.graph.input
        if value.name in inputs
        for axis, size in zip(value.type.tensor_type.shape.dim, inputs[value.name].shape, strict=True)
        if axis.dim_param
    }


@pytest.mark.parametrize("name", CASES)
def test_macs_agree_with_a_run(name: str) -> None:
    model = CASES[name].build()
    inputs = feeds(model)
    expected = macs_by_running(model, inputs)
    if expected is None:
        pytest.skip("the count by shapes does not know an operator")
    assert Costing(analysed(model), sizes_of(model, inputs)).macs({}) == expected


@pytest.mark.parametrize("name", CASES)
def test_memory_agrees_with_a_run(name: str) -> None:
    model = CASES[name].build()
    inputs = feeds(model)
    expected = peak_by_running(model, inputs)
    if expected is None:
        pytest.skip("it has bodies or functions, whose intermediate results are not among those of a run")
    assert Costing(analysed(model), sizes_of(model, inputs)).peak_activation_bytes({}) == expected


def test_the_count_by_hand() -> None:
    analysis = analysed(two_layers())
    cost = measure(analysis, {}, {"batch": 5}, count_nonzeros=True)
    assert cost.macs == 5 * (3 * 8 + 8 * 4 + 4 * 2)
    assert cost.parameters == cost.nonzeros == 24 + 8 + 32 + 8
    assert cost.bytes == 4 * cost.parameters
    # the largest moment is Relu: its input and output of [5, 8] float32
    assert cost.peak_activation_bytes == 5 * (8 + 8) * 4


MAPS = """
<ir_version: 10, opset_import: ["" : 21]>
maps (float[n, 3, h, w] x) => (float[n, 4, high, wide] y)
<float[6, 3, 3, 3] first = {FIRST}, float[6, 6, 3, 3] second = {SECOND}, float[6, 4, 2, 2] up = {UP}> {
  a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, first)
  b = Relu (a)
  c = MaxPool <kernel_shape = [3, 3], strides = [2, 1]> (b)
  d = Conv <pads = [PADS]> (c, second)
  y = ConvTranspose <strides = [2, 3]> (d, up)
}
"""


def maps(pads: str = "1, 1, 1, 1") -> onnx.ModelProto:
    """Maps of any height and width, which strides, windows and their border change."""
    text = MAPS.replace("PADS", pads)
    for name, count in {"FIRST": 162, "SECOND": 324, "UP": 96}.items():
        text = text.replace(name, ", ".join(["0.5"] * count))
    return onnx.parser.parse_model(text)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 3), h=st.integers(9, 40), w=st.integers(9, 40))
def test_what_follows_from_the_sizes_of_the_inputs_is_counted(n: int, h: int, w: int) -> None:
    """Behind a stride, heights are symbols of their own: they counted as 1, whatever --size said."""
    model = maps()
    inputs = {"x": np.zeros((n, 3, h, w), np.float32)}
    costing = Costing(analysed(model), sizes_of(model, inputs))
    assert costing.macs({}) == macs_by_running(model, inputs)
    assert costing.peak_activation_bytes({}) == peak_by_running(model, inputs)


def test_sizes_that_nobody_gave_are_told() -> None:
    """But those of samples: all costs are multiplied by their number."""
    analysis = analysed(maps())
    (told,) = report_of(analysis, {}).notes
    assert told == "dynamic sizes that count as 1 in these costs: h, w; --size h=N --size w=N says what they are"
    assert "1 in these costs: w;" in report_of(analysis, {}, sizes={"h": 9}).notes[0]
    assert report_of(analysis, {}, sizes={"h": 9, "w": 9}).notes == ()


def test_sizes_that_a_model_does_not_take_count_as_one() -> None:
    analysis = analysed(maps(pads="0, 0, 0, 0"))
    assert Costing(analysis, {}).macs({}) == 6 * 3 * 9 + 6 * 6 * 9 + 6 * 4 * 4
    assert Costing(analysis, {"h": 33, "w": 33}).macs({}) > 100 * Costing(analysis, {}).macs({})


def test_symbols_without_a_size_count_as_one() -> None:
    costing = Costing(analysed(two_layers()), {})
    assert costing.macs({}) == 64


def test_symbols_count_as_the_program_says_unless_a_size_is_given() -> None:
    analysis = analysed(two_layers())
    analysis.program.sizes["batch"] = 7
    assert Costing(analysis, {}).macs({}) == measure(analysis, {}).macs == 7 * 64
    assert Costing(analysis, {"batch": 2}).macs({}) == 2 * 64
    assert make_plan(analysis, ratio=0.0).costs["dense"]["macs"] == 7 * 64


@pytest.mark.parametrize("name", PRUNABLE)
@pytest.mark.parametrize("kind", MEASURES)
def test_marginals_are_differences(name: str, kind: str) -> None:
    analysis = case(name)
    costing = Costing(analysis, {"batch": 3})
    generator = np.random.default_rng(0)
    widths = {each.dim: int(generator.integers(2, each.size + 1)) for each in analysis.groups if each.size > 2}
    for dim, width in widths.items():
        fewer = {**widths, dim: width - 1}
        assert costing.marginal(kind, dim, widths) == costing.cost(kind, widths) - costing.cost(kind, fewer)


@pytest.mark.parametrize("name", PRUNABLE)
def test_planned_costs_are_those_of_the_file(name: str) -> None:
    analysis = case(name)
    keep = make_plan(analysis, ratio=0.4, criterion="random").keep(analysis)
    expected = measure(analysis, keep, {"batch": 2}, count_nonzeros=True)
    pruned = analysed(ir.to_proto(write(analysis, keep)))
    found = measure(pruned, {}, {"batch": 2}, count_nonzeros=True)
    assert (found.macs, found.peak_activation_bytes) == (expected.macs, expected.peak_activation_bytes)
    # A vector shared by groups with different fates becomes several in the file.
    assert found.parameters >= expected.parameters
    assert found.parameters - expected.parameters == found.nonzeros - expected.nonzeros


def test_nonzeros_are_counted_in_what_is_kept() -> None:
    model = two_layers()
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.eye(3, 8, dtype=np.float32), model.graph.initializer[0].name)
    )
    analysis = analysed(model)
    dim = group(analysis, "first:1").dim
    assert measure(analysis, {}, count_nonzeros=True).nonzeros == 3 + 8 + 32 + 8
    assert measure(analysis, {dim: np.array([0, 7])}, count_nonzeros=True).nonzeros == 1 + 2 + 8 + 8


@pytest.mark.parametrize(("dtype", "bits"), [("float", 32), ("double", 64), ("int4", 4), ("bool", 8), ("", 32)])
def test_bits(dtype: str, bits: int) -> None:
    assert bits_of(dtype) == bits
