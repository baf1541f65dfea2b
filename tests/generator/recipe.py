"""From a seed to a recipe, from a recipe to a network, and from a failing recipe to the shortest one that fails."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper

from . import awkward, computed, control, image, sequence  # noqa: F401  # importing them registers their blocks
from .blocks import BLOCKS
from .builder import At, Builder, Names, Size, Tensor
from .layers import convolve, layer_norm, linear

# The oldest opset with sizes of Split and Squeeze as inputs, and the newest one that onnxruntime 1.31 runs.
OPSETS = tuple(range(13, 27))
STARTS = ("image", "sequence", "tokens")
VOCABULARY = 9
PATTERNS = ("{hint}_{count}", "/block.{count}/{hint}_output_0", "{count}", "onnx::{hint}_{count}")


@dataclass(frozen=True)
class Recipe:
    """All there is to know about a generated network.

    `dynamic` holds "batch" and "places" (height, width, length) where these are only known at run time; every block
    comes with a seed of its own, so that leaving one out does not change the others.
    """

    seed: int
    opset: int
    start: str
    dynamic: tuple[str, ...]
    blocks: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        blocks = " ".join(f"{name}({seed})" for name, seed in self.blocks)
        return (
            f"seed {self.seed}, opset {self.opset}, {self.start}, dynamic {'+'.join(self.dynamic) or 'none'}: {blocks}"
        )


def recipe(seed: int, size: int = 6) -> Recipe:
    """A recipe of 1 to `size` blocks; the same seed gives the same recipe."""
    generator = np.random.default_rng([seed, 1])
    names = sorted(BLOCKS)
    count = int(generator.integers(1, size + 1))
    blocks = tuple((names[int(generator.integers(len(names)))], int(generator.integers(2**31))) for _ in range(count))
    dynamic = tuple(name for name in ("batch", "places") if generator.random() < 0.4)
    opset, start = OPSETS[int(generator.integers(len(OPSETS)))], STARTS[int(generator.integers(len(STARTS)))]
    return Recipe(int(generator.integers(2**31)), opset, start, dynamic, blocks)


def network(seed: int, size: int = 6) -> onnx.ModelProto:
    """A random network of 1 to `size` blocks; the same seed gives the same bytes."""
    return build(recipe(seed, size))


def build(plan: Recipe) -> onnx.ModelProto:
    """The network of a recipe: an input, the blocks with bridges between their worlds, an output or two."""
    generator = np.random.default_rng([plan.seed, zlib.crc32(b"frame")])
    b = Builder(plan.opset, generator, Names(PATTERNS[int(generator.integers(len(PATTERNS)))]))
    given, x = _start(b, plan)
    outputs: list[Tensor] = []
    for name, seed in plan.blocks:
        b.generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        x = BLOCKS[name].build(b, _bridge(b, x, BLOCKS[name].world))
        if b.chance(0.05):
            outputs.append(x)
    b.generator = generator
    outputs.append(_finish(b, x))
    renamed = [b.op("Identity", output) if output.name == given.name else output for output in outputs]
    infos = [_open_info(output) for output in dict.fromkeys(renamed)]
    graph = helper.make_graph(b.nodes, "network", [given], infos, b.initializers)
    version = 8 if plan.opset < 19 else 10 if plan.opset < 23 else 11
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", plan.opset)], ir_version=version, producer_name="generator"
    )


def _start(b: Builder, plan: Recipe) -> tuple[ValueInfoProto, Tensor]:
    """The input of the network and the first value."""
    batch: Size = "batch" if "batch" in plan.dynamic else 2
    free = "places" in plan.dynamic
    if plan.start == "image":
        shape: list[Size] = [batch, 3, "height" if free else 4, "width" if free else b.choose([4, 6])]
        kind = TensorProto.FLOAT
    else:
        shape = [batch, "length" if free else 5]
        kind = TensorProto.INT64 if plan.start == "tokens" else TensorProto.FLOAT
        shape += [] if plan.start == "tokens" else [7]
    given = helper.make_tensor_value_info("input", kind, shape)
    x = Tensor("input", tuple(shape))
    if plan.start == "image":
        return given, convolve(b, x, b.channels(), kernel=3)
    if plan.start == "sequence":
        return given, linear(b, x, b.channels())
    features = b.channels()
    table = b.weight(VOCABULARY, features, fan_in=1, hint="embedding")
    return given, layer_norm(b, b.op("Gather", table, x, shape=[*shape, features], axis=0))


def _bridge(b: Builder, x: Tensor, world: str) -> Tensor:
    """Bring a value into the other world: places become tokens, tokens become places."""
    if world == "sequence" and x.rank == 4:
        channels, (height, width) = int(x.shape[1]), x.shape[2:]
        known = isinstance(height, int) and isinstance(width, int)
        length: Size = height * width if known else "length"  # type: ignore[operator]
        if b.chance(0.5):
            flat = b.reshape(x, At(0), channels, -1, shape=[x.shape[0], channels, length])
            return b.transpose(flat, 0, 2, 1)
        last = b.transpose(x, 0, 2, 3, 1)
        return b.reshape(last, At(0), -1, channels, shape=[x.shape[0], length, channels])
    if world == "image" and x.rank == 3:
        n, length, channels = x.shape
        columns = b.transpose(x, 0, 2, 1)
        if isinstance(length, int) and length % 2 == 0 and b.chance(0.5):
            return b.reshape(columns, At(0), int(channels), 2, length // 2)
        return b.op("Unsqueeze", columns, b.integers(2), shape=[n, channels, 1, length])
    return x


def _finish(b: Builder, x: Tensor) -> Tensor:
    """The last value as it is, per place, or pooled; mostly through a layer that leaves its channels free."""
    if b.chance(0.1):
        return x
    width = b.choose([2, 3, 5])
    if b.chance(0.5):
        return convolve(b, x, width) if x.rank == 4 else linear(b, x, width)
    if x.rank == 3:
        return linear(b, b.reduce("ReduceMean", x, 1, keepdims=False), width)
    pooled = b.op("GlobalAveragePool", x, shape=[*x.shape[:2], 1, 1])
    return linear(b, b.op("Flatten", pooled, shape=x.shape[:2]), width)


def _open_info(output: Tensor) -> ValueInfoProto:
    """Declare an output; a size that has no name of the caller's own is left open."""
    named = {"batch", "height", "width", "length"}
    shape = [size if isinstance(size, int) or size in named else None for size in output.shape]
    return helper.make_tensor_value_info(output.name, TensorProto.FLOAT, shape)


def shrink(plan: Recipe, fails: Callable[[Recipe], bool]) -> Recipe:
    """The smallest recipe on the way down from a failing one: fewer blocks, static sizes, a common opset."""
    progress = True
    while progress:
        progress = False
        for place in range(len(plan.blocks)):
            shorter = replace(plan, blocks=plan.blocks[:place] + plan.blocks[place + 1 :])
            if fails(shorter):
                plan, progress = shorter, True
                break
    for name in plan.dynamic:
        candidate = replace(plan, dynamic=tuple(other for other in plan.dynamic if other != name))
        plan = candidate if fails(candidate) else plan
    for opset in (18, 21, 23):
        candidate = replace(plan, opset=opset)
        if fails(candidate):
            return candidate
    return plan
