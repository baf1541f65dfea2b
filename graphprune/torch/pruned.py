"""What was done to a pruned module, attached to the module itself, so that an optimizer or a file can follow it.

Imports torch; imports no other module of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import fx, nn

from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from graphprune.cuts import Cuts
    from graphprune.plan import Plan

ATTRIBUTE = "_graphprune"
"""The attribute of a pruned module that holds its :class:`Pruned`."""

_META = "graphprune"
"""The key of `GraphModule.meta`, which a deep copy of a graph module keeps, unlike its attributes."""

_SETTINGS = (bool, int, float, str, list, tuple, dict, type(None))


@dataclass(frozen=True, eq=False)
class Pruned:
    """One pruning of one module.

    plan:    what was kept of every group
    cuts:    what was kept of every tensor, by its name in the module
    edits:   path of a submodule -> attribute -> new value; an attribute may be dotted: `config.hidden_size`
    kind:    "module": the class that went in, with smaller tensors; "graph": a GraphModule, since the code of the class
             cannot run at the new sizes
    reason:  why a graph came out
    shapes:  shapes of the cut tensors before this pruning; those that are not named are not known
    earlier: the pruning before this one, where a module was pruned several times: `cuts` are of the last step only
    """

    plan: Plan
    cuts: Cuts
    edits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kind: Literal["module", "graph"] = "module"
    reason: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    earlier: Pruned | None = None


def attach(module: nn.Module, pruned: Pruned) -> None:
    """Note a pruning on the module; one that is noted there already becomes its `earlier`."""
    before = pruned_of(module)
    if pruned.earlier is None and before is not None and before is not pruned:
        pruned = replace(pruned, earlier=before)
    vars(module)[ATTRIBUTE] = pruned  # not setattr: a class may override it, and this is nothing that it knows of
    if isinstance(module, fx.GraphModule):
        module.meta[_META] = pruned


def forget(module: nn.Module) -> None:
    """Remove what :func:`attach` noted."""
    vars(module).pop(ATTRIBUTE, None)
    if isinstance(module, fx.GraphModule):
        module.meta.pop(_META, None)


def pruned_of(module: nn.Module) -> Pruned | None:
    """What was done to a module, if anything; wrappers (torch.compile, DistributedDataParallel) are looked through."""
    module = unwrapped(module)
    found = vars(module).get(ATTRIBUTE)
    if found is None and isinstance(module, fx.GraphModule):
        found = module.meta.get(_META)
    return found if isinstance(found, Pruned) else None


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside wrappers that add nothing but a prefix to its names."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel
    from torch.optim.swa_utils import AveragedModel

    while True:
        # torch._dynamo, where OptimizedModule lives, takes seconds to import
        if type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules:
            inner = module._modules["_orig_mod"]
        elif isinstance(module, DataParallel | DistributedDataParallel | AveragedModel):
            inner = module.module
        else:
            return module
        assert isinstance(inner, nn.Module)
        module = inner


def composed(first: Cuts, second: Cuts) -> dict[str, dict[int, Any]]:
    """The one cut that does what two do, one after the other.

    >>> both = composed({"weight": {0: np.array([0, 2, 4, 6])}}, {"weight": {0: np.array([1, 3])}})
    >>> both["weight"][0].tolist()
    [2, 6]
    """
    found: dict[str, dict[int, Any]] = {name: dict(axes) for name, axes in first.items()}
    for name, axes in second.items():
        for axis, kept in axes.items():
            before = found.setdefault(name, {}).get(axis)
            found[name][axis] = np.asarray(kept) if before is None else np.asarray(before)[kept]
    return found


def whole(pruned: Pruned) -> Pruned:
    """All prunings of a module as one, from the dense module to what it is now. Raises GraphPruneError GP501."""
    if pruned.earlier is None:
        return pruned
    before = whole(pruned.earlier)
    return Pruned(
        plan=_composed_plan(before.plan, pruned.plan),
        cuts=composed(before.cuts, pruned.cuts),
        edits={path: {**before.edits.get(path, {}), **pruned.edits.get(path, {})} for path in _paths(before, pruned)},
        kind="graph" if "graph" in (before.kind, pruned.kind) else "module",
        reason=before.reason or pruned.reason,
        shapes={**pruned.shapes, **before.shapes},
    )


def _paths(first: Pruned, second: Pruned) -> list[str]:
    return list(dict.fromkeys([*first.edits, *second.edits]))


def _composed_plan(first: Plan, second: Plan) -> Plan:
    from graphprune.plan import Cut

    groups = {cut.group: cut for cut in first.groups}
    for cut in second.groups:
        before = groups.get(cut.group)
        if before is None:
            groups[cut.group] = cut
            continue
        if len(before.keep) != cut.size:
            what = f"the second plan has {cut.size} entries of group {cut.group!r}, the first left {len(before.keep)}"
            raise GraphPruneError("GP501", what, "two plans that were applied one after the other")
        groups[cut.group] = Cut(cut.group, before.size, tuple(before.keep[index] for index in cut.keep))
    costs = {}
    if first.costs and second.costs:
        costs = {"dense": first.costs["dense"], "planned": second.costs["planned"]}
    return replace(second, groups=tuple(groups.values()), model=first.model, costs=costs)


def apply_edits(module: nn.Module, edits: Mapping[str, Mapping[str, Any]]) -> None:
    """Give attributes of submodules their new values, all or none. Raises GraphPruneError GP506."""
    for holder, name, value in checked_edits(module, edits):
        setattr(holder, name, value)


def checked_edits(module: nn.Module, edits: Mapping[str, Mapping[str, Any]]) -> list[tuple[Any, str, Any]]:
    """The objects, names and values to set; lists become tuples where a tuple was.

    Raises GraphPruneError GP506 where a submodule or an attribute does not exist or is of another kind.
    """
    found = []
    for path, attributes in edits.items():
        for attribute, value in attributes.items():
            holder, name = _holder(module, path, attribute)
            found.append((holder, name, _as_before(getattr(holder, name), value, f"{path}.{attribute}".lstrip("."))))
    return found


def _holder(module: nn.Module, path: str, attribute: str) -> tuple[Any, str]:
    """The object that has the attribute, and the last part of the attribute's name."""
    where = f"{path}.{attribute}".lstrip(".")
    *parents, name = attribute.split(".")
    holder: Any = module
    for part in [*(path.split(".") if path else []), *parents]:
        holder = getattr(holder, _known(holder, part, where))
    return holder, _known(holder, name, where)


def _known(holder: Any, name: str, where: str) -> str:
    # names such as __class__ reach what is no setting of a model; a saved edit may come from anywhere
    if name.startswith("__") or not hasattr(holder, name):
        raise GraphPruneError("GP506", f"the {type(holder).__name__} has no attribute {name!r}", where)
    return name


def _as_before(before: object, value: object, where: str) -> object:
    if isinstance(before, tuple) and isinstance(value, list):
        return torch.Size(value) if isinstance(before, torch.Size) else tuple(value)
    if isinstance(before, _SETTINGS) and isinstance(value, _SETTINGS):
        return value
    what = f"the attribute is a {type(before).__name__}, not a setting such as a number of channels"
    raise GraphPruneError("GP506", what, where)
