"""A plan for one form of a network, as the plan for another: a module and its own ONNX export, say.

Groups are named by tensors, and another form may have other names and store weights transposed: `torch.onnx.export`
calls the weight of a Linear `val_3`. So the tensors of both are matched: by their numbers, which tell any two weights
apart that were trained or drawn, and else by name. Groups are the same that run through the same parts of matched
tensors, all of them; a plan that cuts another group does not fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import GraphPruneError
from graphprune.plan import Cut, Plan, named

if TYPE_CHECKING:
    from graphprune.analysis import Analysis, Group
    from graphprune.program import Array, Stored

Place = tuple[str, int, tuple[int, ...]]
"""A part of an axis of a tensor: its name, the axis, the path of the part."""
Matches = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor of the target -> tensor of the source, and its axis for each axis of the target's."""
_MOST_AXES = 5


def translate(plan: Plan, source: Analysis, target: Analysis) -> Plan:
    """The plan for `target` that keeps what `plan` keeps of `source`, where both are dense forms of one network.

    Raises GraphPruneError GP501 where the plan is not one for the source, or cuts what the target has not as a group.
    """
    if plan.blocks:
        what = "the plan leaves out residual blocks, whose names do not go from one form of a network to another"
        raise GraphPruneError("GP501", what, plan.blocks[0], "make the plan for the other form")
    plan.keep(source)
    matches = matched(source, target)
    theirs = {name: _places(group, matches) for name, group in named(target).items()}
    known = {name for name, _ in matches.values()}
    same = {name: (name, tuple(range(_MOST_AXES))) for name in known}
    groups, targets = named(source), named(target)
    keep = {}
    for cut in plan.groups:
        if len(cut.keep) == cut.size:
            continue
        ours = _places(groups[cut.group], same)
        for name in _counterparts(cut, ours, theirs, targets):
            keep[targets[name].dim] = np.asarray(cut.keep, np.int64)
    return Plan.of(target, keep, plan.options)


def _counterparts(
    cut: Cut, ours: set[Place], theirs: Mapping[str, set[Place]], targets: Mapping[str, Group]
) -> list[str]:
    """The groups of the target that are one of the source: together they run through the same places."""
    found = [name for name, places in theirs.items() if places & ours]
    if not ours or not found:
        what = "no tensor that it runs through has the same numbers in the other form of the network, in a group"
    elif any(targets[name].size != cut.size for name in found):
        what = f"it has {cut.size} entries, and {found[0]} of the other form has {targets[found[0]].size}"
    elif set().union(*(theirs[name] for name in found)) != ours:
        what = f"{found[0]} of the other form of the network runs through other tensors"
    else:
        return found
    remedy = "make the plan for the other form, or leave this group alone with ignore=[...]"
    raise GraphPruneError("GP501", what, f"group {cut.group}", remedy)


def _places(group: Group, matches: Matches) -> set[Place]:
    return {
        (matches[each.tensor][0], matches[each.tensor][1][each.axis], tuple(each.path))
        for each in group.members
        if each.tensor in matches
    }


def matched(source: Analysis, target: Analysis) -> Matches:
    """The tensors of the target that are tensors of the source: of the same numbers, in any order of axes; or of the
    same name and shape (what an exporter folds a norm into keeps its name, and not its numbers)."""
    by_name = {each.name: each for each in source.program.stored}
    by_numbers: dict[object, list[Stored]] = {}
    for each in source.program.stored:
        if (key := _key(each)) is not None:
            by_numbers.setdefault(key, []).append(each)
    found: Matches = {}
    for stored in target.program.stored:
        alike = [(each.name, axes) for each in by_numbers.get(_key(stored), []) for axes in _orders(each, stored)]
        own = by_name.get(stored.name)
        if len(alike) == 1:
            found[stored.name] = alike[0]
        elif own is not None and own.shape == stored.shape:
            found[stored.name] = own.name, tuple(range(len(own.shape)))
    return found


def _key(stored: Stored) -> object:
    """What does not depend on the order of axes; `None` where the numbers do not tell a tensor."""
    if stored.empty or not 0 < len(stored.shape) < _MOST_AXES or not stored.elements or stored.dtype == "string":
        return None
    array = stored.read()
    low, high = float(array.min()), float(array.max())
    return (tuple(sorted(stored.shape)), low, high) if low < high else None


def _orders(source: Stored, target: Stored) -> Iterator[tuple[int, ...]]:
    """The orders of the source's axes in which it is the target."""
    ours, theirs = source.read(), target.read()
    for axes in itertools.permutations(range(ours.ndim)):
        if _is_same(ours.transpose(axes), theirs):
            yield axes


def _is_same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and np.array_equal(a, b)
