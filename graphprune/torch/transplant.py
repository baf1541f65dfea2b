"""Training goes on after pruning: optimizer state, gradients and averages lose the entries that the parameters lost.

Schedulers and GradScaler refer to the optimizer and need nothing. Everything is checked and computed before anything is
changed. Imports torch; of this package tensors.py and pruned.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from graphprune.dialects.aten.gather import gathered
from graphprune.errors import GraphPruneError
from graphprune.torch.pruned import Pruned, attach, checked_edits, composed, pruned_of, unwrapped
from graphprune.torch.tensors import (
    cut_in_place,
    cuts_by_tensor,
    fits_cut,
    fits_dense,
    laid_out,
    plain_mode,
    same_axes,
    shown_axes,
)

if TYPE_CHECKING:
    from graphprune.cuts import Cuts
    from graphprune.plan import Plan
    from graphprune.torch.tensors import Axes

_FACTORED = {"exp_avg_sq_row": -1, "exp_avg_sq_col": -2}
"""Names of state of Adafactor, as in transformers and fairseq, and the axis of the parameter that it is summed over.
(Adafactor of torch.optim keeps that axis with size 1, which tells as much.)"""


@dataclass(frozen=True)
class _Target:
    """A parameter that an optimizer holds, and what becomes of it.

    old, new: what the optimizer holds now, and what it holds afterwards; the same when pruned in place
    dense:    size of each axis before the cut; None where it is not known
    """

    name: str
    old: nn.Parameter
    new: nn.Parameter
    axes: Axes
    dense: tuple[int | None, ...]

    def is_dense(self, size: int, axis: int) -> bool:
        """Whether this can be the size of an axis before the cut."""
        known = self.dense[axis]
        if known is not None:
            return size == known
        return fits_dense([size], {0: self.axes[axis]}) if axis in self.axes else size == self.new.shape[axis]


# ------------------------------------------------------------------ optimizers
def transplant(
    optimizer: Optimizer,
    cuts: Cuts,
    parameters: Mapping[str, nn.Parameter],
    *,
    source: Mapping[str, nn.Parameter] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Cut the state of an optimizer as the parameters were cut, so that training goes on with it.

    parameters: those of the pruned model by every name, `dict(model.named_parameters(remove_duplicate=False))`
    source:     those of the dense model, which the optimizer holds, where pruning made a copy: the optimizer gets the
                pruned ones in their place, in the same groups, and the gradients too
    shapes:     shapes of the cut parameters before the cut, by name; without them they are inferred from the state

    State of the shape of its parameter is cut along the same axes, state that is summed over an axis along the others,
    single numbers stay. State that is cut already is passed over. Options of groups, schedulers, GradScaler and hooks
    stay what they are.
    Raises GraphPruneError GP504, with nothing changed, where state cannot follow or the names do not fit.
    """
    targets = _targets(optimizer, cuts, parameters, source, shapes or {})
    _refuse_flat(optimizer, targets)
    with plain_mode():
        states = {id(each.old): _cut_state(each, optimizer.state.get(each.old, {})) for each in targets}
        gradients = [(each.new, _cut_gradient(each)) for each in targets]
    replaced = {id(each.old): each.new for each in targets}
    entries = list(optimizer.state.items())
    optimizer.state.clear()
    for key, state in entries:
        state.update(states.get(id(key), {}))
        optimizer.state[replaced.get(id(key), key)] = state
    for group in optimizer.param_groups:
        group["params"][:] = [replaced.get(id(each), each) for each in group["params"]]
    for parameter, gradient in gradients:
        if gradient is not None:
            parameter.grad = gradient


