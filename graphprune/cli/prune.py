"""`graphprune prune` and `graphprune clean`: from a model file to a smaller one, verified before it appears."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune import api
from graphprune.cli import modules
from graphprune.cli.console import Console
from graphprune.cli.criteria import looks_at_data
from graphprune.cli.modules import TorchJob
from graphprune.cli.options import Before, Choices, Data, Depth, Inputs, Output, Steps, Writing, taking
from graphprune.cli.recoveries import Recovery
from graphprune.cli.source import Module, names_torch, read, read_onnx
from graphprune.cli.within import Within
from graphprune.errors import GraphPruneError
from graphprune.output import Outputs

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.calibrate import Calibration
    from graphprune.report import Report
    from graphprune.verify import Verification

_SUFFIXES = (".onnx", ".pb")


In = Annotated[
    Path, typer.Argument(metavar="IN", help="The trained model: .onnx, .pt2 or module:callable.", show_default=False)
]
InOnnx = Annotated[Path, typer.Argument(metavar="IN", help="The trained model: .onnx.", show_default=False)]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Where to write the smaller one.", show_default=False)]


@taking
def prune(
    dense: In,
    out: Out,
    choices: Choices,
    stepwise: Steps,
    blocks: Depth,
    data: Data,
    recovery: Recovery,
    within: Within,
    before: Before,
    module: Module,
    writing: Writing,
    inputs: Inputs,
    output: Output,
) -> int:
    """Prune a model to a budget, prove the result right and write it, with its plan beside it.

    graphprune prune resnet.onnx small.onnx --macs 0.6
    graphprune prune resnet.onnx small.onnx --latency 0.6 --threads 1
    graphprune prune resnet.onnx small.onnx --macs 0.6 --criterion wanda --calibration data.npz
    graphprune prune resnet.onnx small.onnx --macs 0.6 --calibration data.npz --recover least_squares
    graphprune prune resnet.onnx small.onnx --macs 0.6 --calibration data.npz --recipe auto
    graphprune prune resnet.onnx small.onnx --max-drop 0.5% --calibration data.npz --validation other.npz
    graphprune prune decoder.onnx small.onnx --depth 2 --calibration data.npz
    graphprune prune decoder.onnx small.onnx --macs 0.6 --depth auto --calibration data.npz --recover least_squares
    graphprune prune resnet.pt2 small.pt2 --macs 0.6
    graphprune prune mypkg.models:resnet small --weights w.safetensors --input 1,3,224,224 --macs 0.6
    """
    needed = not within.wanted and not blocks.enough
    arguments = {**choices.arguments(needed), **blocks.arguments(), "calibration": data.request()}
    arguments, recover, told = recovery.followed(arguments, arguments["calibration"])
    arguments = api.stepped({**arguments, "steps": stepwise.steps}, recover)
    check_output(dense, out, writing)
    console, sizes = output.console, inputs.sizes
    if told:
        console.say(told)
    with console.working("reading"):
        source = read(dense, before, module, inputs.seed)
    notes: tuple[str, ...] = ()
    if within.wanted and blocks.depth is not None:
        raise GraphPruneError("GP107", "--max-drop searches widths, not blocks", "option --depth", "give one of them")
    if within.wanted:
        arguments, notes = within.found(source.analysis(), arguments, recover, data, inputs, console)
    if blocks.depth == "auto":
        arguments["tell"] = console.say
    if source.is_of_torch:
        return modules.run(TorchJob(dense, out, source, arguments, writing, console, inputs, recover, notes))
    with console.working("finding what is coupled"):
        analysis = source.analysis()
    arguments = calibrated(analysis, arguments, inputs, console, recover)
    with console.working("choosing what to keep"):
        plan = api.plan(analysis, **arguments, seed=inputs.seed, sizes=sizes)
    with console.working("cutting"):
        result = api.result_of(analysis, plan, sizes=sizes)
    result = replace(result, report=result.report.with_(notes=(*notes, *result.report.notes)))
    job = _Job(dense, out, source.model, result, writing, console, inputs)
    if recover and not writing.dry_run:
        job = recovered(job, analysis, recover, arguments["calibration"])
    return finish(_timed(job, analysis, choices))


def calibrated(
    analysis: Analysis, arguments: dict[str, Any], inputs: Inputs, console: Console, recover: Sequence[str] = ()
) -> dict[str, Any]:
    """The arguments with the calibration data that they ask for, read and checked."""
    if arguments["calibration"] is None:
        return arguments
    if "depth" not in arguments and not recover and not looks_at_data(arguments["criterion"]):
        console.say(f"the criterion {arguments['criterion']} looks at no data: see graphprune criteria")
    with console.working("reading calibration data"):
        made = api.calibrated(analysis, arguments["calibration"], inputs.seed, inputs.sizes)
    return {**arguments, "calibration": made}


@taking
def clean(dense: InOnnx, out: Out, before: Before, writing: Writing, inputs: Inputs, output: Output) -> int:
    """Remove dead and constant channels only: the outputs stay what they were.

    graphprune clean trained.onnx cleaned.onnx
    """
    check_output(dense, out, writing)
    console = output.console
    with console.working("reading"):
        model = read_onnx(dense, before, "clean")
    with console.working("looking for dead channels"):
        result = api.clean(model, sizes=inputs.sizes)
    return finish(_Job(dense, out, model, result, writing, console, inputs))


@dataclass(frozen=True)
class _Job:
    """Everything that is known once the smaller model exists in memory."""

    dense: Path
    out: Path
    model: Any
    result: api.Result
    writing: Writing
    console: Console
    inputs: Inputs

    def verified(self, pruned: Any) -> Verification:
        """The checks of a pruned model against the dense one."""
        with self.writing.verifying():
            return api.verify(self.model, pruned, self.result.plan, seed=self.inputs.seed, sizes=self.inputs.sizes)


def recovered(job: _Job, analysis: Analysis, names: Sequence[str], data: Calibration) -> _Job:
    """The cut is verified as it is in memory; then its weights get other numbers, which no longer compute what the
    masked dense model does. What is written is verified once more, as far as that can be told from outside."""
    result = job.result
    if not job.writing.no_verify:
        with job.console.working("verifying the cut"):
            verification = job.verified(result.model)
        failed = _failure(verification)
        if failed is not None and not job.writing.keep_failed:
            raise failed
        result = replace(result, verification=verification)
    with job.console.working(f"recovering: {', '.join(names)}"):
        return replace(job, result=api.recovered(analysis, result, names, data, job.inputs.seed))


def _timed(job: _Job, analysis: Analysis, choices: Choices) -> _Job:
    """With the time of a run measured, where that was a budget."""
    if choices.latency is None:
        return job
    from graphprune.latency.outcome import timed

    with job.console.working("measuring"):
        running = {"threads": choices.threads, "seed": job.inputs.seed, "sizes": job.inputs.sizes}
        return replace(job, result=timed(analysis, job.result, running))


def check_output(dense: Path, out: Path, writing: Writing) -> None:
    """Find out early what would go wrong when writing. Raises GraphPruneError GP104, GP105 or GP107."""
    if names_torch(dense):
        modules.check_output(dense, out, writing)
        return
    if out.suffix.lower() not in _SUFFIXES and not out.is_dir():
        remedy = f"write {out.with_suffix('.onnx').name!r}" if out.name else "name a file"
        raise GraphPruneError("GP107", f"the output {str(out)!r} is not called .onnx", "argument OUT", remedy)
    if not dense.exists():
        return  # reading it will tell
    if out.exists() and os.path.samefile(dense, out) and not writing.in_place:
        remedy = "choose another output path, or allow it with --in-place"
        raise GraphPruneError("GP104", "the output is the input model", str(out), remedy)
    if not writing.dry_run:
        with Outputs(out):
            pass  # makes and removes a folder: that the place can be written is worth knowing before the work


def plan_path(out: Path) -> Path:
    """Where the plan of a pruned model is: `small.onnx` has `small.plan.json`."""
    return out.with_name(f"{out.stem}.plan.json")


def finish(job: _Job) -> int:
    """Write beside the destination, read back, verify, and only then let the files appear; then report."""
    report = job.result.report
    if job.writing.dry_run:
        job.console.show(report.to_text() + "\n\ndry run: nothing was written", report.to_dict())
        return 0
    from graphprune.dialects.onnx import files

    failed = None
    dense_bytes = files.size_of(job.model)
    with Outputs(job.out) as outputs:
        with job.console.working("writing"):
            names = files.stage(job.result.model, outputs, overwrite=job.writing.in_place)
        plan_name = plan_path(outputs.destination).name
        outputs.path(plan_name).write_text(job.result.plan.to_json(), encoding="utf-8")
        if not job.writing.no_verify:
            with job.console.working("verifying"):
                verification = _verify(job, outputs)
            report = report.with_(verification=verification)
            failed = _failure(verification)
            if failed is not None and not job.writing.keep_failed:
                raise failed
        written_bytes = sum(outputs.path(name).stat().st_size for name in names)
        if job.writing.bench:
            report = report.with_(timing=_timing(job, outputs))
        paths = outputs.commit([plan_name, *names])
    shown = [str(job.out.parent / path.name) for path in reversed(paths)]
    report = report.with_(written=tuple(shown))
    if dense_bytes is not None:
        report = report.with_(files=(dense_bytes, written_bytes))
    _tell(report, job)
    if failed is not None:
        raise failed
    return 0


def _tell(report: Report, job: _Job) -> None:
    job.console.show(report.to_text(), report.to_dict())
    if job.writing.no_verify:
        job.console.say("not verified (--no-verify): run graphprune verify before using it")


def _verify(job: _Job, outputs: Outputs) -> Verification:
    """Verify the file that was written, not the model in memory; with what was found of that before."""
    from graphprune.dialects.onnx import files
    from graphprune.verify import Verification

    before = () if job.result.verification is None else job.result.verification.checks
    after = job.verified(files.load(outputs.path(outputs.destination.name)))
    return Verification((*before, *after.checks))


def _failure(verification: Verification) -> GraphPruneError | None:
    try:
        api.require(verification)
    except GraphPruneError as error:
        return error
    return None


def _timing(job: _Job, outputs: Outputs) -> Any:
    from graphprune.dialects.onnx.timing import compare

    with job.console.working("measuring"):
        pruned = outputs.path(outputs.destination.name)
        return compare(job.dense, pruned, seed=job.inputs.seed, sizes=job.inputs.sizes)
