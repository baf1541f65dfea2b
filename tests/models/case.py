"""How a hard case is written down: a model as ONNX text, and the couplings that must be found in it.

May import onnx and numpy. Must never import graphprune: what is expected here is worked out by hand from the
dimension algebra, not read off the program under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper, parser

IR_VERSION = 10


@dataclass(frozen=True)
class Coupling:
    """One group that the analysis must find: `size` entries, each of which lives or dies in all `members` at once.

    A member is (stored tensor, axis). The axis may hold the dimension as a factor or as a part (the heads of a fused
    qkv weight appear in axis 1 three times, and are listed once).
    """

    size: int
    kind: str
    members: frozenset[tuple[str, int]]
    exact: bool = True


@dataclass(frozen=True)
class Case:
    """A model builder with every coupling of the model: what is not listed must be pinned."""

    name: str
    build: Callable[[], onnx.ModelProto]
    couplings: tuple[Coupling, ...]


CASES: dict[str, Case] = {}


def case(*couplings: Coupling) -> Callable[[Callable[[], onnx.ModelProto]], Callable[[], onnx.ModelProto]]:
    """Register a builder under its own name with all the couplings of its model."""

    def register(build: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
        if build.__name__ in CASES:
            raise ValueError(f"two cases are called {build.__name__!r}")
        CASES[build.__name__] = Case(build.__name__, build, couplings)
        return build

    return register


def members(places: str) -> frozenset[tuple[str, int]]:
    """Read members: 'conv.weight:0 conv.bias:0' --> {('conv.weight', 0), ('conv.bias', 0)}."""
    pairs = [place.rsplit(":", 1) for place in places.split()]
    return frozenset((tensor, int(axis)) for tensor, axis in pairs)


def channel(size: int, places: str, *, exact: bool = True) -> Coupling:
    """A coupling of plain channels (features, units of a hidden state)."""
    return Coupling(size, "channel", members(places), exact)


def head(size: int, places: str) -> Coupling:
    """A coupling of attention heads."""
    return Coupling(size, "head", members(places))


def head_width(size: int, places: str, *, exact: bool = True) -> Coupling:
    """A coupling of the features inside each attention head."""
    return Coupling(size, "head width", members(places), exact)


def seeded(text: str, *, opset: int = 18, seed: int = 0, **constants: np.ndarray) -> onnx.ModelProto:
    """Parse a graph in ONNX text syntax; every tensor that is declared but not given becomes a seeded random weight.

    before: graph (float[2, 3] x) => (float[2, 4] y) <float[3, 4] weight> { y = MatMul(x, weight) }
    after:  a model whose initializer `weight` holds random numbers scaled by the fan-in

    `constants` are tensors too long to spell out in the text; they are declared there too, by the same name.
    """
    imports = f'["" : {opset}, "local" : 1]' if '<domain: "local"' in text else f'["" : {opset}]'
    model = parser.parse_model(f"<ir_version: {IR_VERSION}, opset_import: {imports}>\n{text}")
    _fill(model.graph, np.random.default_rng(seed), constants)
    return model


def _fill(graph: onnx.GraphProto, generator: np.random.Generator, constants: dict[str, np.ndarray]) -> None:
    """Turn the declared tensors of a graph and of its subgraphs into initializers."""
    for declared in graph.value_info:
        name = declared.name
        shape = [dimension.dim_value for dimension in declared.type.tensor_type.shape.dim]
        array = constants[name] if name in constants else weight(name, shape, generator)
        if list(array.shape) != shape:
            raise ValueError(f"{name} is declared as {shape} and given as {list(array.shape)}")
        graph.initializer.append(numpy_helper.from_array(array, name))
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _fill(attribute.g, generator, constants)


def weight(name: str, shape: list[int], generator: np.random.Generator) -> np.ndarray:
    """Random float32 numbers that keep activations near unit scale; factors (scale, variance) stay well above zero."""
    if name.endswith(("scale", "variance")):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    if sum(size > 1 for size in shape) < 2:
        return (0.2 * generator.standard_normal(shape)).astype(np.float32)
    fan_in = math.prod(shape[1:]) if len(shape) == 4 else max(shape)
    return (generator.standard_normal(shape) / math.sqrt(fan_in)).astype(np.float32)
