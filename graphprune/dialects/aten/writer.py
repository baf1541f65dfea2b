"""Writes the pruned graph: parameters gathered, numbers in calls replaced. The graph that was read is not changed, and
tensors that are not cut are shared with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from graphprune.analysis import Analysis
from graphprune.cuts import Cuts
from graphprune.dialects.aten.capture import Captured
from graphprune.dialects.aten.gather import gathered
from graphprune.dialects.aten.inline import graphs_of, lift_tensors, owner_of
from graphprune.dialects.aten.places import replace_operand, set_argument
from graphprune.dialects.aten.structure import split_axis
from graphprune.dims import Axis, Keep, is_cut
from graphprune.garbage import no_collection
from graphprune.kept import evaluated, indices, whole_size, width
from graphprune.program import Array, Node, Use


@no_collection()
def write(analysis: Analysis, keep: Keep) -> Captured:
    """A copy of the captured model in which every dimension of ``keep`` has only the kept entries, in their order."""
    captured: Captured = analysis.program.native
    graph, twins = captured.twin()
    write_numbers(analysis, keep, twins)
    cut_tensors(graph, analysis, _places(analysis, keep))
    _declare_shapes(analysis, keep, twins)
    lift_tensors(graph)  # positions that bodies were given
    _recompile(graph)
    return captured.with_graph(graph)


def out_of_step(analysis: Analysis, keep: Keep, right: Captured, most: int = 8) -> Iterator[Captured]:
    """Deliberately wrong copies of what `write` made: one weight each is again what it was, the weights nearest to the
    outputs first. What compares models must find these wrong."""
    dense: Captured = analysis.program.native
    cut = [
        stored
        for stored, _, _, axes in analysis.stored_axes()
        if len(stored.shape) > 1 and any(is_cut(axis, keep) for axis in axes)
    ]
    for stored in list(dict.fromkeys(cut))[::-1][:most]:
        graph, _ = right.twin()
        for name in stored.native:
            put(graph, name, _stored(dense.graph, stored.name))
        yield right.with_graph(graph)


def _declare_shapes(analysis: Analysis, keep: Keep, twins: Mapping[FxNode, FxNode]) -> None:
    """The shapes that values were traced with become those after the cut, so that the graph can be read again."""
    known: dict[Any, torch.Tensor] = {}
    for value, typed in analysis.trace.types.items():
        twin = None if value.stored is not None or not value.native else twins.get(value.native[0])
        if twin is None or typed.axes is None or not any(_is_shorter(axis, keep) for axis in typed.axes):
            continue
        meta = value.native[1]
        shape: list[Any] = [
            width(axis, keep) if is_cut(axis, keep) else meta.shape[k] for k, axis in enumerate(typed.axes)
        ]
        if len(shape) != meta.dim() or not all(isinstance(size, int | torch.SymInt) for size in shape):
            continue  # a product with a size that only the run knows
        new: Any = _without_numbers(meta, shape, known)
        old = twin.meta["val"]
        if isinstance(old, tuple | list):
            place = int(value.name.rpartition(".")[2])
            new = [*old[:place], new, *old[place + 1 :]]
        twin.meta["val"] = new


def _without_numbers(meta: Any, shape: list[Any], known: dict[Any, torch.Tensor]) -> torch.Tensor:
    """A tensor like one that was traced, of another shape; `new_empty` would take four times as long. One for all that
    are alike, which are ``known``: the sums behind the strides of open axes take their time."""
    mode = meta.fake_mode if isinstance(meta, FakeTensor) else None
    like = (*(size if isinstance(size, int) else str(size) for size in shape), meta.dtype, meta.device, mode)
    if like not in known:
        made = torch.empty(shape, dtype=meta.dtype, device="meta")
        known[like] = made if mode is None else FakeTensor(mode, made, meta.device)
    return known[like]


def _is_shorter(axis: Axis, keep: Keep) -> bool:
    """Whether a cut leaves another number of entries; the order may change without that."""
    return is_cut(axis, keep) and width(axis, keep) != axis.size


def _recompile(graph: GraphModule) -> None:
    for each in graphs_of(graph):
        each.recompile()


def _places(analysis: Analysis, keep: Keep) -> dict[str, dict[int, Array]]:
    """The positions of each stored tensor that are kept, in their new order, for the axes that a keep-set touches."""
    found: dict[str, dict[int, Array]] = {}
    for stored, _, _, axes in analysis.stored_axes():
        cut = {place: indices(axis, keep) for place, axis in enumerate(axes) if is_cut(axis, keep)}
        if cut:
            found[stored.name] = cut
    return found


def cut_tensors(graph: torch.nn.Module, analysis: Analysis, cuts: Cuts) -> None:
    """Gather the survivors of every tensor, under all the names it has."""
    for stored in analysis.program.stored:
        if stored.name not in cuts:
            continue
        old = _stored(graph, stored.name)
        new = gathered(old, cuts[stored.name])
        made = torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new
        for name in stored.native:
            put(graph, name, made)


def _stored(module: torch.nn.Module, name: str) -> Any:
    path, _, last = name.rpartition(".")
    return getattr(module.get_submodule(path), last)


def put(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Put a tensor in the place of another: a parameter, a buffer or a plain attribute."""
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    if last in owner._parameters:
        owner._parameters[last] = tensor  # type: ignore[assignment]  # a Parameter, made by the caller
    elif last in owner._buffers:
        owner._buffers[last] = tensor
    else:
        setattr(owner, last, tensor)


