"""Pruning PyTorch models: an nn.Module becomes the same class with smaller parameters, wherever its code can run so.

The model is captured as a graph; the graph is analysed, planned, cut and verified as any other. Then the module itself
is cut in the same way, run, and held against the pruned graph. Where its own code cannot run at the new sizes, or
computes something else, the graph is the result. Imports torch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from graphprune.cuts import cuts_of
from graphprune.dialects.aten.capture import CAPTURE_FAILS, Captured, capture, evaluating, exported
from graphprune.dialects.aten.tools import ATEN
from graphprune.dialects.aten.writer import new_positions
from graphprune.errors import GraphPruneError
from graphprune.torch.fit import Fit, fit
from graphprune.torch.pruned import Pruned, apply_edits, attach, checked_edits
from graphprune.torch.tensors import cut_in_place, places, plain_mode, replace_data

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.api import Result
    from graphprune.cuts import Cuts
    from graphprune.dims import Keep
    from graphprune.plan import Plan

Model = nn.Module | ExportedProgram


def analyze(
    model: Model, example_inputs: Any = None, *, dynamic: bool = True, rules: Mapping[str, str] | None = None
) -> Analysis:
    """The analysis of a module, GraphModule or ExportedProgram; see :func:`graphprune.api.analyze`."""
    from graphprune.analysis import analyze_program

    return analyze_program(ATEN.read(captured(model, example_inputs, dynamic=dynamic), rules))


def captured(model: Model, example_inputs: Any, *, dynamic: bool = True) -> Captured:
    """A model as a graph. ``example_inputs`` are a tensor, a tuple of arguments, or a dict of keyword arguments.

    Raises GraphPruneError: GP107 where there are no inputs, GP103 for wrappers, GP112 where it cannot be captured.
    """
    if isinstance(model, nn.Module):
        _refuse_wrappers(model)
        if example_inputs is None:
            remedy = "gp.prune(model, example_inputs, ...): a tensor, a tuple of arguments, or a dict of keywords"
            raise GraphPruneError("GP107", "a module is captured by running it, but there are no inputs", "", remedy)
    args, kwargs = arguments(example_inputs)
    return capture(model, args, kwargs, dynamic=dynamic)


def arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments: a dict, or any mapping (what tokenizers return), is keywords."""
    if example_inputs is None:
        return (), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


_WRAPPERS = {
    "DataParallel": "prune the module inside: model.module",
    "DistributedDataParallel": "prune the module inside (model.module) on every rank, and wrap it anew",
    "FullyShardedDataParallel": "prune before wrapping: FSDP holds slices of flattened parameters",
    "OptimizedModule": "prune before torch.compile, or use torch.compile(model, backend='graphprune')",
    "ScriptModule": "prune the module that was scripted, and script it again",
}


def _refuse_wrappers(model: nn.Module) -> None:
    for each in type(model).__mro__:
        if each.__name__ in _WRAPPERS:
            what = f"a {each.__name__} is a wrapper around a model, and cannot be pruned itself"
            raise GraphPruneError("GP103", what, type(model).__name__, _WRAPPERS[each.__name__])
    if any(type(each).__name__ == "FSDPModule" or "FSDP" in type(each).__name__ for each in model.modules()):
        what = "parts of it are sharded with FSDP"
        raise GraphPruneError("GP103", what, type(model).__name__, _WRAPPERS["FullyShardedDataParallel"])
    lazy = next((name for name, each in model.named_parameters() if torch.nn.parameter.is_lazy(each)), None)
    if lazy is not None:
        raise GraphPruneError("GP103", "its shape is not known yet (a lazy module)", lazy, "run the model once")


