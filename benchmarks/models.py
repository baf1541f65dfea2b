"""Generated ONNX models for benchmarks: the shapes of real networks, random weights by seed, nothing downloaded.

    python benchmarks/models.py FOLDER [NAME ...]      writes chain-100, chain-1000, chain-10000, bert-base, resnet-50,
                                                      mobilenet-v2

The networks are written as exporters write them in inference form: batch normalisation folded into convolutions,
attention decomposed into MatMul, Reshape and Transpose, dynamic sizes computed from Shape.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
_LAYER_NORMALIZATION = 17  # the opset that brought it


class Network:
    """An ONNX graph under construction. Every method adds nodes and returns the name of what they compute."""

    def __init__(self, seed: int = 0, opset: int = OPSET):
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: set[str] = set()
        self._count = 0

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        self._count += 1
        name = f"{op.lower()}_{self._count}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def weight(self, name: str, *shape: int, scale: float | None = None) -> str:
        """A tensor of normal numbers, by default with a variance of one over the number of terms summed over."""
        spread = scale if scale is not None else float(np.sqrt(1 / max(1, int(np.prod(shape[1:])))))
        numbers = self.random.standard_normal(shape, dtype=np.float32) * np.float32(spread)
        self.initializers.append(numpy_helper.from_array(numbers, name))
        return name

    def ones(self, name: str, *shape: int) -> str:
        self.initializers.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
        return name

    def integers(self, *numbers: int) -> str:
        """A stored vector of 64-bit integers; equal ones are stored once, as optimisers do."""
        return self._constant("vector_" + "_".join(map(str, numbers)), np.array(numbers, np.int64))

    def index(self, number: int) -> str:
        return self._constant(f"index_{number}", np.array(number, np.int64))

    def number(self, value: float) -> str:
        return self._constant(f"number_{value}", np.array(value, np.float32))

    def _constant(self, name: str, array: np.ndarray[Any, Any]) -> str:
        if name not in self._constants:
            self._constants.add(name)
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        weight = self.weight(f"{name}.weight", outputs, inputs // groups, kernel, kernel)
        bias = self.weight(f"{name}.bias", outputs, scale=0.01)
        sizes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        if groups > 1:
            sizes["group"] = groups
        return self.node("Conv", x, weight, bias, **sizes)

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """A linear layer over the last axis, as exporters write one for inputs of rank 3: MatMul and Add."""
        product = self.node("MatMul", x, self.weight(f"{name}.weight", inputs, outputs, scale=inputs**-0.5))
        return self.node("Add", self.weight(f"{name}.bias", outputs, scale=0.01), product)

    def norm(self, x: str, name: str, width: int) -> str:
        gain, bias = self.ones(f"{name}.weight", width), self.weight(f"{name}.bias", width, scale=0.01)
        if self.opset < _LAYER_NORMALIZATION:  # as exporters wrote it then
            centred = self.node("Sub", x, self.node("ReduceMean", x, axes=[-1], keepdims=1))
            square = self.node("Pow", centred, self.number(2.0))
            variance = self.node("ReduceMean", square, axes=[-1], keepdims=1)
            deviation = self.node("Sqrt", self.node("Add", variance, self.number(1e-12)))
            return self.node("Add", self.node("Mul", self.node("Div", centred, deviation), gain), bias)
        return self.node("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-12)

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: dict[str, tuple[str, list[int | str]]]
    ) -> onnx.ModelProto:
        """The model; ``outputs`` maps the name of an output to what it shows and its shape."""
        for output, (value, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [output], f"{output}_identity"))
        results = [helper.make_tensor_value_info(k, TensorProto.FLOAT, shape) for k, (_, shape) in outputs.items()]
        graph = helper.make_graph(self.nodes, name, list(inputs), results, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def _image(size: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])


def chain(layers: int, width: int = 8, *, stage: int = 10, seed: int = 0) -> onnx.ModelProto:
    """A residual network of ``layers`` convolutions in blocks of two; a new stage with an unpadded shortcut
    convolution, and with it a new residual width to prune, begins every ``stage`` blocks."""
    network = Network(seed)
    x = network.node("Relu", network.conv("image", "stem", 3, width, 3))
    made, block = 1, 0
    while made < layers:
        inner = network.node("Relu", network.conv(x, f"block{block}.conv1", width, width, 3))
        outer = network.conv(inner, f"block{block}.conv2", width, width, 3)
        made += 2
        if block % stage == stage - 1 and made < layers:
            x = network.conv(x, f"block{block}.shortcut", width, width, 1)
            made += 1
        x = network.node("Relu", network.node("Add", outer, x))
        block += 1
    pooled = network.node("Flatten", network.node("GlobalAveragePool", x), axis=1)
    weight, bias = network.weight("head.weight", 10, width), network.weight("head.bias", 10, scale=0.01)
    logits = network.node("Gemm", pooled, weight, bias, transB=1)
    return network.model(f"chain-{layers}", [_image(32)], {"logits": (logits, ["batch", 10])})


def resnet_50(seed: int = 0) -> onnx.ModelProto:
    """ResNet-50 (He et al. 2015, stride in the 3 x 3 convolution): 53 convolutions, 25.5 million parameters, 4.1
    billion multiply-accumulates per image."""
    network = Network(seed)
    x = network.node("Relu", network.conv("image", "conv1", 3, 64, 7, 2))
    x = network.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = network.node("Relu", network.conv(x, f"{name}.conv1", channels, width, 1))
            y = network.node("Relu", network.conv(y, f"{name}.conv2", width, width, 3, stride))
            y = network.conv(y, f"{name}.conv3", width, 4 * width, 1)
            if block == 0:
                x = network.conv(x, f"{name}.downsample", channels, 4 * width, 1, stride)
            x, channels = network.node("Relu", network.node("Add", y, x)), 4 * width
    pooled = network.node("Flatten", network.node("GlobalAveragePool", x), axis=1)
    weight, bias = network.weight("fc.weight", 1000, channels), network.weight("fc.bias", 1000, scale=0.01)
    logits = network.node("Gemm", pooled, weight, bias, transB=1)
    return network.model("resnet-50", [_image(224)], {"logits": (logits, ["batch", 1000])})


def mobilenet_v2(seed: int = 0) -> onnx.ModelProto:
    """MobileNetV2 (Sandler et al. 2018): 52 convolutions, 17 of them depthwise, 3.5 million parameters, 0.3 billion
    multiply-accumulates per image."""
    network = Network(seed)

    def clipped(x: str) -> str:
        return network.node("Clip", x, network.number(0.0), network.number(6.0))

    x, channels, block = clipped(network.conv("image", "stem", 3, 32, 3, 2)), 32, 0
    for expand, width, repeats, first in _INVERTED:
        for repeat in range(repeats):
            name, stride, wide = f"block{block}", first if repeat == 0 else 1, channels * expand
            y = clipped(network.conv(x, f"{name}.expand", channels, wide, 1)) if expand > 1 else x
            y = clipped(network.conv(y, f"{name}.depthwise", wide, wide, 3, stride, wide))
            y = network.conv(y, f"{name}.project", wide, width, 1)
            x = network.node("Add", y, x) if stride == 1 and channels == width else y
            channels, block = width, block + 1
    x = clipped(network.conv(x, "head", channels, 1280, 1))
    pooled = network.node("Flatten", network.node("GlobalAveragePool", x), axis=1)
    weight, bias = network.weight("fc.weight", 1000, 1280), network.weight("fc.bias", 1000, scale=0.01)
    logits = network.node("Gemm", pooled, weight, bias, transB=1)
    return network.model("mobilenet-v2", [_image(224)], {"logits": (logits, ["batch", 1000])})


_INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Of MobileNetV2: by what a block widens, its width, how many of them, the stride of the first."""


