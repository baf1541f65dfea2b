"""Small trained-looking networks to recover, and data for them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper


def stored(rng: np.random.Generator, name: str, *shape: int, scale: float = 0.0) -> onnx.TensorProto:
    size = np.prod(shape[1:]) if len(shape) > 1 else 1
    return numpy_helper.from_array((rng.standard_normal(shape) * (scale or 1 / np.sqrt(size))).astype(np.float32), name)


def residual(biases: bool = True) -> ir.Model:
    """Two residual blocks of convolutions; the second of each block is followed by the sum."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Conv", ["x", "stem"], ["s0"], name="stem", pads=[1, 1, 1, 1])]
    tensors = [stored(rng, "stem", 6, 3, 3, 3)]
    for block in (0, 1):
        first, second = f"a{block}", f"b{block}"
        tensors += [stored(rng, first, 12, 6, 3, 3), stored(rng, second, 6, 12, 3, 3)]
        extra = [[f"{name}.bias"] if biases else [] for name in (first, second)]
        if biases:
            tensors += [stored(rng, f"{first}.bias", 12, scale=0.3), stored(rng, f"{second}.bias", 6, scale=0.3)]
        nodes += [
            helper.make_node("Conv", [f"s{block}", first, *extra[0]], [f"h{block}"], name=first, pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"h{block}"], [f"r{block}"]),
            helper.make_node("Conv", [f"r{block}", second, *extra[1]], [f"y{block}"], name=second, pads=[1, 1, 1, 1]),
            helper.make_node("Add", [f"y{block}", f"s{block}"], [f"s{block + 1}"]),
        ]
    tensors.append(stored(rng, "head", 6, 4))
    nodes += [
        helper.make_node("Relu", ["s2"], ["t"]),
        helper.make_node("GlobalAveragePool", ["t"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["y"], name="head"),
    ]
    return model(nodes, tensors, ("n", 3, 8, 8))


def normalised() -> ir.Model:
    """A convolution without bias, a BatchNorm whose statistics are wrong for the data, and a linear layer."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="conv"),
        helper.make_node("BatchNormalization", ["h", "scale", "shift", "mean", "var"], ["b"], name="norm"),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], name="last"),
    ]
    tensors = [
        stored(rng, "w", 8, 3, 3, 3),
        numpy_helper.from_array(rng.uniform(0.5, 2, 8).astype(np.float32), "scale"),
        stored(rng, "shift", 8),
        stored(rng, "mean", 8),
        numpy_helper.from_array(rng.uniform(0.5, 2, 8).astype(np.float32), "var"),
        stored(rng, "v", 4, 8, 1, 1),
    ]
    return model(nodes, tensors, ("n", 3, 8, 8))


def model(nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], shape: tuple[int | str, ...]) -> ir.Model:
    """A model from `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


def data(batches: int = 6, size: int = 16, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Images with structure: neighbours and channels are correlated."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((3, 3))
    found = []
    for _ in range(batches):
        noise = rng.standard_normal((size, 3, 10, 10))
        smooth = (noise[:, :, 1:-1, 1:-1] + noise[:, :, :-2, 1:-1] + noise[:, :, 1:-1, 2:]) / 2
        found.append({"x": np.einsum("oc,nchw->nohw", mix, smooth).astype(np.float32)})
    return found
