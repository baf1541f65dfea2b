"""The options of `torch.compile(backend="graphprune", options={...})`, checked before anything is compiled.

Imports torch, and Dynamo.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch._dynamo.backends.registry import list_backends, lookup_backend
from torch.fx import GraphModule

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.plan import Plan, make_plan

Backend = Callable[[GraphModule, list[Any]], Callable[..., Any]]

_PLANNING = frozenset(inspect.signature(make_plan).parameters) - {"analysis"}
_OWN = {"mode", "plan", "then", "then_options", "verify", "rules"}
MODES = ("prune", "exploit")


@dataclass(frozen=True)
class Settings:
    """The options of one call of `torch.compile`, checked."""

    planning: Mapping[str, Any]
    exploit: bool = False
    plan: Plan | None = None
    then: Backend | None = None
    then_name: str = "inductor"
    verify: bool | str = True
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
        if chosen == "prune" and plan is None and not {"macs", "params", "bytes", "latency", "ratio"} & set(planning):
            remedy = "options={'macs': 0.6} keeps 60 % of the multiplications; or params, bytes, latency, ratio, plan"
            raise GraphPruneError("GP107", "it was not said how far to prune", where, remedy)
        name, then = _next(given.get("then", "inductor"), given.get("then_options"))
        key = json.dumps(
            [planning, chosen, plan and plan.to_json(), name, given.get("then_options")],
            sort_keys=True,
            default=lambda held: f"{type(held).__qualname__} {id(held)}",  # it may change, as a table of times does
        )
        verify, rules = given.get("verify", True), dict(given.get("rules") or {})
        if verify not in {True, False, "full"}:
            raise GraphPruneError("GP107", f"{verify!r} is not True, False or 'full'", "option verify", "leave it out")
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
