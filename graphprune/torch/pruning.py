"""Pruning PyTorch models: an nn.Module becomes the same class with smaller parameters, wherever its code can run so.

The model is captured as a graph; the graph is analysed, planned, cut and verified as any other. Then the module itself
is cut in the same way, run, and held against the pruned graph. Where its own code cannot run at the new sizes, or
computes something else, the graph is the result. Imports torch.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from graphprune.analysis import Analysis
from graphprune.api import analysis_of
from graphprune.apply import apply_plan
from graphprune.cuts import cuts_of
from graphprune.depth.apply import reported
from graphprune.dialects.aten.capture import (
    CAPTURE_FAILS,
    Captured,
    capture,
    evaluating,
    exported,
    lines_of,
    own_tensors,
)
from graphprune.dialects.aten.reader import numbers
from graphprune.dialects.aten.tools import ATEN, copied
from graphprune.dialects.aten.writer import new_positions
from graphprune.dims import is_cut
from graphprune.errors import GraphPruneError
from graphprune.garbage import no_collection
from graphprune.plan import Plan, named
from graphprune.steps import planned
from graphprune.torch.fit import Fit, fit
from graphprune.torch.pruned import Pruned, apply_edits, attach, checked_edits, forget
from graphprune.torch.refused import refuse
from graphprune.torch.tensors import cut_in_place, places, plain_mode, replace_data
from graphprune.verify import difference, tolerance

if TYPE_CHECKING:
    from graphprune.api import Result

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
        refuse(model, example_inputs)
        if example_inputs is None:
            remedy = "give example_inputs behind the model: a tensor, a tuple of arguments, or a dict of keywords"
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


def prune(
    model: Model,
    example_inputs: Any = None,
    *,
    plan: Plan | None = None,
    as_graph: bool | None = None,
    dynamic: bool = True,
    verify: bool = True,
    recover: str | Sequence[str] = (),
    recipe: str | None = None,
    rules: Mapping[str, str] | None = None,
    **options: Any,
) -> Result:
    """A pruned copy of a model, in `.model`, of the kind that went in; the model itself is not changed.

    example_inputs: what `forward` takes: a tensor, a tuple of arguments, a dict of keyword arguments; an
                ExportedProgram brings its own
    plan:       apply this plan instead of making one (from another checkpoint, or another format of the same network)
    as_graph:   True for the pruned graph (`torch.fx.GraphModule`); False for the class that went in, at the price of
                leaving alone what its code cannot follow; None for the class where it can run at the new sizes, else
                the graph
    dynamic:    leave batch and sequence axes open in the graph
    recover:    what to do for the weights that stay; recipe: options that go together (see
                :func:`graphprune.api.prune`)
    options:    those of :func:`graphprune.plan`
    Raises GraphPruneError: as `graphprune.plan` and `graphprune.verify` do; GP103, GP107, GP112 for the model.
    """
    with torch.inference_mode(False):  # what is made here may be trained later
        analysis = analysis_of(model, example_inputs, rules, dynamic)
        model = analysis.program.native.source if isinstance(model, Analysis) else model
        options, recover, notes = _followed(recipe, recover, _calibrated(analysis, options))
        result = _pruned(model, analysis, plan, as_graph, verify, options, recover)
        return replace(result, report=result.report.with_(notes=(*notes, *result.report.notes)))


def _calibrated(analysis: Analysis, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the calibration that they ask for: once, because data may be readable once."""
    from graphprune.api import calibrated

    if options.get("calibration") is None:
        return options
    made = calibrated(analysis, options["calibration"], options.get("seed", 0), options.get("sizes"))
    return {**options, "calibration": made}


def _followed(
    recipe: str | None, recover: str | Sequence[str], options: dict[str, Any]
) -> tuple[dict[str, Any], str | Sequence[str], tuple[str, ...]]:
    from graphprune.api import stepped
    from graphprune.recipes import followed

    options, recover, notes = followed(recipe, options, recover, options.get("calibration"))
    return stepped(options, recover), recover, notes


def _pruned(
    model: Model,
    analysis: Analysis,
    plan: Plan | None,
    as_graph: bool | None,
    verify: bool,
    options: dict[str, Any],
    recover: str | Sequence[str],
) -> Result:
    if isinstance(model, ExportedProgram):
        cut = _Cut(analysis, plan, options)
        result = cut.result(None, verify, recover)
        return replace(result, model=exported(cut.small))
    if as_graph is False:
        copied = copy_of(model)
        return _as_class(copied, analysis, plan, options).result(copied, verify, recover)
    cut, reason = _Cut(analysis, plan, options), "it was asked for"
    if not as_graph:
        copied = copy_of(model, cut.left_of(model))
        reason = cut.into(copied)
        if not reason:
            return cut.result(copied, verify, recover)
        written = "the graph was written anew" if isinstance(model, GraphModule) else "the result is a GraphModule"
        cut.notes = (f"{written} with the same parameter names: {reason}",)
    graph = cut.small.graph
    own_tensors(graph, analysis.program.native.graph)
    graph.__dict__.pop("_tracer_cls", None)  # that of torch.export cannot be pickled; any will do
    graph.train(model.training)
    attach(graph, Pruned(cut.plan, cut.cuts, {}, "graph", reason, cut.shapes))
    return cut.result(graph, verify, recover)


