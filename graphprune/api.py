"""The walk in Python: load, analyse, plan, apply, verify, save; and `prune`, which takes all steps but the last.

    >>> import graphprune as gp                                          # doctest: +SKIP
    >>> dense = gp.load("dense.onnx")                                    # doctest: +SKIP
    >>> plan = gp.plan(dense, macs=0.6)                                  # doctest: +SKIP
    >>> small = gp.apply(dense, plan)                                    # doctest: +SKIP
    >>> assert gp.verify(dense, small, plan).ok                          # doctest: +SKIP
    >>> gp.save(small, "small.onnx")                                     # doctest: +SKIP

A model is an `onnx_ir.Model`, or one of PyTorch: an `nn.Module`, a `torch.fx.GraphModule` or an `ExportedProgram`. A
module is captured by running it, so functions that look at one take example inputs: a tensor, a tuple of arguments, or
a dict of keyword arguments. No function changes the model that it is given, but `prune_`, `mask` and `shrink`.

    >>> small = gp.prune(module, images, macs=0.5).model                  # doctest: +SKIP

Every failure that a user can act on is a GraphPruneError with a code of `graphprune.codes`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.model_files import PROGRAM, check_kind
from graphprune.recipes import followed

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.calibrate import Calibration
    from graphprune.cost import Cost
    from graphprune.dims import Keep
    from graphprune.plan import Plan
    from graphprune.report import Report
    from graphprune.verify import Verification

Model = Any
"""A model of some dialect; `onnx_ir.Model` for ONNX."""

_OF_TORCH = frozenset({"Module", "ExportedProgram"})


@dataclass(frozen=True)
class Result:
    """What pruning made of a model.

    model:  the pruned model, of the type that went in
    plan:   what it keeps of every group
    report: costs before and after, and what was skipped and why; `print(result.report)`
    verification: the outcome of the checks; None when they were not asked for
    """

    model: Model
    plan: Plan
    report: Report
    verification: Verification | None = None


def load(
    source: str | os.PathLike[str] | Callable[[], Model],
    folder: str | os.PathLike[str] | None = None,
    example_inputs: Any = None,
) -> Model:
    """Read a model; the dialect follows from the suffix (`.onnx`, `.pb`; `.pt2` for exported programs).

    External data is mapped, not loaded.

    A pruned module is loaded from the folder that :func:`save` wrote, with what makes the dense one (a class, or a
    function without arguments) as `source`; see `graphprune.torch.load`.
    Nothing in the file is executed: files that need unpickling are refused. Raises GraphPruneError: GP101 where a file
    is missing or unreadable, GP102 where it is not a valid model, GP103 where it is of a kind that cannot be read,
    GP109 where it is hostile or beyond the limits.
    """
    if callable(source):
        if folder is None:
            raise GraphPruneError(
                "GP107", "there is no folder to load the weights from", "gp.load(constructor, folder)"
            )
        from graphprune.torch import load as load_module

        return load_module(source, folder, example_inputs)
    check_kind(os.fspath(source))
    if Path(source).suffix.lower() == PROGRAM:
        from graphprune.torch import programs

        return programs.load(source)
    from graphprune.dialects.onnx import files

    return files.load(source)


def save(model: Model, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write a model, whole or not at all; the files written.

    Weights that were external stay external, in `path` with `.data` added. An older file at `path` is replaced.
    A pruned module becomes a folder: safetensors, its plan, and what the dense class needs to become it; no pickle.
    Raises GraphPruneError: GP103 where it is of another kind; GP104 where this would overwrite a file of the model
    that the weights come from, unless `overwrite`; GP105 where it cannot be written.
    """
    if is_of_torch(model):
        if type(model).__name__ == "ExportedProgram":
            from graphprune.torch import programs

            return programs.save(model, path)
        from graphprune.torch import save as save_module

        return save_module(model, path)
    from graphprune.dialects.onnx import files, tools

    if tools_of(model) is not tools.ONNX:
        raise GraphPruneError("GP103", f"a {type(model).__name__} is not an ONNX model, and only those are written")
    return files.save(model, path, overwrite=overwrite)