def bert(
    layers: int = 12, width: int = 768, heads: int = 12, vocabulary: int = 30522, seed: int = 0, opset: int = OPSET
) -> onnx.ModelProto:
    """BERT (Devlin et al. 2018), 109 million parameters at the defaults, with dynamic batch and sequence."""
    network = Network(seed, opset)
    shape = network.node("Shape", "input_ids")
    length = network.node("Unsqueeze", network.node("Gather", shape, network.index(1), axis=0), network.integers(0))
    positions = network.node(
        "Range", network.index(0), network.node("Squeeze", length, network.integers(0)), network.index(1)
    )
    x = network.node("Gather", network.weight("embeddings.word", vocabulary, width, scale=0.02), "input_ids")
    kinds = network.node("Gather", network.weight("embeddings.type", 2, width, scale=0.02), "token_type_ids")
    places = network.node("Gather", network.weight("embeddings.position", 512, width, scale=0.02), positions)
    x = network.norm(network.node("Add", network.node("Add", x, kinds), places), "embeddings.norm", width)
    mask = network.node(
        "Cast", network.node("Unsqueeze", "attention_mask", network.integers(1, 2)), to=TensorProto.FLOAT
    )
    mask = network.node("Mul", network.node("Sub", network.number(1.0), mask), network.number(-10000.0))
    for layer in range(layers):
        name = f"layer{layer}"
        x = network.norm(
            network.node("Add", _attention(network, x, mask, f"{name}.attention", width, heads), x),
            f"{name}.norm1",
            width,
        )
        inner = _gelu(network, network.linear(x, f"{name}.intermediate", width, 4 * width))
        x = network.norm(
            network.node("Add", network.linear(inner, f"{name}.output", 4 * width, width), x), f"{name}.norm2", width
        )
    first = network.node("Gather", x, network.index(0), axis=1)
    weight, bias = network.weight("pooler.weight", width, width), network.weight("pooler.bias", width, scale=0.01)
    pooled = network.node("Tanh", network.node("Gemm", first, weight, bias, transB=1))
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "sequence"]) for n in names]
    states: list[int | str] = ["batch", "sequence", width]
    return network.model("bert-base", inputs, {"last_hidden_state": (x, states), "pooled": (pooled, ["batch", width])})


