"""What ATen operators make of channels that are constant: entry-wise operators compute, others hand on; and how dead
channels are silenced. See :mod:`graphprune.dead`."""

from __future__ import annotations

import numpy as np
import torch

from graphprune.analysis import Analysis
from graphprune.dialects.aten.capture import Captured
from graphprune.dialects.aten.elementwise import BROADCAST, DROPOUT, UNARY
from graphprune.dialects.aten.places import operand
from graphprune.dims import Keep, is_cut
from graphprune.kept import indices, whole_size
from graphprune.program import Array, Node

# Their results depend on more than the entries of their operands, or on where they are.
_OTHER = "complex copy empty_like expand_as fill full_like ones_like type_as zero zeros_like"
COMPUTES = frozenset(f"{UNARY} {BROADCAST} prelu".split()) - frozenset(_OTHER.split())
_MOVES = f"""{DROPOUT} adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d amax amin cat
chunk concat concatenate expand flatten getitem max_pool1d max_pool2d max_pool3d mean narrow permute pixel_shuffle
reshape select slice split split_with_sizes squeeze stack t transpose unflatten unsqueeze view expand_as"""
MOVES = frozenset(_MOVES.split())
# These mix entries of a channel with zeros, or weigh them: only zero stays what it is.
_KEEPS_ZERO = """avg_pool1d avg_pool2d avg_pool3d constant_pad_nd pad sum upsample_bilinear2d upsample_nearest1d
upsample_nearest2d upsample_nearest3d upsample_bicubic2d upsample_linear1d upsample_trilinear3d"""
KEEPS_ZERO = frozenset(_KEEPS_ZERO.split())
_AFFINE = """addmm bmm conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution einsum linear
matmul mm"""
AFFINE = frozenset(_AFFINE.split())


def is_affine(node: Node) -> bool:
    """Whether an output entry whose weights are all zero is the bias as it is stored."""
    scaled = any(node.attributes.get(factor, 1) != 1 for factor in ("alpha", "beta"))
    return _name(node) in AFFINE and node.op.startswith("aten.") and not scaled


def on_channels(node: Node, vectors: list[Array | None]) -> Array | None:
    """The constants of the output for one dimension, not a number where unknown; ``None`` where nothing is known.

    ``vectors`` holds, per operand, its constant at each entry of the dimension; ``None`` for an operand that does not
    have the dimension.
    """
    given = [vector for vector in vectors if vector is not None]
    name = _name(node)
    if not given or not node.op.startswith("aten."):
        return None
    if name in MOVES:
        return _agreed(given)
    if name in KEEPS_ZERO:
        pads = not node.attributes.get("value") and node.attributes.get("mode", "constant") == "constant"
        return np.where(given[0] == 0, 0.0, np.nan) if "pad" not in name or pads else None
    if name == "batch_norm" and not node.attributes.get("training") and len(given) == len(node.inputs):
        return _computed(node, vectors)
    return _computed(node, vectors) if name in COMPUTES else None


def _name(node: Node) -> str:
    return node.op.removeprefix("aten.").split(".")[0].removesuffix("_")


def _agreed(given: list[Array]) -> Array:
    """The same channels laid end to end twice: constant only where all agree."""
    first: Array = given[0].copy()
    for other in given[1:]:
        first[~(first == other)] = np.nan
    return first


def _computed(node: Node, vectors: list[Array | None]) -> Array | None:
    size = next(vector.size for vector in vectors if vector is not None)
    operands = [np.full(size, np.nan) if vector is None else vector for vector in vectors]
    unknown = np.isnan(operands).any(axis=0)
    result = np.full(size, np.nan)
    known = np.flatnonzero(~unknown)
    if known.size:
        found = _evaluated(node, [vector[known] for vector in operands])
        if found is None:
            return None
        result[known] = found
    if _name(node) in {"mul", "multiply"}:
        result[np.any([vector == 0 for vector in operands], axis=0)] = 0.0
    return result


def _evaluated(node: Node, operands: list[Array]) -> Array | None:
    """Run one call on vectors in place of its operands."""
    call = node.native
    known = {}
    for index, (value, vector) in enumerate(zip(node.inputs, operands, strict=True)):
        if value is None or not isinstance(value.native[1], torch.Tensor):
            return None
        known[operand(call, node, index)] = torch.as_tensor(vector).to(value.native[1].dtype)
    first = next(iter(known))
    if _name(node) == "batch_norm":
        known[first] = known[first][None]
    with torch.no_grad():
        try:
            args, kwargs = torch.fx.map_arg((call.args, call.kwargs), lambda each: known[each])
            found = call.target(*args, **{name: each for name, each in kwargs.items() if name != "device"})
        except (KeyError, RuntimeError, TypeError):
            return None  # it takes more than tensors, or does not run on the processor: nothing is known of it then
    array: Array = found.reshape(-1).double().numpy()
    return array if array.shape == operands[0].shape else None


def zeroed(analysis: Analysis, keep: Keep) -> Captured:
    """A copy of the captured model whose stored tensors are zero wherever ``keep`` removes them."""
    captured: Captured = analysis.program.native
    graph, _ = captured.twin()
    for stored, _, _, axes in analysis.stored_axes():
        for place, axis in enumerate(axes):
            if not is_cut(axis, keep):
                continue
            gone = torch.ones(whole_size(axis), dtype=torch.bool)
            gone[torch.as_tensor(indices(axis, keep))] = False
            for name in stored.native:
                _silence(graph, name, place, gone)
    return captured.with_graph(graph)


def _silence(graph: torch.nn.Module, name: str, axis: int, gone: torch.Tensor) -> None:
    path, _, last = name.rpartition(".")
    owner = graph.get_submodule(path)
    tensor = getattr(owner, last).detach()
    shape = [-1 if k == axis else 1 for k in range(tensor.dim())]
    silent = tensor.masked_fill(gone.to(tensor.device).view(shape), 0)
    setattr(owner, last, torch.nn.Parameter(silent, False) if last in owner._parameters else silent)
