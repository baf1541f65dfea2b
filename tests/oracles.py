"""All oracles on one model: those of the product, and others that share no code with it.

The product's own (`gp.verify`) know the analysis. The others look at the two files only: the pruned network must be
valid, run at other sizes too, have the dense interface, and hold nothing but entries of the dense weights; and where
every cut is exact, the dense network with the missing entries zeroed must compute the same. Which entries are missing
is read off the numbers themselves, since random weights do not repeat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir
from onnx import numpy_helper

import graphprune as gp
from tests.execution import difference, feeds, graphs, run

# Sizes that differ from those any network was made with.
OTHER_SIZES = {"batch": 3, "length": 8, "height": 5, "width": 7}
SAME_FUNCTION = 1e-4
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
WEIGHTS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.INT8,
)


@dataclass(frozen=True)
class Checked:
    """What came out: a line per problem, the number of stored numbers removed, and the number of groups found."""

    problems: list[str]
    removed: int
    groups: int


def prune_and_check(
    dense: onnx.ModelProto, *, ratio: float, seed: int, sizes: Mapping[str, int] | None = None, zeros: bool = True
) -> Checked:
    """Prune at random and hold the result against every oracle. `zeros` is off where zero is not absorbed: see
    `zeroed`."""
    model = onnx_ir.from_proto(dense)
    analysis = gp.analyze(model)
    silent = list(unexplained(dense, analysis))
    if not analysis.groups:
        return Checked(silent, 0, 0)
    plan = gp.plan(model, criterion="random", ratio=ratio, seed=seed)
    pruned_model = gp.apply(model, plan)
    pruned = onnx_ir.to_proto(pruned_model)
    problems = silent + [str(check) for check in gp.verify(model, pruned_model, plan, seed=seed).checks if not check.ok]
    exact = {group.name for group in analysis.groups if group.exact}
    reference = zeroed(dense, pruned) if zeros and all(cut.group in exact for cut in plan.groups) else None
    problems += _from_outside(dense, pruned, reference, sizes or {})
    return Checked(problems, _stored(dense) - _stored(pruned), len(analysis.groups))


def _from_outside(
    dense: onnx.ModelProto, pruned: onnx.ModelProto, reference: onnx.ModelProto | None, sizes: Mapping[str, int]
) -> Iterator[str]:
    """Problems that show without knowing what was meant to be cut."""
    try:
        onnx.checker.check_model(pruned, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield f"the pruned model is not valid: {error}"
        return
    yield from strangers(dense, pruned)
    for other in (sizes, OTHER_SIZES):
        inputs = feeds(dense, sizes=other)
        before, after = run(dense, inputs), run(pruned, inputs)
        if [(n, a.shape, a.dtype) for n, a in before.items()] != [(n, a.shape, a.dtype) for n, a in after.items()]:
            yield f"outputs have other names, shapes or types at sizes {dict(other)}"
        for name, array in after.items():
            if np.isfinite(before[name]).all() and not np.isfinite(array).all():
                yield f"output {name} is not finite at sizes {dict(other)}"
        gap = difference(run(reference, inputs), after) if reference is not None else 0.0
        if gap > SAME_FUNCTION:
            yield f"the dense network with zeros differs by {gap:.1e} at sizes {dict(other)}"


def tensors(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Stored weights (floating-point or int8, with axes) by the name of their value: initializers and Constant
    nodes."""
    found: dict[str, onnx.TensorProto] = {}
    for graph in graphs(model):
        found.update((tensor.name, tensor) for tensor in graph.initializer)
        for node in graph.node:
            if node.op_type == "Constant":
                found.update((node.output[0], value.t) for value in node.attribute if value.name == "value")
    return {name: tensor for name, tensor in found.items() if tensor.data_type in WEIGHTS and tensor.dims}


def unexplained(model: onnx.ModelProto, analysis: gp.Analysis) -> Iterator[str]:
    """Input and output axes of stored weights that no group holds and that were refused for no reason."""
    known = {(member.tensor, member.axis) for group in analysis.groups for member in group.members}
    known |= {(refusal.tensor, refusal.axis) for refusal in analysis.refusals}
    stored = tensors(model)
    for node in (node for graph in graphs(model) for node in graph.node if node.op_type in PRODUCTS):
        weight = stored.get(node.input[1])
        for axis, size in enumerate(weight.dims[:2] if weight is not None else []):
            if size > 1 and (node.input[1], axis) not in known:
                yield f"nothing is said about axis {axis} of {node.input[1]}, which {node.op_type} {node.name} reads"


def _stored(model: onnx.ModelProto) -> int:
    """How many weights a model stores."""
    return sum(math.prod(tensor.dims) for tensor in tensors(model).values())


def kept_entries(dense: np.ndarray, pruned: np.ndarray) -> list[np.ndarray] | None:
    """For every axis the positions of `dense` that `pruned` holds, found by value; None where values repeat.

    Raises ValueError where `pruned` is no selection of entries along the axes of `dense`.

    >>> [axis.tolist() for axis in kept_entries(np.arange(6).reshape(2, 3), np.array([[3, 5]]))]
    [[1], [0, 2]]
    """
    order = np.argsort(dense, axis=None, kind="stable")
    values = dense.reshape(-1)[order]
    if np.any(values[1:] == values[:-1]):
        return None
    found = np.searchsorted(values, pruned.reshape(-1)).clip(0, values.size - 1)
    if pruned.ndim != dense.ndim or not np.array_equal(values[found], pruned.reshape(-1)):
        raise ValueError("it holds numbers that the dense tensor does not")
    places = np.unravel_index(order[found], dense.shape)
    kept = []
    for axis in range(dense.ndim):
        along = np.moveaxis(places[axis].reshape(pruned.shape), axis, 0).reshape(pruned.shape[axis], -1)
        if np.any(along != along[:, :1]):
            raise ValueError(f"its entries along axis {axis} come from different positions")
        kept.append(along[:, 0])
    return kept


def strangers(dense: onnx.ModelProto, pruned: onnx.ModelProto) -> Iterator[str]:
    """Weights of the pruned model that are no selection of the dense weight of the same name."""
    before = tensors(dense)
    for name, tensor in tensors(pruned).items():
        if name in before:
            try:
                kept_entries(numpy_helper.to_array(before[name]), numpy_helper.to_array(tensor))
            except ValueError as error:
                yield f"weight {name}: {error}"


def zeroed(dense: onnx.ModelProto, pruned: onnx.ModelProto) -> onnx.ModelProto | None:
    """The dense model with every entry zeroed that the pruned one lacks, or None where numbers cannot tell which.

    Zeros in all weights silence a channel where every reader weighs it. Two activations that are multiplied and summed
    over a channel need not be zero there (sigmoid(0) is not), so such models are not to be judged by this oracle.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(dense)
    after = tensors(pruned)
    for name, tensor in tensors(copy).items():
        if name not in after:
            return None
        array = numpy_helper.to_array(tensor)
        if array.shape == tuple(after[name].dims):
            continue
        kept = kept_entries(array, numpy_helper.to_array(after[name]))
        if kept is None:
            return None
        silent = np.zeros_like(array)
        silent[np.ix_(*kept)] = array[np.ix_(*kept)]
        tensor.CopyFrom(numpy_helper.from_array(silent, tensor.name))
    return copy
