"""An oracle that needs no knowledge of how a pruner works: channels that do not matter are planted, then pruned.

In every group whose removal is exact, half of the channels (and one more, for any rounding) are set to zero wherever a
contraction makes or reads them. They add nothing to any sum, and every magnitude criterion ranks them last: whatever
removes at most half of each group by magnitude must leave the outputs as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

import graphprune as gp
from graphprune.dialects.onnx.runner import DYNAMIC_SIZES, Runner, feeds
from graphprune.errors import GraphPruneError
from graphprune.kept import indices
from graphprune.verify import difference

TOLERANCE = 1e-3
"""Relative to the largest magnitude of an output; wide, as two orders of summation are compared."""
QUANTISED_TOLERANCE = 2 / 255


def plant(path: str) -> tuple[ir.Model, list[str]]:
    """A model with planted channels, and the names of the groups that have none as their removal is not exact."""
    model = gp.load(path)
    analysis = gp.analyze(model)
    random = np.random.default_rng(0)
    keep = {}
    for group in analysis.groups:
        if group.exact:
            left = max(1, group.size - (group.size + 1) // 2 - 1)
            keep[group.dim] = np.sort(random.permutation(group.size)[:left])
    summed = {(m.tensor, m.axis) for group in analysis.groups for m in group.members if m.role in {"in", "out"}}
    for stored, _, _, axes in analysis.stored_axes():
        array = np.array(stored.read())
        for place, axis in enumerate(axes):
            if (stored.name, place) in summed:
                survives = np.zeros(array.shape[place], bool)
                survives[indices(axis, keep)] = True
                array[(slice(None),) * place + (~survives,)] = 0
        if any((stored.name, place) in summed for place in range(len(axes))):
            _store(stored.native, array)
    return model, [group.name for group in analysis.groups if not group.exact]


def _store(native: Any, array: np.ndarray[Any, Any]) -> None:
    if isinstance(native, ir.Value):
        native.const_value = ir.tensor(array, name=native.name)
    else:
        native.attributes["value"] = ir.AttrTensor("value", ir.tensor(array))


def runnable(model: ir.Model) -> dict[str, Any]:
    """Inputs that a model runs with. Raises GraphPruneError (GP402) where there are none."""
    run = Runner(model)
    for size in DYNAMIC_SIZES:
        try:
            case = feeds(model, 0, {}, size)
            run(case)
        except GraphPruneError:
            continue
        return case
    raise GraphPruneError("GP402", "no sizes were found that it runs with")


def compared(planted: ir.Model, pruned: ir.Model) -> str:
    """ "same", "differs (error)", or why it does not run or has another interface."""
    case = runnable(planted)
    if _interface(planted) != _interface(pruned):
        return "other interface"
    try:
        found = Runner(pruned)(case)
    except GraphPruneError:
        return "does not run"
    expected = Runner(planted)(case)
    if not any(np.any(each) for each in expected):
        return "all zero"  # so much was planted that nothing is left to compare
    errors = [difference(a, b) for a, b in zip(expected, found, strict=True)]
    quantised = any("Quantize" in node.op_type or "QLinear" in node.op_type for node in planted.graph)
    worst = max(errors)
    return "same" if worst <= (QUANTISED_TOLERANCE if quantised else TOLERANCE) else f"differs ({worst:.0e})"


def _interface(model: ir.Model) -> list[tuple[str, str]]:
    """Names and types of inputs and outputs; old files list their initializers among the inputs, which nobody feeds."""
    stored = model.graph.initializers
    values = [*(value for value in model.graph.inputs if value.name not in stored), *model.graph.outputs]
    return [(value.name or "", str(value.dtype)) for value in values]