def prune(
    model: Model,
    example_inputs: Any = None,
    *,
    plan: Plan | None = None,
    as_graph: bool = False,
    dynamic: bool = True,
    verify: bool = True,
    rules: Mapping[str, str] | None = None,
    **options: Any,
) -> Result:
    """A pruned copy of a model, in `.model`, of the kind that went in; the model itself is not changed.

    example_inputs: what `forward` takes: a tensor, a tuple of arguments, a dict of keyword arguments; an
                ExportedProgram brings its own
    plan:       apply this plan instead of making one (from another checkpoint, or another format of the same network)
    as_graph:   the pruned graph (`torch.fx.GraphModule`), even where the class could run at the new sizes
    dynamic:    leave batch and sequence axes open in the graph
    options:    those of :func:`graphprune.plan`
    Raises GraphPruneError: as `graphprune.plan` and `graphprune.verify` do; GP103, GP107, GP112 for the model.
    """
    analysis = analyze(model, example_inputs, dynamic=dynamic, rules=rules)
    made, keep, small, result = _pruned_graph(analysis, plan, verify, options)
    if isinstance(model, ExportedProgram):
        return _with(result, exported(small), ())
    cuts = cuts_of(analysis, keep)
    shapes = _shapes(analysis, cuts)
    if not as_graph:
        copied = _copied(model)
        found = fit(copied, analysis, keep, cuts)
        reason = _try(copied, analysis, keep, cuts, found, small)
        if not reason:
            attach(copied, Pruned(made, cuts, found.edits, "module", "", shapes))
            return _with(result, copied, ())
        notes = (f"the result is a GraphModule with the same parameter names: {reason}",)
    else:
        reason, notes = "it was asked for", ()
    graph = small.graph
    graph.train(model.training)
    attach(graph, Pruned(made, cuts, {}, "graph", reason, shapes))
    return _with(result, graph, notes)


def prune_(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    plan: Plan | None = None,
    dynamic: bool = True,
    verify: bool = True,
    rules: Mapping[str, str] | None = None,
    **options: Any,
) -> Result:
    """Prune a module in place: its parameters stay the same objects, so that optimizers and hooks still know them.

    Arguments as for :func:`prune`. An optimizer that has taken a step needs `graphprune.torch.transplant`.
    Raises GraphPruneError as :func:`prune` does, and GP507 where the module's own code cannot run at the new sizes.
    Whatever is raised, the module is what it was.
    """
    if not isinstance(model, nn.Module):
        raise GraphPruneError("GP103", f"a {type(model).__name__} cannot be pruned in place", "", "use gp.prune")
    analysis = analyze(model, example_inputs, dynamic=dynamic, rules=rules)
    made, keep, small, result = _pruned_graph(analysis, plan, verify, options)
    cuts = cuts_of(analysis, keep)
    shapes = _shapes(analysis, cuts)
    found = fit(model, analysis, keep, cuts)
    reason = _try(model, analysis, keep, cuts, found, small)
    if reason:
        remedy = "gp.prune returns a GraphModule for it; or leave such groups alone with ignore=[...]"
        raise GraphPruneError("GP507", f"its own code cannot run at the new sizes: {reason}", type(model).__name__, remedy)
    attach(model, Pruned(made, cuts, found.edits, "module", "", shapes))
    return _with(result, model, ())


def rebuild_graph(module: nn.Module, plan: Plan, example_inputs: Any) -> nn.Module:
    """The pruned graph of a dense module, by a plan that was made for it: how a saved graph is loaded again."""
    rebuilt: nn.Module = prune(module, example_inputs, plan=plan, as_graph=True, verify=False).model
    return rebuilt


# ---------------------------------------------------------------- the graph
def _pruned_graph(
    analysis: Analysis, plan: Plan | None, verify: bool, options: Mapping[str, Any]
) -> tuple[Plan, Keep, Captured, Result]:
    from graphprune.api import Result, report_of, require
    from graphprune.plan import make_plan
    from graphprune.verify import verify_models

    if plan is not None and options:
        what = f"a plan is given, so nothing is left to decide by {', '.join(sorted(options))}"
        raise GraphPruneError("GP107", what, "gp.prune", "leave out the plan or the options")
    made = make_plan(analysis, **options) if plan is None else plan
    keep = made.keep(analysis)
    source: Captured = analysis.program.native
    small: Captured = ATEN.write(analysis, keep)
    report = report_of(analysis, keep, sizes=options.get("sizes")).with_(notes=source.notes)
    verification = None
    if verify:
        verification = verify_models(source, small, made, seed=options.get("seed", 0), sizes=options.get("sizes"))
        require(verification)
        report = report.with_(verification=verification)
    return made, keep, small, Result(small, made, report, verification)


