"""Pruning models of PyTorch from the command line: what comes out is said by the name of the output."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune import api
from graphprune.cli.console import Console
from graphprune.cli.options import Inputs, Writing
from graphprune.cli.source import Source, is_callable
from graphprune.errors import GraphPruneError
from graphprune.output import Outputs

if TYPE_CHECKING:
    from graphprune.verify import Verification

_PLAN = ".plan.json"


@dataclass(frozen=True)
class TorchJob:
    """A model of PyTorch on its way through a command. ``options`` are those of a plan, or the plan itself; ``recover``
    is what to do after the cut, ``notes`` what the report says first."""

    dense: Path
    out: Path
    source: Source
    options: dict[str, Any]
    writing: Writing
    console: Console
    inputs: Inputs
    recover: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_output(dense: Path, out: Path, writing: Writing) -> None:
    """Find out early what would go wrong when writing. Raises GraphPruneError GP104, GP105 or GP107."""
    suffix = out.suffix.lower()
    if suffix not in {"", ".pt2", ".onnx"} and not out.is_dir():
        remedy = "write a name with .pt2 or .onnx, or one without a suffix for a checkpoint folder"
        what = f"a model of PyTorch is not written as {suffix}"
        raise GraphPruneError("GP107", what, "argument OUT", remedy)
    if suffix not in {".pt2", ".onnx"} and not is_callable(dense):
        what = "an exported program has no class that a checkpoint folder could be loaded into"
        raise GraphPruneError("GP107", what, "argument OUT", "write a name with .pt2 or .onnx")
    if writing.bench:
        what = "--bench measures ONNX models only"
        raise GraphPruneError("GP107", what, "option --bench", "write .onnx, and run graphprune bench on two of them")
    if dense.exists() and out.exists() and os.path.samefile(dense, out) and not writing.in_place:
        remedy = "choose another output path, or allow it with --in-place"
        raise GraphPruneError("GP104", "the output is the input model", str(out), remedy)
    if not writing.dry_run:
        with Outputs(out.with_name(f"{out.name}{_PLAN}")):
            pass  # that the folder can be written is worth knowing before the work


def run(job: TorchJob) -> int:
    """Prune, verify, write, report."""
    console = job.console
    result, failed = _pruned(job)
    report = result.report.with_(notes=(*job.notes, *result.report.notes))
    if job.writing.dry_run:
        console.show(report.to_text() + "\n\ndry run: nothing was written", report.to_dict())
        return 0
    if not job.writing.no_verify:
        with console.working("verifying"):
            verification = _verified(job, result)
        report = report.with_(verification=verification)
        try:
            api.require(verification)
        except GraphPruneError as error:
            if not job.writing.keep_failed:
                raise
            failed = failed or error
    with console.working("writing"):
        written = _written(job, result)
    console.show((report.with_(written=written)).to_text(), report.with_(written=written).to_dict())
    if job.writing.no_verify:
        console.say("not verified (--no-verify): run graphprune verify before using it")
    if failed is not None:
        raise failed
    return 0


def _pruned(job: TorchJob) -> tuple[api.Result, GraphPruneError | None]:
    """The pruned model. Where its weights are to be recovered, it is verified before that, when it can still be held
    against the masked dense one; the failure, where the result is wanted in spite of it."""
    from graphprune.torch import pruning

    source, inputs, options = job.source, job.inputs, job.options
    if "plan" not in options:
        options = {**options, "seed": inputs.seed, "sizes": inputs.sizes}
    recover = () if job.writing.dry_run else job.recover
    what = f", and recovering: {', '.join(recover)}" if recover else ""
    with job.console.working(f"finding what is coupled and cutting{what}"):
        verify, failed = bool(recover) and not job.writing.no_verify, None
        try:
            return pruning.prune(source.model, source.example_inputs, verify=verify, recover=recover, **options), None
        except GraphPruneError as error:
            if not verify or error.code != "GP401" or not job.writing.keep_failed:
                raise
            failed = error
        return pruning.prune(source.model, source.example_inputs, verify=False, recover=recover, **options), failed


def _verified(job: TorchJob, result: api.Result) -> Verification:
    from graphprune.verify import Verification

    sizes, seed = job.inputs.sizes, job.inputs.seed
    after = api.verify(
        job.source.model, result.model, result.plan, example_inputs=job.source.example_inputs, seed=seed, sizes=sizes
    )
    before = () if result.verification is None else result.verification.checks
    return Verification((*before, *after.checks))


def _written(job: TorchJob, result: api.Result) -> tuple[str, ...]:
    """Write what the name of the output asks for; what was written, the model first."""
    from graphprune.torch import programs, save

    suffix = job.out.suffix.lower()
    if suffix not in {".pt2", ".onnx"}:
        save(result.model, job.out)
        return (str(job.out),)
    program = programs.exported(result.model, job.source.example_inputs)
    with Outputs(job.out) as outputs:
        if suffix == ".pt2":
            names = programs.stage(program, outputs)
        else:
            from graphprune.dialects.onnx import files

            names = files.stage(programs.to_onnx(program), outputs, overwrite=job.writing.in_place)
        plan = f"{outputs.destination.stem}{_PLAN}"
        outputs.path(plan).write_text(result.plan.to_json(), encoding="utf-8")
        paths = outputs.commit([plan, *names])
    return tuple(str(job.out.parent / path.name) for path in reversed(paths))
