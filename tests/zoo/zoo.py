"""One model through everything: captured, analysed, planned, written and verified. The outcome is a record."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import math
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from graphprune.analysis import Analysis, analyze_program
from graphprune.dialects import tools_of
from graphprune.dialects.aten.capture import capture
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.garbage import no_collection
from graphprune.plan import Plan, make_plan
from graphprune.verify import Verification, verify_models

LIBRARIES = {
    "torchvision": "tests.zoo.torchvision_models",
    "timm": "tests.zoo.timm_models",
    "transformers": "tests.zoo.transformers_models",
    "other": "tests.zoo.other_models",
}
REQUIRES = {
    "torchvision": ("torchvision",),
    "timm": ("timm",),
    "transformers": ("transformers",),
    "other": ("diffusers",),
}
"""What must be installed for the models of a library."""

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Model:
    """One model of a library and how to make it small.

    family: models alike; a sample takes at most one of them
    build:  makes the module with random weights (torch is seeded before)
    inputs: positional and keyword arguments for it, batch 1 or 2 (torch is seeded before)
    cheap:  takes seconds, so that a sample for the tests may draw it
    macs:   the share of multiply-accumulates that remains
    reason: why it cannot run at all; it is recorded as a failure with this cause
    """

    name: str
    library: str
    family: str
    build: Callable[[], torch.nn.Module]
    inputs: Callable[[], Inputs]
    cheap: bool = False
    macs: float = 0.5
    reason: str = ""


@functools.cache
def revision() -> str:
    """The commit that is checked out; empty where there is none."""
    line = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(line, check=False, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


@dataclass
class Record:
    """What became of one model. ``stage`` is the last that began; ``macs`` and ``parameters`` are before and after.

    analysis_seconds: of processor time, of the first analysis in a new process; without the garbage collector, which
        goes through all that torch.export left behind whenever it happens to wake
    errors:   the worst of each oracle, relative to the largest magnitude of the output
    refusals: how many axes of weights stay, by code
    unknown:  operators without a rule
    unfit:    nodes whose rule could not be applied, with the reason
    revision: of this repository, where it is one of git
    """

    name: str
    library: str
    family: str
    ok: bool = False
    cause: str = ""
    stage: str = "build"
    export_seconds: float = 0.0
    analysis_seconds: float = 0.0
    seconds: float = 0.0
    groups: int = 0
    macs: tuple[int, int] = (0, 0)
    parameters: tuple[int, int] = (0, 0)
    errors: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    revision: str = field(default_factory=revision)

    def as_json(self) -> dict[str, Any]:
        """Plain data; an infinite error is a text, because JSON has no number for it."""
        found = asdict(self)
        found["errors"] = {name: each if math.isfinite(each) else str(each) for name, each in self.errors.items()}
        return found


def read_records(path: Path) -> list[Record]:
    """The records of a file that the command wrote."""
    pairs = ("macs", "parameters")
    found = [{"revision": "", **each} for each in json.loads(path.read_text())]
    return [Record(**{**each, **{name: tuple(each[name]) for name in pairs}}) for each in found]


def models_of(library: str) -> list[Model]:
    """The models of a library. Raises ``ModuleNotFoundError`` where it, or its list, is not there."""
    found: list[Model] = importlib.import_module(LIBRARIES[library]).models()
    return found


def missing(library: str) -> str:
    """What is not installed that the models of a library need; empty where all is there."""
    needed = [*REQUIRES[library], LIBRARIES[library]]
    return ", ".join(name for name in needed if importlib.util.find_spec(name) is None)


def sampled(models: Sequence[Model], count: int, week: int) -> list[Model]:
    """``count`` models of as many families as there are, others each week, the same for the same week."""
    draw = random.Random(week)
    families: dict[str, list[Model]] = {}
    for model in models:
        families.setdefault(model.family, []).append(model)
    names = draw.sample(sorted(families), min(count, len(families)))
    return [draw.choice(families[name]) for name in names]


def examine(model: Model, tell: Callable[[Record], None] = lambda record: None) -> Record:
    """Run one model through everything. ``tell`` gets the record as each stage begins, for whoever must go without
    the rest. A refusal of graphprune is a cause of failure; any other exception is a defect and escapes."""
    record, start = Record(model.name, model.library, model.family), time.perf_counter()
    if model.reason:
        record.cause = model.reason
        return record
    try:
        for stage in _stages(model, record):
            record.stage, record.seconds = stage, time.perf_counter() - start
            tell(record)
        record.stage, record.ok = "done", not record.cause
    except GraphPruneError as error:
        record.cause = f"{record.stage}: {error.code} {error.what} {error.where}".strip()
    record.seconds = time.perf_counter() - start
    return record


def _stages(model: Model, record: Record) -> Iterator[str]:
    yield "build"
    torch.manual_seed(0)
    module = model.build().eval()
    liven(module)
    args, kwargs = model.inputs()
    calibrate(module, args, kwargs)
    yield "export"
    start = time.perf_counter()
    captured = capture(module, args, kwargs)
    record.export_seconds, record.notes = time.perf_counter() - start, list(captured.notes)
    yield "analysis"
    tools, start = tools_of(captured), time.thread_time()
    with no_collection():
        analysis = analyze_program(tools.read(captured))
        record.groups = len(analysis.groups)
    record.analysis_seconds = time.thread_time() - start
    _describe(analysis, record)
    yield "plan"
    plan = _planned(analysis, model.macs, record)
    record.macs, record.parameters = _costs(plan, "macs"), _costs(plan, "parameters")
    yield "write"
    pruned = tools.write(analysis, plan.keep(analysis))
    yield "verify"
    _judge(verify_models(captured, pruned, plan), record)


def liven(module: torch.nn.Module) -> None:
    """Give random values to what networks start with as constants (norms, biases, scales of 1e-6, running statistics):
    entries that are all alike hide what happens to them, and zeros hide whole branches."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and _is_constant(parameter):
                parameter.copy_(_around(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn_like(buffer) * 0.1)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand_like(buffer) + 0.5)