def _with(result: Result, model: Any, notes: Sequence[str]) -> Result:
    from graphprune.api import Result

    report = result.report.with_(notes=(*result.report.notes, *notes)) if notes else result.report
    return Result(model, result.plan, report, result.verification)


def _shapes(analysis: Analysis, cuts: Cuts) -> dict[str, tuple[int, ...]]:
    return {stored.name: stored.shape for stored in analysis.program.stored if stored.name in cuts}


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
        what = f"it cannot be copied: {str(error).strip().splitlines()[0] if str(error).strip() else type(error)}"
        raise GraphPruneError("GP103", what, type(model).__name__, "gp.prune_ prunes it in place") from error


# ---------------------------------------------------------------- the module
def _try(model: nn.Module, analysis: Analysis, keep: Keep, cuts: Cuts, found: Fit, small: Captured) -> str:
    """Cut a module and run it; on any disagreement with the pruned graph it is put back, and the reason returned."""
    try:
        with _undone_on_failure(model, cuts, found):
            _cut(model, analysis, keep, cuts, found)
            _compare(model, analysis, small)
    except GraphPruneError as error:
        lines = [f"it holds the number {line}" for line in found.constants[:3]]
        return "; ".join([error.what, *lines])
    return ""


@contextmanager
def _undone_on_failure(model: nn.Module, cuts: Cuts, found: Fit) -> Iterator[None]:
    tensors = {id(place.tensor): place.tensor for place in places(model).values()}
    before = [(tensor, tensor.data, tensor.grad) for tensor in tensors.values()]
    settings = [(holder, name, getattr(holder, name)) for holder, name, _ in checked_edits(model, found.edits)]
    try:
        yield
    except BaseException:
        with plain_mode():
            for tensor, data, gradient in before:
                if tensor.data_ptr() != data.data_ptr() or tensor.shape != data.shape:
                    tensor.grad = None
                    replace_data(tensor, data)
                    tensor.grad = gradient
        for holder, name, value in settings:
            setattr(holder, name, value)
        raise


def _cut(model: nn.Module, analysis: Analysis, keep: Keep, cuts: Cuts, found: Fit) -> None:
    from graphprune.dims import is_cut

    known = places(model)
    missing = [name for name in cuts if name not in known]
    if missing:
        what = f"the code makes the constant {missing[0]} itself, at its old size"
        raise GraphPruneError("GP507", what, type(model).__name__)
    cut_in_place(model, cuts)
    for use, (source, picked) in analysis.trace.positions.items():
        if is_cut(source, keep) or is_cut(picked, keep):
            value = use.node.inputs[use.index]
            if value is None or value.name not in known:
                raise GraphPruneError("GP507", "positions that its code holds would have to change", str(use.node))
            with plain_mode():
                replace_data(known[value.name].tensor, new_positions(analysis, keep, use, source, picked))
    apply_edits(model, found.edits)


def _compare(model: nn.Module, analysis: Analysis, small: Captured) -> None:
    """Run a cut module on the example inputs and hold it against the pruned graph."""
    from graphprune.verify import difference, tolerance

    if any(parameter.is_meta for parameter in model.parameters()):
        return  # nothing to run; shapes were planned
    case = (small.args, small.kwargs)
    expected = ATEN.runner(small)(case)
    copied = pytree.tree_map(lambda each: each.clone() if isinstance(each, torch.Tensor) else each, case)
    try:
        with evaluating(model), torch.no_grad():
            outputs = model(*copied[0], **copied[1])
    except CAPTURE_FAILS as error:
        first = str(error).strip().splitlines()
        what = f"its code fails with {type(error).__name__}: {first[0][:160] if first else ''}"
        raise GraphPruneError("GP507", what, type(model).__name__) from error
    from graphprune.dialects.aten.reader import numbers

    found = [numbers(each) for each in pytree.tree_leaves(outputs) if isinstance(each, torch.Tensor)]
    if len(found) != len(expected):
        raise GraphPruneError("GP507", f"it returns {len(found)} tensors, not {len(expected)}", type(model).__name__)
    for a, b in zip(expected, found, strict=True):
        if difference(a, b) > max(tolerance(analysis, a.dtype), 1e-5):
            what = f"its code computes something else at the new sizes (by {difference(a, b):.1e})"
            raise GraphPruneError("GP507", what, type(model).__name__)
