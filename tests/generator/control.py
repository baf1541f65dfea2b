"""Blocks with inner graphs: branches, loops and scans that read, tie and return values of the outer graph."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from .blocks import block
from .builder import Builder, Size, Tensor
from .layers import activate, convolve, linear


def _info(tensor: Tensor, kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, kind, tensor.shape)


def _branch(b: Builder, x: Tensor, width: int, name: str) -> object:
    """One branch: a layer of its own on a value of the outer graph."""
    inner = b.subgraph()
    y = convolve(inner, x, width) if x.rank == 4 else linear(inner, x, width)
    if inner.chance(0.5) and width == x.shape[-1 if x.rank == 3 else 1]:
        y = inner.op("Add", x, y)
    return inner.graph(name, [], [activate(inner, y)])


def _if(b: Builder, x: Tensor) -> Tensor:
    """A branch on the sign of a number computed from the data; both branches return the same width."""
    width = int(x.shape[1 if x.rank == 4 else 2]) if b.chance(0.5) else b.channels()
    mean = b.reduce("ReduceMean", x, *range(x.rank), keepdims=False)
    deep = b.op("Greater", mean, b.scalar(b.choose([-100.0, 100.0])), shape=[])
    shape = [x.shape[0], width, *x.shape[2:]] if x.rank == 4 else [*x.shape[:2], width]
    branches = {f"{side}_branch": _branch(b, x, width, side) for side in ("then", "else")}
    return b.op("If", deep, shape=shape, **branches)


@block("image")
def branching_image(b: Builder, x: Tensor) -> Tensor:
    """If around convolutions."""
    return _if(b, x)


@block("sequence")
def branching_sequence(b: Builder, x: Tensor) -> Tensor:
    """If around Linear layers."""
    return _if(b, x)


@block("sequence")
def loop(b: Builder, x: Tensor) -> Tensor:
    """A Loop that applies one layer several times; weights are captured or stored in the body."""
    features = int(x.shape[2])
    captured = b.weight(features, features, fan_in=features) if b.chance(0.5) else None
    inner = b.subgraph()
    trip, going, state = Tensor(b.names.new("trip"), ()), Tensor(b.names.new("going"), ()), x
    state = Tensor(b.names.new("state"), x.shape)
    weight = captured or inner.weight(features, features, fan_in=features)
    summed = inner.op("Add", inner.op("MatMul", state, weight), inner.weight(features, hint="bias"))
    new = inner.op("Add", state, inner.op("Tanh", summed))
    still = inner.op("Identity", going)
    body = inner.graph("body", [_info(trip, TensorProto.INT64), _info(going, TensorProto.BOOL), _info(state)], [new])
    body.output.insert(0, _info(still, TensorProto.BOOL))
    collected = b.chance(0.4)
    if collected:
        seen = inner.op("Identity", new)
        body.node.append(inner.nodes[-1])
        body.output.append(_info(seen))
    trips, go = b.store(np.array(2, np.int64)), b.store(np.array(True))
    shapes: list[list[Size]] = [list(x.shape), [2, *x.shape]] if collected else [list(x.shape)]
    results = b.ops("Loop", trips, go, x, shapes=shapes, body=body)
    return b.reduce("ReduceMean", results[1], 0, keepdims=False) if collected else results[0]


@block("sequence")
def scan(b: Builder, x: Tensor) -> Tensor:
    """A recurrent cell as Scan over time, forwards or backwards, from a state of zeros."""
    n, s, features = x.shape
    hidden = b.channels(most=8)
    inner = b.subgraph()
    state, entry = Tensor(b.names.new("state"), (n, hidden)), Tensor(b.names.new("entry"), (n, features))
    outer = b.weight(int(features), hidden, fan_in=int(features)) if b.chance(0.5) else None
    weight = outer or inner.weight(int(features), hidden, fan_in=int(features))
    fed = inner.op("MatMul", entry, weight, shape=[n, hidden])
    back = inner.op("MatMul", state, inner.weight(hidden, hidden, fan_in=hidden))
    new = inner.op("Tanh", inner.op("Add", inner.op("Add", fed, back), inner.weight(hidden, hint="bias")))
    seen = inner.op("Identity", new)
    body = inner.graph("body", [_info(state), _info(entry)], [new, seen])
    target = b.op("Concat", b.size(x, 0), b.integers(hidden), shape=[2], axis=0)
    start = b.op("Expand", b.scalar(0.0), target, shape=[n, hidden])
    options = {"scan_input_directions": [1], "scan_output_directions": [1]} if b.chance(0.3) else {}
    every = b.ops(
        "Scan",
        start,
        b.transpose(x, 1, 0, 2),
        shapes=[[n, hidden], [s, n, hidden]],
        body=body,
        num_scan_inputs=1,
        **options,
    )[1]
    return b.transpose(every, 1, 0, 2)