def _attention(network: Network, x: str, mask: str, name: str, width: int, heads: int) -> str:
    query, key, value = (
        _heads(network, network.linear(x, f"{name}.{n}", width, width), width, heads, n == "key")
        for n in ("query", "key", "value")
    )
    scores = network.node("Div", network.node("MatMul", query, key), network.number((width // heads) ** 0.5))
    weights = network.node("Softmax", network.node("Add", scores, mask), axis=-1)
    context = network.node("Transpose", network.node("MatMul", weights, value), perm=[0, 2, 1, 3])
    merged = network.node(
        "Reshape", context, network.node("Concat", *_sizes(network, context), network.integers(width), axis=0)
    )
    return network.linear(merged, f"{name}.output", width, width)


def _heads(network: Network, x: str, width: int, heads: int, transposed: bool) -> str:
    """Batch, sequence and width as batch, head, sequence and width of a head (the last two exchanged for keys)."""
    target = network.node(
        "Concat", *_sizes(network, x), network.integers(heads), network.integers(width // heads), axis=0
    )
    return network.node(
        "Transpose", network.node("Reshape", x, target), perm=[0, 2, 3, 1] if transposed else [0, 2, 1, 3]
    )


def _sizes(network: Network, x: str) -> list[str]:
    """The batch and the sequence of ``x`` as vectors of one entry, the way exporters compute them."""
    found = []
    for place in (0, 1):
        size = network.node("Gather", network.node("Shape", x), network.index(place), axis=0)
        found.append(network.node("Unsqueeze", size, network.integers(0)))
    return found


def _gelu(network: Network, x: str) -> str:
    error = network.node("Erf", network.node("Div", x, network.number(2.0**0.5)))
    return network.node(
        "Mul", network.node("Mul", x, network.node("Add", error, network.number(1.0))), network.number(0.5)
    )


def write_wide(path: Path, layers: int = 8, width: int = 4096, seed: int = 0) -> int:
    """Write a residual perceptron (``width`` to four times that and back, with layer norms) with external data, one
    tensor at a time; the bytes of its weights, 4.4e9 at the defaults. Two files: ``path``, and ``path`` with .data."""
    network = Network(seed)
    data = path.with_name(path.name + ".data")
    with data.open("wb") as stream:

        def weight(name: str, *shape: int) -> str:
            tensor = onnx.TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            amount = int(np.prod(shape)) * 4
            for key, value in (("location", data.name), ("offset", stream.tell()), ("length", amount)):
                tensor.external_data.add(key=key, value=str(value))
            for _ in range(shape[0] if len(shape) > 1 else 1):
                stream.write(network.random.standard_normal(shape[-1], dtype=np.float32) * np.float32(shape[0] ** -0.5))
            network.initializers.append(tensor)
            return name

        x = network.node("Identity", "x")
        for layer in range(layers):
            normed = network.norm(x, f"layer{layer}.norm", width)
            up = network.node("MatMul", normed, weight(f"layer{layer}.up", width, 4 * width))
            up = network.node("Relu", network.node("Add", up, weight(f"layer{layer}.bias", 4 * width)))
            x = network.node("Add", network.node("MatMul", up, weight(f"layer{layer}.down", 4 * width, width)), x)
        x = network.node("MatMul", x, weight("head", width, width))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])]
    path.write_bytes(network.model("wide", inputs, {"y": (x, ["batch", width])}).SerializeToString())
    return data.stat().st_size


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "chain-100": lambda: chain(100),
    "chain-1000": lambda: chain(1000),
    "chain-10000": lambda: chain(10000),
    "bert-base": bert,
    "resnet-50": resnet_50,
    "mobilenet-v2": mobilenet_v2,
}


def write(name: str, folder: Path) -> Path:
    """Write one of :data:`MODELS` into a folder; the path of its file."""
    path = folder / f"{name}.onnx"
    path.write_bytes(MODELS[name]().SerializeToString())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Write generated models.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; all without one")
    given = parser.parse_args()
    if unknown := set(given.names) - set(MODELS):
        parser.error(f"there is no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.names or MODELS:
        print(write(name, given.folder))


if __name__ == "__main__":
    main()
