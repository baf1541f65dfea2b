"""Zeros in the weights of PyTorch models: chosen on the graph, put on the module as masks or as numbers.

Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from graphprune.api import calibrated, require
from graphprune.dialects.aten.capture import Captured, evaluating, exported
from graphprune.dialects.aten.reader import numbers
from graphprune.dialects.aten.tools import ATEN, copied
from graphprune.dims import leaves
from graphprune.errors import GraphPruneError
from graphprune.sparsity.candidates import LeftDense
from graphprune.sparsity.choose import Choice
from graphprune.sparsity.run import Arranged, Sparsified, arranged, decided, sparsified
from graphprune.torch.pruning import Model, analyze, copy_of
from graphprune.torch.sparse_masks import bake, put_masks
from graphprune.torch.tensors import places
from graphprune.verify import Check, Verification, difference, tolerance

if TYPE_CHECKING:
    from graphprune.analysis import Analysis, Group


def sparsify(
    model: Model,
    example_inputs: Any = None,
    *,
    masks: bool = True,
    dynamic: bool = True,
    rules: Mapping[str, str] | None = None,
    verify: bool = True,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    calibration: Any = None,
    permute: bool = False,
    **choice: Any,
) -> Sparsified:
    """A sparse copy of a model, in `.model`, of the kind that went in; options as for `graphprune.sparsify`.

    masks:   put masks on the parameters of a module, so that training keeps the zeros (`graphprune.torch.bake` makes
             them numbers); False writes zeros. Masks that it has already become numbers first, so that sparsity can be
             raised step by step
    permute: the parameters of the copy are permuted then, its code is what it was. What an optimizer holds for the
             model that went in does not fit it
    dynamic: leave batch and sequence axes open in the graph
    Raises GraphPruneError: as `graphprune.sparsify`; GP103, GP107 and GP112 for the model.
    """
    with torch.inference_mode(False):  # what is made here may be trained later
        plain = model if isinstance(model, ExportedProgram) else copy_of(model)
        if isinstance(plain, nn.Module):
            bake(plain)
        analysis = analyze(plain, example_inputs, dynamic=dynamic, rules=rules)
        data = calibrated(analysis, calibration, seed, sizes)
        within = partial(_within, plain) if isinstance(plain, nn.Module) else None
        how: dict[str, Any] = {"verify": verify, "seed": seed, "sizes": sizes, "calibration": data}
        start = Arranged(analysis)
        if permute:
            held = partial(_held, plain, analysis) if isinstance(plain, nn.Module) else None
            start = arranged(analysis, held=held, **how, **choice)
            analysis = start.analysis
            if isinstance(plain, nn.Module):
                _reorder(plain, analysis.program.native)
        chosen = decided(analysis, within=within, seed=seed, calibration=data, **choice)
        result = start.told(sparsified(analysis, chosen, **how))
        graph: Captured = result.model
        if isinstance(plain, ExportedProgram):
            return replace(result, model=exported(graph))
        _write(plain, chosen)
        put_masks(plain, result.masks)
        if not masks:
            bake(plain)
        return _checked(replace(result, model=plain), analysis, graph) if verify else replace(result, model=plain)


def _held(model: nn.Module, analysis: Analysis, group: Group) -> str:
    """Why the entries of a group stay in their order in a module; empty where they can move."""
    known = places(model)
    for member in group.members:
        if member.tensor not in known:
            return f"{member.tensor} is no parameter of the module: its code makes it"
    picked = (axis for pair in analysis.trace.positions.values() for axis in pair)
    return "stored positions pick its entries" if any(group.dim in leaves(axis) for axis in picked) else ""


def _reorder(model: nn.Module, graph: Captured) -> None:
    """Give a module the tensors of its graph in another order; they stay the same objects."""
    known = places(model)
    for name, each in places(graph.graph).items():
        if name in known:
            with torch.no_grad():
                known[name].tensor.copy_(each.tensor)


def _within(model: nn.Module, choice: Choice) -> Choice:
    """Without the weights that are no parameters of the module. Raises GraphPruneError GP302 where none is left."""
    known = places(model)
    inside = tuple(each for each in choice.layers if each.tensor in known and known[each.tensor].is_parameter)
    reason = "it is no parameter of the module: its code makes it"
    outside = [LeftDense(each.tensor, "GP803", reason) for each in choice.layers if each not in inside]
    if not inside:
        raise GraphPruneError("GP302", "no weight is a parameter of the module", type(model).__name__)
    return replace(choice, layers=inside, left=(*choice.left, *outside))


def _write(model: nn.Module, choice: Choice) -> None:
    """Put the numbers of a recovery into the parameters and buffers of a module. Raises GraphPruneError GP504 for those
    that it does not have."""
    numbers = {each.tensor: each.weights() for each in choice.layers if each.numbers is not None}
    known = places(model)
    for name, array in {**choice.others, **numbers}.items():
        if name not in known:
            what = f"{name!r} was given other numbers, and is made by the code of the module"
            remedy = "leave recover out, or sparsify the exported graph"
            raise GraphPruneError("GP504", what, type(model).__name__, remedy)
        with torch.no_grad():
            known[name].tensor.copy_(torch.as_tensor(np.ascontiguousarray(array)))


def _checked(result: Sparsified, analysis: Analysis, graph: Captured) -> Sparsified:
    """Run the module on the example inputs, and hold it against the sparse graph."""
    case = (graph.args, graph.kwargs)
    expected = ATEN.runner(graph)(case)
    args, kwargs = copied(case)
    with evaluating(result.model), torch.no_grad():
        leaves = pytree.tree_leaves(result.model(*args, **kwargs))
        found = [numbers(each).copy() for each in leaves if isinstance(each, torch.Tensor)]
    checks = []
    for place, (a, b) in enumerate(zip(expected, found, strict=True)):
        error, allowed = difference(a, b), tolerance(analysis, a.dtype)
        checks.append(Check("module", f"output {place}", error, allowed, error <= allowed))
    before = () if result.verification is None else result.verification.checks
    verification = Verification((*before, *checks))
    require(verification)
    return replace(result, verification=verification, report=result.report.with_(verification=verification))