def is_of_torch(model: object) -> bool:
    """Whether a model is one of PyTorch; told by the names of its classes, so that torch is not imported."""
    return any(
        each.__name__ in _OF_TORCH and each.__module__.partition(".")[0] == "torch" for each in type(model).__mro__
    )


def _makes_module(model: object) -> bool:
    """Whether a cut makes a module: of a model of PyTorch, and of the analysis of a module."""
    source = getattr(getattr(getattr(model, "program", None), "native", None), "source", None)
    return is_of_torch(model) or is_of_torch(source)


def analyze(
    model: Model, example_inputs: Any = None, *, rules: Mapping[str, Any] | None = None, dynamic: bool = True
) -> Analysis:
    """Find the dimensions of a model: what is coupled, what can be pruned (`.groups`), what not and why (`.refusals`).

    example_inputs: what a module is captured with; not for ONNX
    dynamic: leave batch and sequence axes of a module open
    rules: rows in axis notation for operators that have none, by name (`domain:Name` outside the standard domain)
    Raises GraphPruneError: GP102 where the graph is not one, GP109 where it is nested too deep; GP107 where example
    inputs are missing, GP112 where a module cannot be captured.
    """
    from graphprune.analysis import analyze_program

    if is_of_torch(model):
        from graphprune.torch import pruning

        return pruning.analyze(model, example_inputs, dynamic=dynamic, rules=rules)
    return analyze_program(tools_of(model).read(model, rules))


def plan(
    model: Model | Analysis,
    example_inputs: Any = None,
    *,
    macs: float | None = None,
    params: float | None = None,
    bytes: float | None = None,
    latency: float | None = None,
    ratio: float | None = None,
    criterion: Any = "l2",
    reduction: str = "mean",
    normalize: str = "mean",
    allocate: str = "global",
    max_ratio: float = 0.9,
    min_width: int = 1,
    align: int | Literal["auto"] = 1,
    ignore: Sequence[str] = (),
    only: Sequence[str] = (),
    heads: str = "both",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    calibration: Any = None,
    steps: int = 1,
    refit: str | Sequence[str] = (),
    depth: int | Literal["auto"] | None = None,
    depth_by: Any = "block_influence",
    depth_unit: int = 1,
    tell: Callable[[str], None] | None = None,
    **measuring: Any,
) -> Plan:
    """Decide what to keep of every group; no weight is changed. The same arguments give the same plan.

    example_inputs: what a module is captured with; not for ONNX
    macs, params, bytes, latency: the share of multiply-accumulates, parameters, bytes of weights or time of one run
                that may remain, in (0, 1]; several are all met
    ratio:      the share of all channels to remove, in [0, 1); of every group alike with allocate="uniform"
    criterion:  how channels are scored: a name of `graphprune.criteria`, an object of a kind that is described there, a
                function from the weights of channels ``[channels, numbers]`` to their scores, or ``"module:function"``
    reduction:  how the scores of coupled tensors become one: sum, mean, max or l2
    normalize:  how groups are made comparable; allocate: how the cut is divided among them (`graphprune plan --help`)
    max_ratio:  the largest share of a group that may go; min_width: the fewest channels that stay
    align:      kept widths are multiples of this; "auto" chooses per group
    ignore, only: patterns of tensors or groups to leave alone, or to prune alone; heads: heads, their width, or both
    sizes:      numbers for dynamic axes by name, for costs; the model's own default, else 1, where not given
    calibration: data for criteria that look at some: what `graphprune.calibration` returns, or anything it takes
    depth, depth_by, depth_unit: how many residual blocks go, or "auto", which tells (tell): see `graphprune.depth.plan`
    steps:      in how many cuts the budget is reached; refit: recoveries of what is left before it is scored anew
    measuring:  `latency_table`, `threads`, `stopwatch`: see :class:`graphprune.latency.measure.Measurements`
    Raises GraphPruneError: GP106 and GP107 for options, GP701 to GP704 for data; BudgetNotMet: GP301 and GP302.
    """
    from graphprune.steps import planned

    analysis = analysis_of(model, example_inputs)
    return planned(
        analysis, steps=steps, refit=refit, macs=macs, params=params, bytes=bytes, ratio=ratio, criterion=criterion,
        reduction=reduction, normalize=normalize, allocate=allocate, max_ratio=max_ratio, min_width=min_width,
        align=align, ignore=tuple(ignore), only=tuple(only), heads=heads, seed=seed, sizes=dict(sizes or {}),
        calibration=calibrated(analysis, calibration, seed, sizes), depth=depth, depth_by=depth_by,
        depth_unit=depth_unit, tell=tell, latency=latency, **measuring,
    )  # fmt: skip


