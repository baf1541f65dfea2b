"""A network of one size: the ONNX graph with every shape known, every constant folded, and norms found again.

Sizes that the file leaves open come from the caller; after that all that is computed from shapes is constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.dialects.onnx.runner import has_onnxruntime
from graphprune.errors import GraphPruneError
from graphprune.targets.expand import expand, one_axis
from graphprune.targets.expand.stored import move_as_stored
from graphprune.targets.network.alone import captured
from graphprune.targets.network.inference import infer
from graphprune.targets.network.quantised import quantised

# Rewrites of onnxscript: a norm with constant statistics goes into the convolution before it, a Pad into the next.
FUSED = (
    "fuse_batchnorm_into_conv_rule",
    "fuse_batchnorm_into_conv_transpose_rule",
    "fuse_batchnorm_into_gemm_rule",
    "fuse_pad_into_conv_rule",
)

RESHAPES = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}


@dataclass(eq=False)
class Value:
    """A tensor of the graph; `constant` where its numbers are known."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: np.ndarray | None = None
    users: list[Node] = field(default_factory=list, repr=False)
    maker: Node | None = field(default=None, repr=False)


@dataclass(eq=False)
class Node:
    """An operator; an input left out is None. What graphs inside of it read from around them are inputs too, the last
    ones. `source` is the node as ONNX knows it, for the fallback."""

    op: str
    inputs: list[Value | None]
    outputs: list[Value]
    attributes: dict[str, Any]
    name: str
    source: ir.Node = field(repr=False)


@dataclass
class Graph:
    """A network with the shapes of all values known."""

    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value]
    opset: int