def write_numbers(analysis: Analysis, keep: Keep, twins: dict[FxNode, FxNode]) -> None:
    """Put what every number is after the cut where it stands: an argument of a call, or an entry of a stored tensor."""
    calls: dict[Node, dict[str, dict[int | None, int]]] = {}
    for slot, size in analysis.bindings.items():
        number = evaluated(size, keep)
        if isinstance(slot.key, str):
            calls.setdefault(slot.node, {}).setdefault(slot.key, {})[slot.index] = number
    for node, changed in calls.items():
        if "split_sizes" in changed and "split_sizes" not in node.attributes:
            _write_out_split(analysis, keep, node, twins[node.native])
            continue
        for name, numbers in changed.items():
            set_argument(twins[node.native], name, numbers)
    for default in analysis.trace.defaults:
        if is_cut(default.axis, keep):
            twin = twins[default.node.native]
            twin.kwargs = {**twin.kwargs, default.name: default.value}
    for use, (source, picked) in analysis.trace.positions.items():
        if is_cut(source, keep) or is_cut(picked, keep):
            new = new_positions(analysis, keep, use, source, picked)
            _positions(twins[use.node.native], use, new)


def _write_out_split(analysis: Analysis, keep: Keep, node: Node, twin: FxNode) -> None:
    """A split into even pieces gives each piece its size, where they are no longer even."""
    at = split_axis(node)
    axes = [(analysis.trace.types[value].axes or [])[at] for value in node.outputs]
    sizes = [int(width(axis, keep)) for axis in axes]  # type: ignore[arg-type]  # pieces that are cut have known sizes
    twin.target = torch.ops.aten.split_with_sizes.default
    twin.args, twin.kwargs = (twin.args[0], sizes, at), {}


def _positions(twin: FxNode, use: Use, new: torch.Tensor) -> None:
    """Give one call its own stored positions."""
    name = f"positions_of_{twin.name}"
    owner_of(twin.graph).register_buffer(name, new)
    with twin.graph.inserting_before(twin):
        attribute = twin.graph.get_attr(name)
    replace_operand(twin, use.node, use.index, attribute)


def new_positions(analysis: Analysis, keep: Keep, use: Use, source: Axis, picked: Axis) -> torch.Tensor:
    """Where the picked entries that are left stand among the entries of the source that are left."""
    value = use.node.inputs[use.index]
    assert value is not None
    old = value.native[1]
    kept = indices(source, keep)
    place = np.full(whole_size(source), -1, np.int64)
    place[kept] = np.arange(len(kept))
    numbers = place[old.cpu().numpy()[indices(picked, keep)]]
    return torch.as_tensor(numbers, dtype=old.dtype, device=old.device)