def plan_transplant(plan: Plan, model: nn.Module, optimizer: Optimizer, *, source: nn.Module | None = None) -> None:
    """Have an optimizer follow a model that was pruned with a plan.

    source: the dense model, which the optimizer trained, where pruning made a copy of it
    Raises GraphPruneError: GP501 where the model was not pruned with this plan, GP504 as :func:`transplant` does.
    """
    steps: list[Pruned] = []
    step = pruned_of(model)
    while step is not None:
        steps.append(step)
        if step.plan.groups == plan.groups:
            break
        step = step.earlier
    if step is None:
        how = "by another plan" if steps else "by none"
        remedy = "prune the model first, and use the plan that was made then"
        raise GraphPruneError("GP501", f"the model was pruned {how}", type(unwrapped(model)).__name__, remedy)
    cuts: Cuts = {}
    for each in reversed(steps):
        cuts = composed(cuts, each.cuts)
    shapes = {name: shape for each in steps for name, shape in each.shapes.items()}  # the earliest is the last
    held = None if source is None else _parameters(source)
    transplant(optimizer, cuts, _parameters(model), source=held, shapes=shapes)


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(unwrapped(model).named_parameters(remove_duplicate=False))


def _targets(
    optimizer: Optimizer,
    cuts: Cuts,
    parameters: Mapping[str, nn.Parameter],
    source: Mapping[str, nn.Parameter] | None,
    shapes: Mapping[str, Sequence[int]],
) -> list[_Target]:
    """The parameters of the optimizer that change: all that `source` names, or else those that are cut."""
    kind = type(optimizer).__name__
    by_new = cuts_by_tensor(cuts, parameters)
    if cuts and not by_new:
        what = f"the cut names {next(iter(cuts))!r}, but no tensor of the cut is a parameter of the model"
        raise GraphPruneError("GP504", what, kind, "give the names of model.named_parameters(), without a prefix")
    names = {id(each): name for name, each in (parameters if source is None else source).items()}
    known = {*names, *map(id, parameters.values())}
    held = [each for group in optimizer.param_groups for each in group["params"]]
    if not any(id(each) in known for each in held):
        remedy = "give source=, the dense model or its parameters, if pruning made a copy; else make a new optimizer"
        raise GraphPruneError("GP504", "the optimizer holds none of the parameters of the model", kind, remedy)
    found = []
    for old in held:
        name = names.get(id(old))
        if name is None:
            continue  # a parameter of another model, or one that was replaced before
        if name not in parameters:
            raise GraphPruneError("GP504", "the pruned model has no parameter of this name", name)
        new = parameters[name]
        cut_name, axes = by_new.get(id(new), (name, {}))
        if new is not old or axes:
            dense = _dense(name, old, new, axes)
            if cut_name in shapes and axes and new is old:
                dense = tuple(shapes[cut_name])
            found.append(_Target(name, old, new, axes, _inferred(name, dense, axes, _evidence(old, new, optimizer))))
    return found


def _dense(name: str, old: nn.Parameter, new: nn.Parameter, axes: Axes) -> tuple[int | None, ...]:
    """Sizes before the cut as far as the parameters tell. Raises GraphPruneError GP504 where the cut does not fit."""
    if not fits_cut(new.shape, axes):
        what = f"the cut keeps {shown_axes(axes)}, but the shape of the parameter is {tuple(new.shape)}"
        raise GraphPruneError("GP504", what, name, "prune the model first, then transplant")
    if new is old:
        return tuple(None if axis in axes else size for axis, size in enumerate(new.shape))
    fits = fits_dense(old.shape, axes) and old.dim() == new.dim()
    if not fits or any(old.shape[axis] != new.shape[axis] for axis in range(new.dim()) if axis not in axes):
        what = f"the shapes {tuple(old.shape)} and {tuple(new.shape)} of the dense and the pruned parameter do not fit"
        raise GraphPruneError("GP504", f"{what} the cut: {shown_axes(axes) or 'everything is kept'}", name)
    return tuple(old.shape)


def _evidence(old: nn.Parameter, new: nn.Parameter, optimizer: Optimizer) -> Iterator[Tensor]:
    """State that has an axis for each of the parameter's: what the dense shape can be seen from."""
    state = optimizer.state.get(old, {})
    for key, value in [*state.items(), ("grad", old.grad)]:
        if isinstance(value, Tensor) and value.dim() == new.dim() and value.shape != new.shape:
            yield value
        elif isinstance(value, Tensor) and key in _FACTORED and value.dim() == new.dim() - 1:
            yield value.unsqueeze(_FACTORED[key])