def prune_(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    plan: Plan | None = None,
    dynamic: bool = True,
    verify: bool = True,
    recover: str | Sequence[str] = (),
    recipe: str | None = None,
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
    with torch.inference_mode(False):
        analysis = analyze(model, example_inputs, dynamic=dynamic, rules=rules)
        options, recover, notes = _followed(recipe, recover, _calibrated(analysis, options))
        cut = _as_class(model, analysis, plan, options)
        cut.notes = (*notes, *cut.notes)
        try:
            return cut.result(model, verify, recover)
        except BaseException:
            cut.undo(model)
            raise


_MASKED = "_graphprune_masked"
"""The attribute of a masked module that holds the plan of its masks."""


def mask(model: nn.Module, plan: Plan, example_inputs: Any) -> None:
    """See :func:`graphprune.api.mask`. Raises GraphPruneError GP501 where the plan does not fit."""
    from graphprune.torch.masks import mask as put_masks

    if plan.blocks:
        what = "masks hide channels, and this plan leaves out residual blocks"
        raise GraphPruneError("GP107", what, "gp.mask", "gp.prune(model, example_inputs, plan=plan)")
    analysis = analyze(model, example_inputs)
    put_masks(model, cuts_of(analysis, plan.keep(analysis)))
    vars(model)[_MASKED] = plan


def shrink(model: nn.Module, example_inputs: Any) -> Result:
    """See :func:`graphprune.api.shrink`. The masks are taken off, and put on again where the module cannot be cut."""
    from graphprune.torch.masks import mask as put_masks
    from graphprune.torch.masks import masked_cuts, unmask

    cuts, plan = masked_cuts(model), vars(model).get(_MASKED)
    if not cuts or plan is None:
        raise GraphPruneError("GP107", "it has no masks", type(model).__name__, "gp.mask(model, plan, example_inputs)")
    unmask(model)
    try:
        result = prune_(model, example_inputs, plan=plan)
    except BaseException:
        put_masks(model, cuts)
        raise
    del vars(model)[_MASKED]
    return result


def rebuild_graph(module: nn.Module, plan: Plan, example_inputs: Any) -> nn.Module:
    """The pruned graph of a dense module, by a plan that was made for it: how a saved graph is loaded again."""
    rebuilt: nn.Module = prune(module, example_inputs, plan=plan, as_graph=True, verify=False).model
    return rebuilt


# ---------------------------------------------------------------- the graph
class _Cut:
    """One plan for one analysed model: the pruned graph, and what a module needs to be the same."""

    def __init__(self, analysis: Analysis, plan: Plan | None, options: Mapping[str, Any]):
        if plan is not None and options:
            what = f"a plan is given, so nothing is left to decide by {', '.join(sorted(options))}"
            raise GraphPruneError("GP107", what, "gp.prune", "leave out the plan or the options")
        if plan is not None and not isinstance(plan, Plan):
            raise GraphPruneError("GP107", f"{plan!r} is not a plan", "option plan", "gp.Plan.load(path) reads one")
        self.analysis = analysis
        self.options = options
        self.plan = planned(analysis, **options) if plan is None else plan
        self.keep = self.plan.keep(analysis)
        self.cuts = cuts_of(analysis, self.keep)
        self.small: Captured = apply_plan(analysis, self.plan)
        self.shapes = {stored.name: stored.shape for stored in analysis.program.stored if stored.name in self.cuts}
        self.notes: tuple[str, ...] = ()
        self.fit = Fit()
        self.undone: _Before | None = None

    def left_of(self, model: nn.Module) -> dict[int, nn.Parameter]:
        """What becomes of the parameters of a module, by their `id`: a copy of it needs no copy of all of them first.
        Only of those that are a plain `nn.Parameter`, which is copied without anything but its numbers."""
        left = places(self.small.graph)
        return {
            id(place.tensor): nn.Parameter(left[name].tensor.detach(), place.tensor.requires_grad)
            for name, place in places(model).items()
            if name in self.cuts and name in left and type(place.tensor) is nn.Parameter
        }

    @no_collection()
    def into(self, model: nn.Module) -> str:
        """Cut a module and run it; where it disagrees with the pruned graph it is put back, and the reason returned.

        Raises GraphPruneError GP402 where the graph cannot run on the example inputs either: they are at fault then.
        """
        if self.plan.blocks:
            return "its code computes the residual blocks that are left out"
        self.fit = fit(model, self.analysis, self.keep, self.cuts)
        reason = self._tried(model)
        if reason:
            other = fit(model, self.analysis, self.keep, self.cuts, settings=True)
            first, self.fit = self.fit, other
            if other.edits == first.edits or self._tried(model):
                self.fit = first
                if not any(each.is_meta for each in model.parameters()):
                    ATEN.runner(self.small)((self.small.args, self.small.kwargs))  # GP402: not the code is at fault
                return reason
        attach(model, Pruned(self.plan, self.cuts, self.fit.edits, "module", "", self.shapes))
        self.notes = tuple(self.fit.stale)
        return ""

    def _tried(self, model: nn.Module) -> str:
        before = _Before(model, self.fit)
        try:
            self._cut(model)
            self._compare(model)
        except GraphPruneError as error:
            before.restore()
            lines = [] if error.__cause__ is None else lines_of(error.__cause__)
            at = f" ({lines[-1]})" if lines else ""
            suspects = list(dict.fromkeys(map(str, self.fit.suspects(lines))))
            return "; ".join([error.what + at, *suspects[:3]])
        except BaseException:
            before.restore()
            raise
        self.undone = before
        return ""

    def undo(self, model: nn.Module) -> None:
        """Put a module back that was cut."""
        if self.undone is not None:
            self.undone.restore()
            forget(model)

    def result(self, model: Any, verify: bool, recover: str | Sequence[str] = ()) -> Result:
        """The outcome, verified when asked, and then with other weights where that is asked for, in the model as in the
        pruned graph. Raises GraphPruneError: GP401 and GP402, and as :func:`graphprune.api.recovered` does."""
        result = self._checked(model, verify)
        from graphprune.api import recovered
        from graphprune.latency.outcome import timed

        calibration, seed = self.options.get("calibration"), self.options.get("seed", 0)
        done = recovered(self.analysis, replace(result, model=self.small), recover, calibration, seed)
        if done.model is self.small:
            return timed(self.analysis, result, self.options, self.small)
        if model is not None:
            _copy_weights(self.small, done.model, model)
        self.small = done.model
        return timed(self.analysis, replace(done, model=model), self.options, self.small)

    def _checked(self, model: Any, verify: bool) -> Result:
        from graphprune.api import Result, plan_notes, report_of, require
        from graphprune.verify import verify_models

        source, rules = self.analysis.program.native, self.analysis.program.rules
        sizes, seed = self.options.get("sizes"), self.options.get("seed", 0)
        notes = (*source.notes, *self.notes, *plan_notes(self.plan))
        report = reported(report_of(self.analysis, self.keep, sizes=sizes), self.plan, self.small, sizes)
        report = report.with_(notes=notes)
        if not verify:
            return Result(model, self.plan, report)
        verification = verify_models(source, self.small, self.plan, seed=seed, sizes=sizes, rules=rules)
        require(verification)
        return Result(model, self.plan, report.with_(verification=verification), verification)

    def _cut(self, model: nn.Module) -> None:
        known = places(model)
        missing = [name for name in self.cuts if name not in known]
        if missing:
            what = f"the code makes the constant {missing[0]} itself, at its old size"
            raise GraphPruneError("GP507", what, type(model).__name__)
        left = places(self.small.graph)
        cut_in_place(model, self.cuts, {name: left[name].tensor for name in self.cuts if name in left})
        for use, (source, picked) in self.analysis.trace.positions.items():
            if not is_cut(source, self.keep) and not is_cut(picked, self.keep):
                continue
            value = use.node.inputs[use.index]
            if value is None or value.name not in known:
                raise GraphPruneError("GP507", "positions that its code holds would have to change", str(use.node))
            with plain_mode():
                replace_data(known[value.name].tensor, new_positions(self.analysis, self.keep, use, source, picked))
        apply_edits(model, self.fit.edits)

    def _compare(self, model: nn.Module) -> None:
        """Run a cut module on the example inputs and hold it against the pruned graph."""
        if any(parameter.is_meta for parameter in model.parameters()):
            return  # nothing to run: this is planned without weights
        case = (self.small.args, self.small.kwargs)
        args, kwargs = copied(case)
        try:
            with evaluating(model), torch.no_grad():
                leaves = pytree.tree_leaves(model(*args, **kwargs))
                found = [numbers(each).copy() for each in leaves if isinstance(each, torch.Tensor)]
        except CAPTURE_FAILS as error:
            first = str(error).strip().splitlines()
            what = f"its code fails with {type(error).__name__}: {first[0][:160] if first else ''}"
            raise GraphPruneError("GP507", what, type(model).__name__) from error
        expected = ATEN.runner(self.small)(case)
        if len(found) != len(expected):
            what = f"it returns {len(found)} tensors, not {len(expected)}"
            raise GraphPruneError("GP507", what, type(model).__name__)
        for a, b in zip(expected, found, strict=True):
            if difference(a, b) > max(tolerance(self.analysis, a.dtype), 1e-5):
                what = f"its code computes something else at the new sizes (by {difference(a, b):.1e})"
                raise GraphPruneError("GP507", what, type(model).__name__)


def _copy_weights(before: Captured, after: Captured, model: nn.Module) -> None:
    """Give a module the numbers that are new in a graph. Raises GraphPruneError GP705 where it has no such tensor."""
    known, old = places(model), places(before.graph)
    new = {name: each.tensor for name, each in places(after.graph).items() if each.tensor is not old[name].tensor}
    missing = [name for name in new if name not in known]
    if missing:
        what = "the module computes this tensor itself, so that no new numbers can be written"
        raise GraphPruneError("GP705", what, missing[0], "prune it with as_graph=True")
    with torch.no_grad(), plain_mode():
        for name, tensor in new.items():
            known[name].tensor.copy_(tensor)


_MOST_ATTEMPTS = 6


def _as_class(model: nn.Module, analysis: Analysis, plan: Plan | None, options: Mapping[str, Any]) -> _Cut:
    """Cut a module, leaving alone what its code cannot follow: groups that are counted by numbers in the code, and
    those of classes that derive one size from another. Raises GraphPruneError GP507 where that is not enough."""
    left: dict[str, None] = {}
    for _ in range(_MOST_ATTEMPTS):
        chosen = {**options, "ignore": [*options.get("ignore", ()), *left]} if left else options
        cut = _Cut(analysis, plan, chosen)
        reason = cut.into(model)
        if not reason:
            names = ", ".join(list(left)[:3]) + (", ..." if len(left) > 3 else "")
            if left:
                line = f"{len(left)} groups were left alone because the module's code cannot follow: {names}"
                cut.notes = (line, *cut.notes)
            return cut
        if cut.plan.blocks:
            raise GraphPruneError("GP507", reason, type(model).__name__, "gp.prune returns a GraphModule for it")
        more = [] if plan is not None else _not_followed(cut, left)
        if not more:
            break
        left.update(dict.fromkeys(more))
    remedy = "gp.prune returns a GraphModule for it; or leave such groups alone with ignore=[...]"
    what = f"its own code cannot run at the new sizes: {reason}"
    raise GraphPruneError("GP507", what, type(model).__name__, remedy)


def _not_followed(cut: _Cut, left: Mapping[str, None]) -> list[str]:
    """The groups to leave alone next: of rigid classes; widths of heads, since most code has one number for those of
    queries, keys and values; then those counted by constants; then heads."""
    steps = (
        lambda group: group.dim in cut.fit.rigid,
        lambda group: group.kind == "head width",
        lambda group: any(group.dim in constant.dims for constant in cut.fit.constants),
        lambda group: group.kind != "channel",
    )
    for chosen in steps:
        more = [name for name, group in named(cut.analysis).items() if chosen(group) and name not in left]
        if more:
            return more
    return []


@no_collection()
def copy_of(model: nn.Module, instead: Mapping[int, nn.Parameter] | None = None) -> nn.Module:
    """A copy of a module, with other parameters in the place of some, by `id`. Raises GraphPruneError GP103 where it
    cannot be copied."""
    # The first form of weight_norm and spectral_norm keeps a computed weight as an attribute, which cannot be copied
    # with its history; it is computed anew before every call.
    computed = [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    ]
    memo: dict[int, Any] = {**(instead or {}), **{id(value): value.detach().clone() for value in computed}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # copying a graph uses what PyTorch itself calls deprecated
            return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
        what = f"it cannot be copied: {str(error).strip().splitlines()[0] if str(error).strip() else type(error)}"
        raise GraphPruneError("GP103", what, type(model).__name__, "gp.prune_ prunes it in place") from error


class _Before:
    """The state of a module before it is cut."""

    def __init__(self, model: nn.Module, found: Fit):
        tensors = {id(place.tensor): place.tensor for place in places(model).values()}
        self.tensors = [(tensor, tensor.data, tensor.grad) for tensor in tensors.values()]
        self.settings = [(holder, name, getattr(holder, name)) for holder, name, _ in checked_edits(model, found.edits)]

    def restore(self) -> None:
        """Put everything back, into the same objects."""
        with plain_mode():
            for tensor, data, gradient in self.tensors:
                if tensor.shape != data.shape or tensor.data_ptr() != data.data_ptr():
                    tensor.grad = None
                    replace_data(tensor, data)
                    tensor.grad = gradient
        for holder, name, value in self.settings:
            setattr(holder, name, value)
