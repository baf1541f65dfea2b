"""What fuzzing found once: one small model for each defect, with the answer that it must get now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graphprune import api
from graphprune.errors import GraphPruneError
from tests.models import CASES

from .harness import time_limit


def two_layers() -> ModelProto:
    """y = Relu(x A) B with x of 2 by 4 and a hidden width of 8."""
    weights = [
        numpy_helper.from_array(np.arange(size * 8, dtype=np.float32).reshape(shape) + 1, name)
        for name, shape, size in (("a", (4, 8), 4), ("b", (8, 3), 3))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["m"], name="first"),
        helper.make_node("Relu", ["m"], ["r"], name="bend"),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="last"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph(nodes, "layers", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def written(folder: Path, change: Callable[[ModelProto], object]) -> Path:
    model = two_layers()
    change(model)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def with_attribute(kind: str, **attributes: object) -> Callable[[ModelProto], object]:
    """The node in the middle becomes this one."""
    node = helper.make_node(kind, ["m"], ["r"], name="bend", **attributes)
    return lambda model: model.graph.node[1].CopyFrom(node)


def attribute_twice(model: ModelProto) -> None:
    with_attribute("LeakyRelu", alpha=0.5)(model)
    model.graph.node[1].attribute.add().CopyFrom(model.graph.node[1].attribute[0])


def attribute_without_tensor(model: ModelProto) -> None:
    model.graph.node.add(op_type="Constant", output=["c"]).attribute.add(name="value", type=onnx.AttributeProto.TENSOR)


def graph_from_elsewhere(model: ModelProto) -> None:
    branch = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH, ref_attr_name="branch")
    with_attribute("If")(model)
    model.graph.node[1].attribute.append(branch)


_REFUSED: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "an axis that is a text": (
        with_attribute("Softmax", axis="one"),
        "GP102 its attribute 'axis' is of type STRING, not INT",
    ),
    "a required attribute that is missing": (with_attribute("Cast"), "GP102 it lacks the attribute 'to'"),
    "an attribute twice": (attribute_twice, "GP102 it has two attributes called 'alpha'"),
    "a tensor that is not there": (attribute_without_tensor, "GP102 the attribute 'value' holds no tensor"),
    "a graph that only a function could be given": (
        graph_from_elsewhere,
        "GP103 the attribute 'then_branch' is a graph that is an argument of the function it stands in",
    ),
    "an output without a name": (lambda model: model.graph.output.add(), "GP102 an input, output or initializer"),
    "numbers stored twice": (
        lambda model: model.graph.initializer[0].int32_data.append(1),
        "GP102 it holds its numbers more than once: raw_data, int32_data",
    ),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    change, expected = _REFUSED[case]
    with pytest.raises(GraphPruneError) as caught:
        api.load(written(tmp_path, change))
    assert str(caught.value).startswith(expected)


def test_a_vector_of_a_million_axes_takes_no_time(tmp_path: Path) -> None:
    """Reshape to a shape that is computed, declared as a vector of 2**40 entries."""

    def change(model: ModelProto) -> None:
        model.graph.input.add().CopyFrom(helper.make_tensor_value_info("shape", TensorProto.INT64, [2**40]))
        with_attribute("Reshape")(model)
        model.graph.node[1].input.append("shape")

    with time_limit(20):
        assert api.analyze(api.load(written(tmp_path, change))).groups == []


def test_a_declared_shape_that_is_wrong_stays_as_it_was(tmp_path: Path) -> None:
    """The interface of the file is not for pruning to correct: here a stored tensor is an output."""
    offset = numpy_helper.from_array(np.ones(3, np.float32), "offset")
    output = helper.make_tensor_value_info("offset", TensorProto.FLOAT, [1, 3])

    def change(model: ModelProto) -> None:
        model.graph.initializer.append(offset)
        model.graph.output.append(output)

    model = api.load(written(tmp_path, change))
    pruned = api.apply(model, api.plan(model, ratio=0.5))
    assert [str(value.shape) for value in pruned.graph.outputs] == ["[2,3]", "[1,3]"]


def test_inputs_too_large_to_make_cannot_be_verified(tmp_path: Path) -> None:
    def change(model: ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**60

    model = api.load(written(tmp_path, change))
    with pytest.raises(GraphPruneError, match="GP402 the input 'x' asks for"):
        api.verify(model, model)


def test_functions_of_another_operator_set_cannot_be_verified(tmp_path: Path) -> None:
    def change(model: ModelProto) -> None:
        body = [helper.make_node("Relu", ["a"], ["b"])]
        imports = [helper.make_opsetid("", 7)]
        model.functions.append(helper.make_function("local", "Bend", ["a"], ["b"], body, imports))
        model.opset_import.append(helper.make_opsetid("local", 1))
        model.graph.node[1].op_type, model.graph.node[1].domain = "Bend", "local"

    model = api.load(written(tmp_path, change))
    assert [group.size for group in api.analyze(model).groups] == [8]
    with pytest.raises(GraphPruneError, match="GP402 its functions cannot be written out"):
        api.verify(model, model)


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
@pytest.mark.filterwarnings("error")
def test_weights_that_are_not_numbers(tmp_path: Path, number: float) -> None:
    """An error and nothing else: NumPy's warnings about them are not for the user."""

    def change(model: ModelProto) -> None:
        broken = np.full((4, 8), number, np.float32)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(broken, "a"))

    model = api.load(written(tmp_path, change))
    with pytest.raises(GraphPruneError, match="GP107 a weight has numbers that are not finite, or overflow"):
        api.plan(model, ratio=0.5)


def test_a_stored_axis_that_is_split_at_a_size_only_a_run_knows_stays(tmp_path: Path) -> None:
    """Where a rotary table is cut in halves is a text, so that no entry of a half can be named."""
    model = CASES["rotary_tables_shared_by_layers"].build()
    place = next(tensor for tensor in model.graph.initializer if tensor.name == "at_3")
    place.CopyFrom(TensorProto(name="at_3", dims=[1], data_type=TensorProto.STRING, string_data=[b"3"]))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert api.prune(api.load(path), ratio=0.2, verify=False).report.cut > 0
