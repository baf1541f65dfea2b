"""Pruning inside `torch.compile`: a backend that cuts the graph of a module, and hands it on to another backend.

    >>> small = torch.compile(model.eval(), backend="graphprune", options={"macs": 0.5})     # doctest: +SKIP
    >>> with torch.no_grad():                                                                # doctest: +SKIP
    ...     small(images)
    >>> print(graphprune.torch.report(small))                                                # doctest: +SKIP

The module keeps its parameters; the compiled code has smaller copies of them, which follow when they change. Graphs are
for inference. All graphs of one module (Dynamo makes several where it cannot follow the code, and compiles anew for
other sizes) share their decisions. Imports torch, and Dynamo.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._dynamo.exc import ShortenTraceback
from torch._dynamo.source import LocalSource
from torch.fx import GraphModule

from graphprune.analysis import Analysis, analyze_program
from graphprune.api import calibrated, report_of, require
from graphprune.cuts import Cuts, cuts_of
from graphprune.dialects.aten.normal import drop_unused
from graphprune.dialects.aten.places import argument_names, arguments
from graphprune.dialects.aten.tools import ATEN, output_names
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.plan import Plan, fingerprint, make_plan
from graphprune.torch.compile import dynamo
from graphprune.torch.compile.decisions import Decisions
from graphprune.torch.compile.exploit import dead
from graphprune.torch.compile.options import Settings
from graphprune.torch.compile.report import CompileReport, Part
from graphprune.torch.compile.run import Follower, runner
from graphprune.verify import Check, Verification, difference, tolerance, verify_models


class _Passed(ShortenTraceback):
    """What Dynamo passes on to the user as it is, not as a failure of the backend."""

    def __init__(self, *args: Any):
        super().__init__(*args, first_useful_frame=None)


class _Refused(GraphPruneError, _Passed):
    pass


class _Missed(BudgetNotMet, _Passed):
    pass


def graphprune_backend(
    graph: GraphModule,
    example_inputs: list[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """What `torch.compile(model, backend="graphprune", options={...})` calls for each graph.

    The options are those of :func:`graphprune.plan`, and:

    mode:    "prune" (default); "exploit": only remove what zeros in the weights make dead, so that the outputs stay
    plan:    a Plan, or the path of one: apply it instead of making one
    then:    the backend that compiles the pruned graph: "inductor" (default), "eager", any other name, or a function
    then_options: the options for that backend
    verify:  hold every pruned graph against the masked dense one, on the example inputs (default); "full" for all
             checks that gp.prune makes, which run the graphs more than ten times; False for none
    rules:   rows in axis notation for operators that have none, as for :func:`graphprune.analyze`
    Raises GraphPruneError: GP106 and GP107 for options; GP601 where gradients of the parameters could be asked, GP602
    for modules in training mode; as `graphprune.plan` and `graphprune.verify` do.
    """
    try:
        with torch.inference_mode(False):  # what is made here outlives the call that it is compiled for
            return _compile(graph, example_inputs, Settings.of(options, mode))
    except BudgetNotMet as error:
        raise _Missed(error.code, error.what, error.where, error.remedy) from error
    except GraphPruneError as error:
        raise _Refused(error.code, error.what, error.where, error.remedy) from error


def report(compiled: Any) -> CompileReport:
    """What was pruned of a module or function that `torch.compile` returned, over all its graphs.

    Raises GraphPruneError GP603 where nothing of it was compiled yet.
    """
    session = _session_of(compiled)
    if session is None or not session.parts:
        owner = dynamo.compiled_owner(compiled)
        name = type(owner).__name__ if isinstance(owner, nn.Module) else getattr(owner, "__qualname__", str(owner))
        raise GraphPruneError("GP603", "no graph of it was compiled by this backend", name)
    return CompileReport(tuple(session.parts.values()))


# ---------------------------------------------------------------- sessions
@dataclass(eq=False)
class _Session:
    """The graphs of one module, compiled with the same options, which it holds: its key has the `id` of some."""

    settings: Settings
    decisions: Decisions = field(default_factory=Decisions)
    parts: dict[Any, Part] = field(default_factory=dict)


# The last session of an owner that compiled something is the last of its dictionary.
_SESSIONS: weakref.WeakKeyDictionary[Any, dict[str, _Session]] = weakref.WeakKeyDictionary()
_PLANS: dict[str, Plan] = {}
_MOST_PLANS = 256
"""Plans that are remembered in this process, by a digest of the graph, the weights and the options."""


# torch._dynamo.reset() drops all compiled code, and calls this: what is compiled then may be decided anew
graphprune_backend.reset = _SESSIONS.clear  # type: ignore[attr-defined]


def _can_be_known(owner: Any) -> bool:
    try:
        weakref.ref(owner)
        hash(owner)
    except TypeError:
        return False
    return True


def _session(owner: Any, settings: Settings) -> _Session:
    if not _can_be_known(owner):
        return _Session(settings)
    known = _SESSIONS.setdefault(owner, {})
    known[settings.key] = found = known.pop(settings.key, None) or _Session(settings)
    return found


def _session_of(compiled: Any) -> _Session | None:
    """The session of what `torch.compile` returned: the one with its options, else the last of the same module."""
    owner = dynamo.compiled_owner(compiled)
    known = _SESSIONS.get(owner, {}) if _can_be_known(owner) else {}
    options = dynamo.compiled_options(compiled)
    if options is not None:
        return known.get(Settings.of(options, None).key)
    return next(reversed(known.values()), None)


# ---------------------------------------------------------------- one graph
def _compile(graph: GraphModule, inputs: list[Any], settings: Settings) -> Callable[..., Any]:
    then = settings.then
    assert then is not None
    owner = dynamo.owner_of_compilation()
    weights = dynamo.weights_of(graph, inputs, owner)
    if not weights or not dynamo.all_real(inputs):
        return then(graph, inputs)
    _refuse_training(graph, weights)
    dynamo.guard_modules(graph, weights)
    session = _session(owner, settings)
    partial = _is_partial(owner, weights)
    try:
        work = _Work(graph, inputs, weights, owner, settings, session.decisions, partial)
    except GraphPruneError as error:
        # A piece of a module that cannot be pruned is run as it is, and reported; of a whole one it is an answer
        if not partial or error.code not in {"GP112", "GP301", "GP302"}:
            raise
        session.parts[_key(weights)] = Part.whole(dynamo.name_of_code(owner), str(error))
        return then(graph, inputs)
    session.parts[_key(weights)] = work.part
    return work.run(then(*work.handed_on()))


def _key(weights: Sequence[dynamo.Weight]) -> Any:
    """What tells the parts of a module apart: compiled for other sizes, a part is the same one."""
    return dynamo.frame_of_compilation(), frozenset(weight.name for weight in weights)


def _is_partial(owner: Any, weights: Sequence[dynamo.Weight]) -> bool:
    """Whether the graph is one of several of the compiled module: it has parameters that are not in this one, or Dynamo
    had to begin or end it within the code."""
    if dynamo.break_of_graph() or dynamo.is_continued():
        return True
    known = {id(weight.tensor) for weight in weights}
    return not isinstance(owner, nn.Module) or any(id(each) not in known for each in owner.parameters())


def _refuse_training(graph: GraphModule, weights: Sequence[dynamo.Weight]) -> None:
    if any(dynamo.requires_gradient(graph)):
        for weight in weights:
            if weight.tensor.requires_grad:
                raise GraphPruneError("GP601", "gradients are recorded, and the parameter requires them", weight.name)


class _Work:
    """One graph: captured, analysed, decided, cut, verified."""

    def __init__(
        self,
        graph: GraphModule,
        inputs: Sequence[Any],
        weights: list[dynamo.Weight],
        owner: Any,
        settings: Settings,
        decisions: Decisions,
        partial: bool,
    ):
        self.dense = graph
        self.inputs = inputs
        self.settings = settings
        self.traced = dynamo.trace(graph, inputs, weights, owner)
        _refuse_training_mode(self.traced, owner)
        self.analysis = analyze_program(ATEN.read(self.traced.captured, settings.rules))
        notes: tuple[str, ...] = ()
        if settings.exploit:
            self.plan = Plan.of(self.analysis, dead(self.analysis), {"pass": "clean"})
        elif settings.plan is not None:
            self.plan, notes = decisions.given(self.analysis, settings.plan, partial)
        else:
            options = _of_part(self.analysis, settings.planning) if partial else settings.planning
            self.plan, notes = decisions.made(self.analysis, self._planned, options)
        keep = self.plan.keep(self.analysis)
        self.cuts: Cuts = cuts_of(self.analysis, keep)
        self.small = ATEN.write(self.analysis, keep)
        sizes = settings.planning.get("sizes")
        outcome = report_of(self.analysis, keep, sizes=sizes).with_(notes=notes)
        if settings.verify:
            outcome = outcome.with_(verification=self._verified())
        if not settings.exploit:
            decisions.remember(self.analysis, keep)
        where = dynamo.name_of_code(owner)
        self.part = Part(where, outcome, self.plan, dynamo.break_of_graph(), settings.then_name)

    def _verified(self) -> Verification:
        """One comparison; all oracles where it fails, since they know how far outputs may move. Raises as gp.prune."""
        captured, plan, planning = self.traced.captured, self.plan, self.settings.planning
        if self.settings.verify != "full":
            case = (captured.args, captured.kwargs)
            analysis = analyze_program(ATEN.read(ATEN.at_sizes(captured, case), self.settings.rules))
            oracle, reference = "same", captured
            if not self.settings.exploit:
                oracle, reference = "mask", ATEN.masked(analysis, plan.keep(analysis))
            expected, found = ATEN.runner(reference)(case), ATEN.runner(self.small)(case)
            checks = []
            for name, a, b in zip(output_names(captured), expected, found, strict=True):
                error, allowed = difference(a, b), tolerance(self.analysis, a.dtype)
                checks.append(Check(oracle, name, error, allowed, error <= allowed))
            if all(check.ok for check in checks):
                return Verification(tuple(checks))
        seed, sizes = planning.get("seed", 0), planning.get("sizes")
        verification = verify_models(captured, self.small, plan, seed=seed, sizes=sizes, rules=self.settings.rules)
        require(verification)
        return verification

    def _planned(self, **options: Any) -> Plan:
        """A plan for the graph, from memory where one was made for the same graph, weights and options."""
        data, seed, sizes = options.get("calibration"), options.get("seed", 0), options.get("sizes")
        if data is not None and (dynamo.break_of_graph() or dynamo.is_continued()):
            what = "the data is for the inputs of the whole module, and Dynamo breaks it into several graphs"
            remedy = "plan=gp.plan(model, example_inputs, ...); torch.compile(..., fullgraph=True) says where it breaks"
            raise GraphPruneError("GP107", what, "option calibration", remedy)
        options["calibration"] = calibrated(self.analysis, data, seed, sizes)
        key = _digest(self.analysis, options)
        if key not in _PLANS:
            plan = make_plan(self.analysis, **options)
            while len(_PLANS) >= _MOST_PLANS:
                del _PLANS[next(iter(_PLANS))]
            _PLANS[key] = plan
        return _PLANS[key]

    def handed_on(self) -> tuple[GraphModule, list[Any]]:
        """The pruned graph for the next backend, as one of Dynamo, and its example inputs."""
        graph = self.small.graph
        formal = list(self.dense.graph.find_nodes(op="placeholder"))
        sources = {}
        for name, tensor in [*graph.named_parameters(remove_duplicate=False), *graph.named_buffers()]:
            dynamo.replace(graph, name, tensor.detach())
            sources[name] = LocalSource(f"graphprune {name}")
        for node in graph.graph.nodes:
            for stale in ("val", "tensor_meta", "example_value", "unbacked_bindings"):
                node.meta.pop(stale, None)
        for node, place in zip(graph.graph.find_nodes(op="placeholder"), self.traced.given, strict=True):
            node.meta = dict(formal[place].meta)
            node._dynamo_source = formal[place]._dynamo_source
        drop_unused(graph)
        graph.recompile()
        graph.meta = {**self.dense.meta, "graphprune": self.plan}
        graph._param_name_to_source = sources
        return graph, [self.inputs[place] for place in self.traced.given]

    def run(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """What Dynamo calls in place of the dense graph. After this, the work holds no weights of the module."""
        traced, rules, plan = self.traced, self.settings.rules, self.plan
        self.inputs = ()
        del self.analysis

        def still_dead() -> bool:
            analysis = analyze_program(ATEN.read(traced.captured, rules))
            kept = {cut.group: set(cut.keep) for cut in plan.groups}
            return all(set(cut.keep) <= kept[cut.group] for cut in Plan.of(analysis, dead(analysis)).groups)

        holds = still_dead if self.settings.exploit else None
        return runner(compiled, self.dense, Follower(traced, self.small.graph, self.cuts, holds), traced)


def _refuse_training_mode(traced: dynamo.Traced, owner: Any) -> None:
    """Raises GraphPruneError GP602 where the graph computes what it only would in training."""
    if isinstance(owner, nn.Module) and not any(module.training for module in owner.modules()):
        return  # the code asks for it by itself
    for node in traced.captured.graph.graph.nodes:
        given = arguments(node)
        if given.get("train") is True or given.get("training") is True:
            if given.get("p", 1) == 0 or ("running_mean" in argument_names(node) and given.get("running_mean") is None):
                continue
            what = f"the module is in training mode: {node.target} computes something else than it will for inference"
            line = str(node.meta.get("stack_trace") or "").strip().splitlines()[-2:]
            raise GraphPruneError("GP602", what, " ".join(map(str.strip, line)))


def _of_part(analysis: Analysis, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for one of several graphs: patterns that are about other graphs left out.

    Raises GraphPruneError GP302 where nothing of what alone is to be pruned is in this one.
    """
    found = dict(options)
    for option in ("ignore", "only"):
        given = found.get(option, ())
        found[option] = [each for each in ([given] if isinstance(given, str) else given) if _is_known(analysis, each)]
        if option == "only" and given and not found[option]:
            raise GraphPruneError("GP302", "nothing of what alone is to be pruned is in this graph")
    return found


def _is_known(analysis: Analysis, pattern: str) -> bool:
    names = {name for group in analysis.groups for name in (group.name, *(m.tensor for m in group.members))}
    return any(fnmatchcase(name, pattern) for name in names)


def _digest(analysis: Analysis, options: Mapping[str, Any]) -> str:
    """Of a graph, the numbers in its weights, and options."""
    found = hashlib.blake2b(digest_size=16)
    captured = analysis.program.native
    found.update(repr((fingerprint(analysis), captured.graph.code, sorted(captured.sizes.items()))).encode())
    found.update(json.dumps(options, sort_keys=True, default=repr).encode())
    for stored in analysis.program.stored:
        found.update(np.ascontiguousarray(stored.read()).tobytes())
    return found.hexdigest()
