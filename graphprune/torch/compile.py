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
import inspect
import json
import os
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch._dynamo.backends.registry import list_backends, lookup_backend
from torch._dynamo.exc import ShortenTraceback
from torch.fx import GraphModule

from graphprune.analysis import Analysis, analyze_program
from graphprune.api import report_of, require
from graphprune.cuts import Cuts, cuts_of
from graphprune.dialects.aten.tools import ATEN
from graphprune.errors import BudgetNotMet, GraphPruneError, did_you_mean
from graphprune.plan import Plan, fingerprint, make_plan
from graphprune.torch import dynamo
from graphprune.torch.compile_report import CompileReport, Part
from graphprune.torch.decisions import Decisions
from graphprune.torch.exploit import dead
from graphprune.torch.tensors import plain_mode, taken
from graphprune.verify import verify_models

_PLANNING = frozenset(inspect.signature(make_plan).parameters) - {"analysis"}
_OWN = {"mode", "plan", "then", "then_options", "verify", "rules"}
MODES = ("prune", "exploit")

Backend = Callable[[GraphModule, list[Any]], Callable[..., Any]]


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
    verify:  hold every pruned graph against the masked dense one, on the example inputs (default)
    rules:   rows in axis notation for operators that have none, as for :func:`graphprune.analyze`
    Raises GraphPruneError: GP106 and GP107 for options; GP601 where gradients of the parameters could be asked, GP602
    for modules in training mode; as `graphprune.plan` and `graphprune.verify` do.
    """
    try:
        return _compile(graph, example_inputs, Settings.of(options, mode))
    except BudgetNotMet as error:
        raise _Missed(error.code, error.what, error.where, error.remedy) from error
    except GraphPruneError as error:
        raise _Refused(error.code, error.what, error.where, error.remedy) from error


def report(compiled: Any) -> CompileReport:
    """What was pruned of a module or function that `torch.compile` returned, over all its graphs.

    Raises GraphPruneError GP603 where nothing of it was compiled yet.
    """
    owner = dynamo.compiled_owner(compiled)
    sessions = _SESSIONS.get(owner, {}) if _can_be_known(owner) else {}
    parts = [part for session in sessions.values() for part in session.parts.values()]
    if not parts:
        name = type(owner).__name__ if isinstance(owner, nn.Module) else getattr(owner, "__qualname__", str(owner))
        raise GraphPruneError("GP603", "no graph of it was compiled by this backend", name)
    return CompileReport(tuple(parts))


# ---------------------------------------------------------------- options
@dataclass(frozen=True)
class Settings:
    """The options of one call of `torch.compile`, checked."""

    planning: Mapping[str, Any]
    exploit: bool = False
    plan: Plan | None = None
    then: Backend | None = None
    then_name: str = "inductor"
    verify: bool = True
    rules: Mapping[str, str] = field(default_factory=dict)
    key: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any] | None, mode: str | None) -> Settings:
        """Check all options. Raises GraphPruneError GP106 and GP107."""
        given = dict(options or {})
        where = "torch.compile(options=...)"
        if mode is not None:
            remedy = "leave out mode=...; for inductor write options={..., 'then_options': {'max_autotune': True}}"
            raise GraphPruneError("GP107", f"mode={mode!r} is for inductor", "torch.compile(mode=...)", remedy)
        for name in given:
            if name not in _PLANNING | _OWN:
                raise GraphPruneError("GP106", f"unknown option {name!r}", where, did_you_mean(name, _PLANNING | _OWN))
        chosen = given.get("mode", "prune")
        if chosen not in MODES:
            raise GraphPruneError("GP107", f"unknown mode {chosen!r}", where, did_you_mean(str(chosen), MODES))
        planning = {name: value for name, value in given.items() if name in _PLANNING}
        plan = _plan(given.get("plan"))
        if plan is not None and (planning or chosen == "exploit"):
            what = f"a plan is given, so nothing is left to decide by {', '.join(sorted(planning) or ['exploit'])}"
            raise GraphPruneError("GP107", what, where, "leave out the plan or the options")
        if chosen == "exploit" and planning:
            what = f"exploit removes what is dead and nothing else: no use for {', '.join(sorted(planning))}"
            raise GraphPruneError("GP107", what, where, "leave them out")
        if chosen == "prune" and plan is None and not {"macs", "params", "bytes", "ratio"} & set(planning):
            remedy = "options={'macs': 0.6} keeps 60 % of the multiplications; or params, bytes, ratio, plan, mode"
            raise GraphPruneError("GP107", "it was not said how far to prune", where, remedy)
        name, then = _next(given.get("then", "inductor"), given.get("then_options"))
        key = json.dumps([planning, chosen, plan and plan.to_json(), name], sort_keys=True, default=repr)
        verify, rules = bool(given.get("verify", True)), dict(given.get("rules") or {})
        return cls(planning, chosen == "exploit", plan, then, name, verify, rules, key)


def _plan(given: object) -> Plan | None:
    if given is None or isinstance(given, Plan):
        return given
    if isinstance(given, str | os.PathLike):
        return Plan.load(given)
    raise GraphPruneError("GP107", f"{given!r} is not a plan", "option plan", "give a Plan or the path of a plan file")


def _next(then: Any, options: Mapping[str, Any] | None) -> tuple[str, Backend]:
    """The backend that compiles what is left. Raises GraphPruneError GP107."""
    more: dict[str, Any] = dict(options or {})
    if then == "inductor":
        from torch._inductor.compile_fx import compile_fx

        return "inductor", cast(Backend, partial(compile_fx, config_patches=more or None))
    if isinstance(then, str):
        known = set(list_backends(exclude_tags=())) - {"graphprune"}
        if then not in known:
            raise GraphPruneError("GP107", f"unknown backend {then!r}", "option then", did_you_mean(then, known))
        name, then = then, lookup_backend(then)
    else:
        name = getattr(then, "__name__", type(then).__name__)
    if not callable(then):
        raise GraphPruneError("GP107", f"{then!r} is not a backend", "option then", "give a name or a function")
    return name, partial(then, options=more) if more else then


# ---------------------------------------------------------------- sessions
@dataclass(eq=False)
class _Session:
    """The graphs of one module, compiled with the same options."""

    decisions: Decisions = field(default_factory=Decisions)
    parts: dict[Any, Part] = field(default_factory=dict)


_SESSIONS: weakref.WeakKeyDictionary[Any, dict[str, _Session]] = weakref.WeakKeyDictionary()
_PLANS: dict[str, Plan] = {}
_MOST_PLANS = 256
"""Plans that are remembered in this process, by a digest of the graph, the weights and the options."""


def _can_be_known(owner: Any) -> bool:
    try:
        weakref.ref(owner)
        hash(owner)
    except TypeError:
        return False
    return True


def _session(owner: Any, settings: Settings) -> _Session:
    if not _can_be_known(owner):
        return _Session()
    return _SESSIONS.setdefault(owner, {}).setdefault(settings.key, _Session())


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
        session.parts[_key(weights)] = Part.whole(dynamo.frame_of_compilation().co_qualname, str(error))
        return then(graph, inputs)
    session.parts[_key(weights)] = work.part
    return work.run(then(*work.handed_on()))


def _key(weights: Sequence[dynamo.Weight]) -> Any:
    """What tells the parts of a module apart: compiled for other sizes, a part is the same one."""
    return dynamo.frame_of_compilation(), frozenset(weight.name for weight in weights)


def _is_partial(owner: Any, weights: Sequence[dynamo.Weight]) -> bool:
    """Whether the compiled module has parameters that are not in this graph."""
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
        self.analysis = analyze_program(ATEN.read(self.traced.captured, settings.rules or None))
        notes: tuple[str, ...] = ()
        if settings.exploit:
            self.plan = Plan.of(self.analysis, dead(self.analysis), {"pass": "clean"})
        elif settings.plan is not None:
            self.plan, notes = decisions.given(self.analysis, settings.plan, partial)
        else:
            self.plan, notes = decisions.made(self.analysis, self._planned, settings.planning)
        keep = self.plan.keep(self.analysis)
        self.cuts: Cuts = cuts_of(self.analysis, keep)
        self.small = ATEN.write(self.analysis, keep)
        sizes = settings.planning.get("sizes")
        outcome = report_of(self.analysis, keep, sizes=sizes).with_(notes=notes)
        if settings.verify:
            seed = settings.planning.get("seed", 0)
            verification = verify_models(self.traced.captured, self.small, self.plan, seed=seed, sizes=sizes)
            require(verification)
            outcome = outcome.with_(verification=verification)
        if not settings.exploit:
            decisions.remember(self.analysis, keep)
        where = dynamo.frame_of_compilation().co_qualname
        self.part = Part(where, outcome, self.plan, dynamo.break_of_graph(), settings.then_name)

    def _planned(self, **options: Any) -> Plan:
        """A plan for the graph, from memory where one was made for the same graph, weights and options."""
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
            sources[name] = torch._dynamo.source.LocalSource(f"graphprune {name}")
        for node in graph.graph.nodes:
            for stale in ("val", "tensor_meta", "example_value", "unbacked_bindings"):
                node.meta.pop(stale, None)
        for node, place in zip(graph.graph.find_nodes(op="placeholder"), self.traced.given, strict=True):
            node.meta = dict(formal[place].meta)
            node._dynamo_source = formal[place]._dynamo_source
        graph.graph.eliminate_dead_code()
        graph.recompile()
        graph.meta = {**self.dense.meta, "graphprune": self.plan}
        graph._param_name_to_source = sources
        return graph, [self.inputs[place] for place in self.traced.given]

    def run(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """What Dynamo calls: takes all inputs of the dense graph, returns all its outputs."""
        weights = _Weights(self)
        given, fixed, total = self.traced.given, self.traced.fixed, self.traced.outputs

        def run(*inputs: Any) -> Any:
            if not weights.current(inputs):
                weights.follow(inputs)
            if not weights.usable:
                return weights.dense(*inputs)
            found = compiled(*[inputs[place] for place in given])
            if not fixed:
                return found
            others = iter(found if isinstance(found, tuple | list) else (found,))
            return tuple(weights.constants[place] if place in fixed else next(others) for place in range(total))

        return run


def _refuse_training_mode(traced: dynamo.Traced, owner: Any) -> None:
    """Raises GraphPruneError GP602 where the graph computes what it only would in training."""
    if isinstance(owner, nn.Module) and not any(module.training for module in owner.modules()):
        return  # the code asks for it by itself
    for node in traced.captured.graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        names = [each.name for each in schema.arguments] if schema is not None else []
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        if given.get("train") is True or given.get("training") is True:
            if given.get("p", 1) == 0 or ("running_mean" in names and given.get("running_mean") is None):
                continue
            what = f"the module is in training mode: {node.target} computes something else than it will for inference"
            line = str(node.meta.get("stack_trace") or "").strip().splitlines()[-2:]
            raise GraphPruneError("GP602", what, " ".join(map(str.strip, line)))


def _digest(analysis: Analysis, options: Mapping[str, Any]) -> str:
    """Of a graph, the numbers in its weights, and options."""
    found = hashlib.blake2b(digest_size=16)
    captured = analysis.program.native
    found.update(repr((fingerprint(analysis), captured.graph.code, sorted(captured.sizes.items()))).encode())
    found.update(json.dumps(options, sort_keys=True, default=repr).encode())
    for stored in analysis.program.stored:
        found.update(np.ascontiguousarray(stored.read()).tobytes())
    return found.hexdigest()


class _Weights:
    """The dense weights that a pruned graph was made of, watched for changes."""

    def __init__(self, work: _Work):
        self.work = work
        self.usable = True
        self.warned = False
        self.seen: list[tuple[int, Tensor, int]] = []
        self.constants: dict[int, Tensor] = {}
        self._see([weight.tensor for weight in work.traced.weights])

    def _see(self, tensors: Sequence[Tensor]) -> None:
        self.seen = [
            (weight.place, tensor, _version(tensor))
            for weight, tensor in zip(self.work.traced.weights, tensors, strict=True)
        ]
        self.constants = self.work.traced.constants(tensors)

    def current(self, inputs: Sequence[Any]) -> bool:
        """Whether the weights are what they were."""
        for place, tensor, version in self.seen:
            now = inputs[place]
            if now is not tensor or (version >= 0 and now._version != version):
                return False
        return True

    def follow(self, inputs: Sequence[Any]) -> None:
        """Take over new weights, cut as the old ones were; `usable` tells whether they may be cut so."""
        work = self.work
        tensors = [inputs[weight.place] for weight in work.traced.weights]
        with plain_mode():
            for weight, tensor in zip(work.traced.weights, tensors, strict=True):
                dynamo.replace(work.traced.captured.graph, weight.name, tensor)
            self.usable = not work.settings.exploit or self._still_dead()
            for weight, tensor in zip(work.traced.weights, tensors, strict=True):
                held = work.small.graph.get_buffer(weight.name)
                if weight.name in work.cuts:
                    held.copy_(taken(tensor.detach(), work.cuts[weight.name]))
                else:
                    held.data = tensor.detach()
        self._see(tensors)

    def _still_dead(self) -> bool:
        analysis = analyze_program(ATEN.read(self.work.traced.captured, self.work.settings.rules or None))
        now = Plan.of(analysis, dead(analysis))
        kept = {cut.group: set(cut.keep) for cut in self.work.plan.groups}
        return all(set(cut.keep) <= kept[cut.group] for cut in now.groups)

    def dense(self, *inputs: Any) -> Any:
        """The graph as it came, for weights that no longer allow the cut."""
        if not self.warned:
            self.warned = True
            what = "entries that were dead when the module was compiled are no longer, so the dense graph is run"
            warnings.warn(f"graphprune: {what}; call torch._dynamo.reset() to compile anew", stacklevel=2)
        return self.work.dense(*inputs)


def _version(tensor: Tensor) -> int:
    """Counts changes in place; inference tensors do not count theirs."""
    return -1 if tensor.is_inference() else tensor._version