def read(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> Graph:
    """The graph at these input shapes (an input left out keeps its own; an open first axis is a batch of one).

    Raises GraphPruneError GP811 where a size stays unknown, GP103 where the model cannot be prepared.
    """
    try:
        prepared = prepare(model, shapes)
    except ir.passes.PassError as error:
        first = str(innermost(error)).split("\n")[0]
        raise GraphPruneError("GP103", f"the sizes and constants of it cannot be computed: {first}") from error
    graph = prepared.graph
    values: dict[ir.Value, Value] = {}

    def value(source: ir.Value) -> Value:
        if source not in values:
            constant = None if source.const_value is None else source.const_value.numpy()
            shape = sizes(source) if constant is None else constant.shape
            dtype = constant.dtype.name if constant is not None else numpy_name(source)
            values[source] = Value(source.name or "", shape, dtype, constant)
        return values[source]

    nodes = []
    for source in graph:
        node = Node(
            source.op_type if source.domain in {"", "ai.onnx"} else f"{source.domain}:{source.op_type}",
            [None if entry is None else value(entry) for entry in (*source.inputs, *captured(source))],
            [value(entry) for entry in source.outputs],
            {name: attribute.value for name, attribute in source.attributes.items()},
            source.name or source.op_type,
            source,
        )
        for entry in node.inputs:
            if entry is not None:
                entry.users.append(node)
        for entry in node.outputs:
            entry.maker = node
        nodes.append(node)
        stored = quantised(node.outputs[0])
        if stored is not None and stored.stored.constant is not None:  # rules find what is stored, or the numbers
            node.outputs[0].constant = stored.numbers()
        given = node.inputs[0] if node.inputs else None
        if node.op in RESHAPES and given is not None and given.constant is not None:
            node.outputs[0].constant = given.constant.reshape(node.outputs[0].shape)
    inputs = [value(entry) for entry in graph.inputs if entry.const_value is None]
    return Graph(nodes, inputs, [value(entry) for entry in graph.outputs], graph.opset_imports.get("", 1))


def innermost(error: BaseException) -> BaseException:
    """The error that was the first cause of this one."""
    return innermost(error.__cause__) if error.__cause__ is not None else error


def prepare(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> ir.Model:
    """A copy with these input shapes, folded, expanded, without functions and identities, in topological order."""
    from onnxscript import rewriter
    from onnxscript.rewriter.rules import common

    prepared = resized(model, shapes)
    names = [entry.name for entry in prepared.graph.inputs]
    infer(prepared)
    folded(prepared)
    rewriter.rewrite(prepared, [getattr(common, name) for name in FUSED])
    folded(prepared)
    ir.passes.common.ShapeInferencePass()(prepared)
    if expand(prepared):
        ir.passes.common.ShapeInferencePass()(prepared)
        one_axis.before(prepared.graph)
    move_as_stored(prepared.graph)
    prepared.graph.sort()
    for given, name in zip(prepared.graph.inputs, names, strict=True):
        given.name = name  # the optimizer calls an input that is an output too by another name
    return prepared


def folded(model: ir.Model) -> None:
    """What follows from constants and known shapes, in place. ConstantOfShape as well, which onnxscript leaves alone so
    that files stay small: sizes are computed with it."""
    from onnxscript import optimizer

    def fold(node: ir.Node) -> bool | None:
        return True if node.op_type == "ConstantOfShape" else None

    optimizer.optimize_ir(model, input_size_limit=1 << 20, output_size_limit=1 << 24, should_fold=fold)


def resized(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> ir.Model:
    """A copy whose inputs have these shapes, and in which no other size is known."""
    copy = model.clone()
    for entry in [entry for entry in copy.graph.inputs if entry.const_value is not None]:
        copy.graph.inputs.remove(entry)  # up to IR version 3 a constant is an input too
    given = {entry.name: entry for entry in copy.graph.inputs}
    for name in shapes:
        if name not in given:
            raise GraphPruneError(
                "GP811", f"there is no input {name!r}", "shapes", f"the inputs are {', '.join(map(str, given))}"
            )
    for entry in copy.graph.inputs:
        if entry.const_value is None:
            entry.shape = ir.Shape(fixed(entry, shapes.get(entry.name or "")))
    for node in copy.graph:
        for entry in node.outputs:
            if entry not in copy.graph.outputs:
                entry.shape = None  # sizes that were inferred for open shapes
    for entry in copy.graph.outputs:
        if entry.producer() is not None:  # an output may be an input
            entry.shape = None
    return copy


def fixed(entry: ir.Value, shape: Sequence[int] | None) -> list[int]:
    """The sizes of an input: those given, else its own, where an open first axis is one."""
    own = (
        None if entry.shape is None else [size if isinstance(size, int) and size > 0 else None for size in entry.shape]
    )
    if shape is not None:
        if own is not None and (
            len(own) != len(shape) or any(a is not None and a != b for a, b in zip(own, shape, strict=True))
        ):
            raise GraphPruneError(
                "GP811",
                f"input {entry.name!r} has shape {entry.shape}, not {list(shape)}",
                "shapes",
                "give one that fits",
            )
        return [int(size) for size in shape]
    if own is None:
        raise GraphPruneError(
            "GP811", f"input {entry.name!r} has no shape", "shapes", f"say which: {entry.name}=1,3,224,224"
        )
    sizes = [size or 0 for size in own]
    if sizes and sizes[0] < 1:
        sizes[0] = 1
    if any(size < 1 for size in sizes):
        raise GraphPruneError(
            "GP811", f"input {entry.name!r} has open sizes: {entry.shape}", "shapes", f"say which: {entry.name}=1,..."
        )
    return sizes


def sizes(source: ir.Value) -> tuple[int, ...]:
    """Raises GraphPruneError GP811 where they are not known."""
    maker = source.producer()
    by = "an input" if maker is None else f"{maker.domain}:{maker.op_type}".removeprefix(":")
    if source.shape is None or source.dtype is None:
        remedy = "build the part of the network before it, or write it with operators of ONNX"
        if not has_onnxruntime():
            remedy = "pip install onnxruntime, which knows more operators"
        raise GraphPruneError("GP811", f"nothing tells the size and type of {source.name!r} ({by})", "build", remedy)
    if any(not isinstance(size, int) for size in source.shape):
        raise GraphPruneError(
            "GP811",
            f"the size of {source.name!r} ({by}) depends on the data: {source.shape}",
            "build",
            "a build has one size for everything; build the part of the network before it",
        )
    return tuple(int(size) for size in source.shape)  # type: ignore[arg-type]


def numpy_name(source: ir.Value) -> str:
    """The element type as numpy calls it."""
    assert source.dtype is not None
    return source.dtype.numpy().name