def calibrate(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Give batch norms statistics of the size of what reaches them, as training does: with others, what flows through a
    deep network grows or dies, and scores come out as equal ones and zeros."""

    def measure(norm: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        x, mean, variance = inputs[0], norm.running_mean, norm.running_var
        if isinstance(mean, torch.Tensor) and isinstance(variance, torch.Tensor) and x.numel() > 1:
            scale = x.std()  # of the layer: that of a channel, from a few pixels, may be next to nothing
            mean.copy_(x.mean() + 0.1 * scale * torch.randn_like(mean))
            variance.copy_(scale**2 * (0.5 + torch.rand_like(variance)) + 1e-6)

    norms = [each for each in module.modules() if getattr(each, "running_var", None) is not None]
    hooks = [each.register_forward_pre_hook(measure) for each in norms]
    if hooks:
        with torch.no_grad():
            module(*args, **kwargs)
    for hook in hooks:
        hook.remove()


def _is_constant(parameter: torch.Tensor) -> bool:
    return parameter.numel() > 0 and bool((parameter == parameter.reshape(-1)[0]).all())


def _around(parameter: torch.Tensor) -> torch.Tensor:
    value = float(parameter.reshape(-1)[0])
    centre = value if abs(value) >= 0.1 else 0.0
    return torch.randn_like(parameter) * 0.1 + centre


def _describe(analysis: Analysis, record: Record) -> None:
    record.refusals = dict(sorted(Counter(each.code for each in analysis.refusals).items()))
    rules = analysis.program.dialect
    without = [node for node in analysis.trace.skipped if rules.row(node) is None]
    record.unknown = sorted({node.op for node in without})
    record.unfit = sorted({str(node) for node in analysis.trace.skipped if node not in without})
    for names, what in ((record.unknown, "no rule for"), (record.unfit, "the rule could not be applied to")):
        if names:
            _blame(record, f"{what} {', '.join(names[:5])}" + (" ..." if len(names) > 5 else ""))


def _planned(analysis: Analysis, macs: float, record: Record) -> Plan:
    """A plan for the budget; where that cannot be met, half of every group, so that the rest is tried all the same."""
    try:
        return make_plan(analysis, macs=macs, criterion="random")
    except BudgetNotMet as error:
        if error.code != "GP301":
            raise
        _blame(record, f"plan: {error.code} {error.what}")
        return make_plan(analysis, ratio=0.5, criterion="random")


def _costs(plan: Plan, measure: str) -> tuple[int, int]:
    return plan.costs["dense"][measure], plan.costs["planned"][measure]


def _judge(verification: Verification, record: Record) -> None:
    for check in verification.checks:
        if check.oracle != "control":  # there a difference is what is wanted
            record.errors[check.oracle] = max(record.errors.get(check.oracle, 0.0), check.error)
        if not check.ok:
            _blame(record, f"verify: {check}")


def _blame(record: Record, cause: str) -> None:
    record.cause = f"{record.cause}; {cause}" if record.cause else cause