def _inferred(
    name: str, dense: tuple[int | None, ...], axes: Axes, evidence: Iterator[Tensor]
) -> tuple[int | None, ...]:
    """Sizes before the cut, completed from state. Raises GraphPruneError GP504 where two tensors disagree."""
    sizes = list(dense)
    for tensor in evidence:
        for axis, kept in axes.items():
            size = tensor.shape[axis]
            if size in (1, len(kept)) or sizes[axis] == size:
                continue
            if sizes[axis] is not None or not fits_dense([size], {0: kept}):
                before = f"{sizes[axis]} entries" if sizes[axis] is not None else f"position {kept[-1]}"
                what = f"state or gradient has {size} entries along axis {axis}, but the parameter had {before}"
                raise GraphPruneError("GP504", what, name)
            sizes[axis] = size
    return tuple(sizes)


def _refuse_flat(optimizer: Optimizer, targets: Sequence[_Target]) -> None:
    """Raise GraphPruneError GP504 for the optimizer that joins all parameters into one vector, unless it is fresh."""
    if isinstance(optimizer, LBFGS) and targets and (optimizer.state or optimizer._numel_cache is not None):
        what = "LBFGS keeps its history as vectors over all parameters, of which no single one can be cut"
        raise GraphPruneError("GP504", what, "LBFGS", "make a new LBFGS optimizer after pruning")