def calibrated(analysis: Analysis, source: Any, seed: int = 0, sizes: Mapping[str, int] | None = None) -> Any:
    """The calibration that an option asks for; None where it asks for none."""
    if source is None:
        return None
    from graphprune.data.calibration import calibration

    return calibration(source, analysis, seed=seed, sizes=sizes)


def apply(model: Model | Analysis, plan: Plan, example_inputs: Any = None) -> Model:
    """A new model without what the plan does not keep; same interface, same names. A module as :func:`prune` makes it.

    Raises GraphPruneError GP501 where the plan was made for another architecture.
    """
    from graphprune.apply import apply_plan

    if _makes_module(model):
        return prune(model, example_inputs, plan=plan, verify=False).model
    return apply_plan(analysis_of(model), plan)


def prune(
    model: Model,
    example_inputs: Any = None,
    *,
    verify: bool = True,
    recover: str | Sequence[str] = (),
    recipe: str | None = None,
    **options: Any,
) -> Result:
    """Plan, apply and verify; options as for :func:`plan`. `.model` is of the kind that went in.

    recover: what to do for the weights that stay, in this order and after the checks: names of `graphprune.recover`;
             computed from `calibration`, nothing is trained
    max_drop: instead of a budget, or with one as the lowest share: the largest cut that loses no more of `metric`
             (`accuracy`, ``"module:function"``, or a function of outputs and labels) on `validation` data, or on a
             part of `calibration` that is held out; `probes`, `resume`: a file of what was tried. See `graphprune.drop`
    rules:   as for :func:`analyze`
    recipe:  a name of `graphprune.recipes`: options that go together; "auto" chooses by whether there is data. What is
             given beside it comes first

    For PyTorch also `plan=`, `as_graph=` and `dynamic=`: see :func:`graphprune.torch.pruning.prune`.
    Raises GraphPruneError as `plan` does, GP401 where the pruned model is wrong (nothing is returned then) and GP402
    where it could not be compared; pass verify=False to do without.
    """
    if "max_drop" in options:
        from graphprune.drop import prune_within

        return prune_within(model, example_inputs, verify=verify, recover=recover, recipe=recipe, **options)
    if _makes_module(model):
        from graphprune.torch import pruning

        return pruning.prune(model, example_inputs, verify=verify, recover=recover, recipe=recipe, **options)
    analysis = analysis_of(model, example_inputs, options.pop("rules", None))
    seed, sizes = options.get("seed", 0), options.get("sizes")
    data = calibrated(analysis, options.pop("calibration", None), seed, sizes)
    options, recover, notes = followed(recipe, options, recover, data)
    made = plan(analysis, **stepped(options, recover), calibration=data)
    result = result_of(analysis, made, sizes=sizes)
    result = replace(result, report=result.report.with_(notes=(*result.report.notes, *notes)))
    if verify:
        verification = _verified(analysis, result.model, made, seed, sizes)
        result = Result(result.model, made, result.report.with_(verification=verification), verification)
    from graphprune.latency.outcome import timed

    return timed(analysis, recovered(analysis, result, recover, data, seed), options)


