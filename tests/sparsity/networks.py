"""A network with every kind of layer that is treated in its own way, and the same with weights of a grouped product."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper


def stored(rng: np.random.Generator, name: str, *shape: int) -> onnx.TensorProto:
    """Weights that keep the size of what goes through them; behind the mean over positions, of which more is left."""
    fan = np.prod(shape[1:]) if len(shape) > 2 else shape[0] / 8 if name == "gemm" else shape[0]
    return numpy_helper.from_array((rng.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32), name)


def kinds(shared: bool = False) -> ir.Model:
    """First, plain, depthwise, grouped and transposed convolutions, and linear layers with both orders of axes."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["ar"]),
        helper.make_node("Conv", ["ar", "plain"], ["b"], name="plain", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["b", "deep"], ["c"], name="deep", group=16, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "grouped"], ["d"], name="grouped", group=2),
        helper.make_node("ConvTranspose", ["d", "up"], ["e"], name="up"),
        helper.make_node("GlobalAveragePool", ["e"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "gemm"], ["g"], name="gemm", transB=1),
        helper.make_node("Relu", ["g"], ["gr"]),
        helper.make_node("MatMul", ["gr", "square"], ["s"], name="square"),
        helper.make_node("MatMul", ["s", "square" if shared else "other"], ["h"], name="other"),
        helper.make_node("Relu", ["h"], ["hr"]),
        helper.make_node("MatMul", ["hr", "head"], ["l"], name="head"),
        helper.make_node("Softmax", ["l"], ["y"]),
    ]
    tensors = [
        stored(rng, "first", 16, 3, 3, 3), stored(rng, "plain", 16, 16, 3, 3), stored(rng, "deep", 16, 1, 3, 3),
        stored(rng, "grouped", 16, 8, 3, 3), stored(rng, "up", 16, 16, 2, 2), stored(rng, "gemm", 32, 16),
        stored(rng, "square", 32, 32), stored(rng, "head", 32, 10),
    ]  # fmt: skip
    if not shared:
        tensors.append(stored(rng, "other", 32, 32))
    graph = helper.make_graph(
        nodes,
        "kinds",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


def numbers(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()