# ------------------------------------------------------------------ state of one parameter
def _cut_state(target: _Target, state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a parameter's state that change."""
    if not target.axes:
        return {}
    found = {}
    for key, value in state.items():
        where = f"state {key!r} of {target.name}"
        if isinstance(value, Tensor):
            axes = _axes_of(target, key, value, where)
            if axes:
                found[key] = _taken(value, axes, target.new, where)
        elif _holds_tensors(value):
            what = f"the state is a {type(value).__name__} of tensors, which may belong to any axis"
            raise GraphPruneError("GP504", what, where, "make a new optimizer after pruning")
    return found


def _holds_tensors(value: object) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(isinstance(each, Tensor) or _holds_tensors(each) for each in value)
    return False


def _axes_of(target: _Target, key: str, tensor: Tensor, where: str) -> Axes:
    """What to keep of each axis of a state tensor; nothing to cut where it is a number or cut already.

    Raises GraphPruneError GP504 where the shape does not tell, or tells two things.
    """
    if tensor.numel() == 1 or tensor.shape == target.new.shape:
        return {}
    found: list[Axes] = []
    sure = True
    for view in _views(key, tensor.dim(), target.new.dim()):
        axes = _axes_as(target, tensor.shape, view)
        if axes is not None and not any(same_axes(axes, each) for each in found):
            found.append(axes)
            sure &= all(target.dense[view[position]] is not None for position in axes)
    if len(found) == 1 and sure:
        return found[0]
    dense = ", ".join("?" if size is None else str(size) for size in target.dense)
    fact = "may belong to several axes" if found else "fits no axes"
    what = f"the state {fact}: its shape is {tuple(tensor.shape)}, that of the parameter was ({dense})"
    raise GraphPruneError("GP504", what, where, "make a new optimizer after pruning, or remove this entry of its state")


def _views(key: str, rank: int, full: int) -> list[tuple[int, ...]]:
    """The axes of the parameter that the axes of a state tensor may stand for, in order."""
    if key in _FACTORED and rank == full - 1:
        return [tuple(axis for axis in range(full) if axis != full + _FACTORED[key])]
    return list(combinations(range(full), rank))


def _axes_as(target: _Target, shape: Sequence[int], view: Sequence[int]) -> Axes | None:
    """What to keep of a tensor whose axes stand for these of the parameter; None where its shape contradicts that."""
    found = {}
    for position, axis in enumerate(view):
        size = shape[position]
        if axis in target.axes and target.is_dense(size, axis):
            found[position] = target.axes[axis]
        elif size not in (1, target.new.shape[axis]):
            return None
    return found


def _cut_gradient(target: _Target) -> Tensor | None:
    """The gradient that the parameter gets; None where it has a right one or the optimizer's has none."""
    gradient = target.old.grad
    if gradient is None or (target.new.grad is not None and target.new.grad.shape == target.new.shape):
        return None
    if not target.axes:
        return gradient.clone()
    if gradient.dim() != target.new.dim() or not all(map(target.is_dense, gradient.shape, range(gradient.dim()))):
        what = f"the gradient has the shape {tuple(gradient.shape)}, which is not that of the dense parameter"
        raise GraphPruneError("GP504", what, target.name, "set it to None: optimizer.zero_grad()")
    return _taken(gradient, target.axes, target.new, f"gradient of {target.name}")


def _taken(tensor: Tensor, axes: Axes, new: Tensor, where: str) -> Tensor:
    like = new if tensor.dim() == new.dim() and fits_cut(new.shape, axes) else None
    try:
        result = gathered(tensor, axes)
    except (NotImplementedError, RuntimeError, TypeError) as error:
        # tensors of other libraries, such as quantised state, have the shape of the parameter but not its layout
        what = f"a {type(tensor).__name__} of {tensor.dtype} cannot be cut: {error}"
        raise GraphPruneError("GP504", what, where, "make a new optimizer after pruning") from error
    return laid_out(result, like) if like is not None and result.shape == new.shape else result


# ------------------------------------------------------------------ averages and copies
def transplant_average(average: nn.Module, cuts: Cuts | Pruned) -> None:
    """Cut an average of the weights (AveragedModel, or any copy of the dense model) in place as the model was cut.

    cuts: what `pruned_of(model)` gives, so that the copy can run at its new sizes too; with bare cuts its tensors
          shrink and its attributes stay
    Raises GraphPruneError GP504, with nothing changed, where the copy has other tensors, or the pruned model became a
    graph; GP506 where an attribute that names a size does not exist.
    """
    inner = unwrapped(average)
    if not isinstance(cuts, Pruned):
        cut_in_place(inner, cuts)
        return
    if cuts.kind == "graph":
        what = "the pruned model became a graph, which a copy of the dense module cannot become in place"
        remedy = "make a new average of the pruned model, and load what cut_state_dict leaves of the old one's state"
        raise GraphPruneError("GP504", what, type(inner).__name__, remedy)
    if pruned_of(inner) is cuts:
        return
    edits = checked_edits(inner, cuts.edits)
    cut_in_place(inner, cuts.cuts)
    for holder, name, value in edits:
        setattr(holder, name, value)
    attach(inner, cuts)


def cut_state_dict(state: Mapping[str, Tensor], cuts: Cuts, *, prefix: str = "") -> dict[str, Tensor]:
    """A state dict of the dense model (an average, a checkpoint, a teacher's), cut as the model was; a new dict.

    prefix: what stands before the names: "module." where they come from a wrapper
    Tensors that are not cut are the same objects. Raises GraphPruneError GP504 where no name fits, or a shape does not.
    """
    tensors = {name: state[prefix + name] for name in cuts if isinstance(state.get(prefix + name), Tensor)}
    if cuts and not tensors:
        what = f"there is no {prefix + next(iter(cuts))!r}, nor any other tensor of the cut"
        raise GraphPruneError("GP504", what, "the state dict", "give prefix=, what stands before the names")
    memory = {_memory(tensor): cuts[name] for name, tensor in tensors.items()}
    found = dict(state)
    with plain_mode():
        for name, tensor in state.items():
            axes = memory.get(_memory(tensor)) if isinstance(tensor, Tensor) else None
            axes = cuts.get(name.removeprefix(prefix), axes)
            if axes is None or fits_cut(tensor.shape, axes):
                continue
            if not fits_dense(tensor.shape, axes):
                what = f"the shape {tuple(tensor.shape)} does not fit the cut: {shown_axes(axes)}"
                raise GraphPruneError("GP504", what, name)
            found[name] = gathered(tensor, axes)
    return found


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """The same for tied tensors, which a state dict has as several objects that share their memory."""
    if tensor.device.type == "meta" or tensor.layout != torch.strided or not tensor.numel():
        return (id(tensor),)
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