def stepped(options: dict[str, Any], recover: str | Sequence[str]) -> dict[str, Any]:
    """Options of a plan; one in steps, or without blocks, scores networks recovered as the last one will be."""
    several = options.get("steps", 1) != 1 or options.get("depth") is not None
    return {"refit": recover, **options} if several else options


def recovered(
    analysis: Analysis, result: Result, recover: str | Sequence[str], calibration: Calibration | None, seed: int = 0
) -> Result:
    """A result whose model has other weights of the same shapes; its plan says so, its report what was done.

    Raises GraphPruneError: GP106 for names that are not known, GP701 to GP704 for the data.
    """
    if not recover:
        return result
    from graphprune.recover.run import checked, on_outputs
    from graphprune.recover.run import recover as refit

    names = checked(recover, calibration)
    if not names or calibration is None:
        return result
    done = refit(analysis, result.plan.keep(analysis), result.model, names, calibration, seed)
    plan = replace(result.plan, options={**result.plan.options, "recover": list(names)})
    outputs = on_outputs(analysis, result.model, done.model, calibration)
    report = result.report.with_(notes=(*result.report.notes, *done.notes, *outputs))
    return Result(done.model, plan, report, result.verification)


def prune_(model: Model, example_inputs: Any = None, **options: Any) -> Result:
    """Prune an nn.Module in place, parameters staying the same objects; see :func:`graphprune.torch.pruning.prune_`."""
    from graphprune.torch import pruning

    return pruning.prune_(_module(model), example_inputs, **options)


def mask(model: Model, plan: Plan, example_inputs: Any) -> None:
    """Show an nn.Module with zeros where a plan removes entries, to look before the cut; `shrink` makes it real.

    Parameters stay the same objects; `graphprune.torch.unmask` takes the masks off again.
    """
    from graphprune.torch import pruning

    pruning.mask(_module(model), plan, example_inputs)


def shrink(model: Model, example_inputs: Any) -> Result:
    """Remove what the masks of :func:`mask` hide, in place. Raises GraphPruneError GP107 where there are none."""
    from graphprune.torch import pruning

    return pruning.shrink(_module(model), example_inputs)


def _module(model: Model) -> Model:
    if is_of_torch(model):
        return model
    raise GraphPruneError("GP103", f"a {type(model).__name__} is not an nn.Module", remedy="gp.prune makes a new model")


def _verified(
    analysis: Analysis, pruned: Model, plan: Plan, seed: int, sizes: Mapping[str, int] | None
) -> Verification:
    from graphprune.verify import verify_models

    found = verify_models(analysis.program.native, pruned, plan, seed=seed, sizes=sizes, rules=analysis.program.rules)
    require(found)
    return found


def require(verification: Verification) -> None:
    """Raise GraphPruneError GP401, with the first failed check, unless all hold."""
    failed = [check for check in verification.checks if not check.ok]
    if not verification.ok:
        what = "the pruned model does not compute what it should"
        raise GraphPruneError("GP401", what, "; ".join(map(str, failed[:3])) or "no check could be made")


def result_of(analysis: Analysis, plan: Plan, *, sizes: Mapping[str, int] | None = None) -> Result:
    """Apply a plan and report on it, without verifying. Raises GraphPruneError GP501 as :func:`apply` does."""
    from graphprune.apply import apply_plan
    from graphprune.depth.apply import reported

    analysis.program.check_sizes(sizes)
    keep, small = plan.keep(analysis), apply_plan(analysis, plan)
    report = reported(report_of(analysis, keep, sizes=sizes), plan, small, sizes)
    return Result(small, plan, report.with_(free=free_of(analysis, keep), notes=(*report.notes, *plan_notes(plan))))


def plan_notes(plan: Plan) -> tuple[str, ...]:
    """What a report says of how a plan was made: of the data, and of ways to divide a budget that were tried."""
    source, tried = plan.options.get("calibration"), plan.options.get("tried", ())
    return (*((f"calibration data: {source}",) if source else ()), *plan.options.get("divided", ()), *tried)


def report_of(analysis: Analysis, keep: Keep, *, sizes: Mapping[str, int] | None = None) -> Report:
    """Costs before and after a cut, and what cannot be cut and why."""
    from graphprune.cost import measures
    from graphprune.report import Report, skipped
    from graphprune.run_sizes import assumed

    dense, pruned = measures(analysis, [{}, keep], sizes, count_nonzeros=True)
    return Report(
        model=tools_of(analysis.program.native).origin(analysis.program.native) or analysis.program.name,
        dense=dense,
        pruned=pruned,
        groups=len(analysis.groups),
        cut=sum(group.dim in keep and len(keep[group.dim]) < group.size for group in analysis.groups),
        skipped=skipped(analysis),
        notes=assumed(analysis, sizes),
    )


def free_of(analysis: Analysis, keep: Keep | None = None) -> tuple[int, int]:
    """How many entries are dead or constant, so that removing them changes nothing, and how many of these a cut takes.

    Reads all weights once. More entries can be dead when these are gone: :func:`clean` goes on until there are none.
    """
    from graphprune.dead import free_entries

    found, taken = free_entries(analysis), 0
    for dim, entries in found.items():
        kept = None if keep is None else keep.get(dim)
        taken += 0 if kept is None else int(entries.sum() - entries[kept].sum())
    return sum(int(entries.sum()) for entries in found.values()), taken


def cost(analysis: Analysis, keep: Keep | None = None, *, sizes: Mapping[str, int] | None = None) -> Cost:
    """Parameters, non-zeros, bytes of weights, multiply-accumulates and peak bytes of activations under a cut."""
    from graphprune.cost import measure

    analysis.program.check_sizes(sizes)
    return measure(analysis, keep or {}, sizes or {}, count_nonzeros=True)


def clean(model: Model, *, sizes: Mapping[str, int] | None = None) -> Result:
    """Remove dead and constant channels only: the outputs stay what they were, up to rounding.

    sizes: numbers for dynamic axes by name, for the costs in the report
    Raises GraphPruneError as :func:`analyze` does.
    """
    from graphprune.registry import Registry

    # Passes import the core and not the other way round; this one is asked for by name, as any other could be.
    pass_ = Registry("graphprune.passes", {"clean": "graphprune.passes.clean:Clean"}).load("clean")()
    result: Result = pass_.apply(model).report
    if sizes:
        analysis = analyze(model)
        analysis.program.check_sizes(sizes)
        return Result(result.model, result.plan, report_of(analysis, result.plan.keep(analysis), sizes=sizes))
    return result


def verify(
    dense: Model,
    pruned: Model,
    plan: Plan | None = None,
    *,
    example_inputs: Any = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    rules: Mapping[str, str] | None = None,
) -> Verification:
    """Prove that a pruned model is right (see `graphprune.verify`): `.ok`, and one check per oracle and output.

    plan:  what was kept; without it only the interface and the couplings can be checked
    sizes: numbers for dynamic axes of the inputs, by name
    rules: those that :func:`analyze` was given
    Raises GraphPruneError: GP402 where the models cannot be run, GP501 where the plan does not fit.
    """
    from graphprune.verify import verify_models

    if is_of_torch(dense) and is_of_torch(pruned):
        from graphprune.torch import pruning

        dense, pruned = (pruning.captured(each, example_inputs) for each in (dense, pruned))
    return verify_models(dense, pruned, plan, seed=seed, sizes=sizes, rules=rules)


def analysis_of(
    model: Model | Analysis, example_inputs: Any = None, rules: Any = None, dynamic: bool = True
) -> Analysis:
    """The analysis of a model, or the one that is given; arguments as for :func:`analyze`."""
    from graphprune.analysis import Analysis

    if not isinstance(model, Analysis):
        return analyze(model, example_inputs, rules=rules, dynamic=dynamic)
    if rules:
        raise GraphPruneError("GP107", "an analysis has its rules already", "option rules", "gp.analyze(model, rules=)")
    return model
