"""`graphprune sparsify` and `graphprune formats`: from a model file to one with zeros that kernels can use, checked
before it appears."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from graphprune import api
from graphprune.cli.console import Console
from graphprune.cli.options import Before, Data, Inputs, Output, Writing, _option, _remaining, _removed, taking
from graphprune.cli.prune import In, Out, calibrated, check_output, plan_path
from graphprune.cli.source import Module, Source, is_callable, read
from graphprune.errors import GraphPruneError
from graphprune.output import Outputs

if TYPE_CHECKING:
    from graphprune.plan import Plan
    from graphprune.sparsity.report import SparsityReport
    from graphprune.sparsity.run import Sparsified
    from graphprune.verify import Verification

_PANEL: dict[str, Any] = {"rich_help_panel": "What to make sparse"}
_OF_TORCH = (".pt2", ".onnx", ".safetensors")


@dataclass(frozen=True)
class Zeros:
    """Which zeros to write: the arguments of `graphprune.sparsify`."""

    format: Annotated[
        str | None,
        _option("--format", help="8x1, 2:4, 2:4/8, unstructured, ...: see graphprune formats.", **_PANEL),
    ] = None
    sparsity: Annotated[
        float | None,
        _option(
            "--sparsity",
            help="Share of weights to remove: 0.9 or 90%. Not for formats that fix it, such as 2:4.",
            parser=_removed("--sparsity"),
            metavar="SHARE",
            **_PANEL,
        ),
    ] = None
    macs: Annotated[
        float | None,
        _option(
            "--macs",
            help="In its place: the share of multiply-accumulates to leave; channels and zeros compete for it.",
            parser=_remaining("--macs"),
            metavar="SHARE",
            **_PANEL,
        ),
    ] = None
    criterion: Annotated[
        str,
        _option(
            "--criterion",
            help="How single weights are scored: l2 (their squares), other criteria of weights, wanda, obs.",
            show_default=True,
            **_PANEL,
        ),
    ] = "l2"
    allocate: Annotated[
        str,
        _option(
            "--allocate",
            help="uniform: the same in every layer; erk: by size; smart: by place; global, lamp: in all together.",
            show_default=True,
            **_PANEL,
        ),
    ] = "uniform"
    recover: Annotated[
        str,
        _option(
            "--recover",
            help="For what stays, from calibration data: sparsegpt, least_squares, batch_norm, in this order; or none.",
            metavar="NAMES",
            show_default=True,
            rich_help_panel="Calibration data",
        ),
    ] = "none"
    permute: Annotated[
        bool,
        _option(
            "--permute",
            help="For N:M: first put coupled channels into the order in which zeros leave the most importance.",
            **_PANEL,
        ),
    ] = False
    ignore: Annotated[
        list[str],
        _option(
            "--ignore", help="Leave weights or operators dense that match (repeatable).", metavar="PATTERN", **_PANEL
        ),
    ] = field(default_factory=list)
    only: Annotated[
        list[str],
        _option(
            "--only",
            help="Make only these sparse, also such as would be left dense on purpose (repeatable).",
            metavar="PATTERN",
            **_PANEL,
        ),
    ] = field(default_factory=list)

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of `graphprune.sparsify`. Raises GraphPruneError: GP107 where there is no format, GP106
        where there is none of this name."""
        from graphprune.formats import parse

        if self.format is None:
            raise GraphPruneError("GP107", "it was not said in which format", "", "add --format 8x1 --sparsity 0.9")
        return {
            "format": parse(self.format),
            "sparsity": self.sparsity,
            "criterion": self.criterion,
            "allocate": self.allocate,
            "recover": self.recover,
            "permute": self.permute,
            "only": tuple(self.only),
            "ignore": tuple(self.ignore),
        }


@taking
def sparsify(
    dense: In,
    out: Out,
    zeros: Zeros,
    data: Data,
    before: Before,
    module: Module,
    writing: Writing,
    inputs: Inputs,
    output: Output,
) -> int:
    """Write zeros into weights in a pattern that kernels can use, prove the result right and write it.

    The shapes stay; runtimes that know nothing of zeros are as fast as before.

    graphprune sparsify bert.onnx sparse.onnx --format 4x1 --sparsity 0.9
    graphprune sparsify bert.onnx sparse.onnx --format 2:4 --criterion wanda --calibration data.npz
    graphprune sparsify bert.onnx sparse.onnx --format 4x1 --macs 0.2 --calibration data.npz    # fewer channels, too
    """
    arguments = {**zeros.arguments(), "calibration": data.request()}
    _check(dense, out, writing)
    console = output.console
    with console.working("reading"):
        source = read(dense, before, module, inputs.seed)
    job = _Job(dense, out, source, arguments, writing, console, inputs)
    if zeros.macs is not None:
        job = _narrowed(job, zeros.macs)
    return _module(job) if source.is_of_torch else _onnx(job)


@dataclass(frozen=True)
class _Job:
    """A model on its way through the command; ``options`` are those of `graphprune.sparsify`, ``plan`` is what was cut
    before, and ``notes`` are what a report says of that."""

    dense: Path
    out: Path
    source: Source
    options: dict[str, Any]
    writing: Writing
    console: Console
    inputs: Inputs
    plan: Plan | None = None
    notes: tuple[str, ...] = ()

    def show(self, report: SparsityReport, failed: GraphPruneError | None = None) -> int:
        """Print the report; then raise what the checks found."""
        dry = "\n\ndry run: nothing was written" if self.writing.dry_run else ""
        report = report.with_(notes=(*self.notes, *report.notes))
        self.console.show(report.to_text() + dry, report.to_dict())
        if self.writing.no_verify and not self.writing.dry_run:
            self.console.say("not verified (--no-verify)")
        if failed is not None:
            raise failed
        return 0

    def required(self, verification: Verification) -> GraphPruneError | None:
        """What failed where the result is wanted in spite of it; raises it where not."""
        try:
            api.require(verification)
        except GraphPruneError as error:
            if not self.writing.keep_failed:
                raise
            return error
        return None


def _narrowed(job: _Job, macs: float) -> _Job:
    """With the channels cut that leave room for zeros, and the sparsity that is left to be reached."""
    from graphprune.sparsity.divide import prune_to

    console, source = job.console, job.source
    with console.working("dividing the budget"):
        narrow = prune_to(
            source.model, source.example_inputs, macs=macs, tell=console.say, seed=job.inputs.seed,
            sizes=job.inputs.sizes, verify=not job.writing.no_verify, **job.options,
        )  # fmt: skip
    options = {**job.options, "sparsity": narrow.division.best.sparsity, "calibration": narrow.calibration}
    return replace(job, source=replace(source, model=narrow.model), options=options, plan=narrow.plan,
                   notes=narrow.notes)  # fmt: skip


def _check(dense: Path, out: Path, writing: Writing) -> None:
    """Find out early what would go wrong when writing. Raises GraphPruneError GP104, GP105 or GP107."""
    if writing.bench:
        what = "--bench measures with onnxruntime, which multiplies by zeros as by other numbers"
        raise GraphPruneError("GP107", what, "option --bench", "leave it out")
    if not is_callable(dense) and dense.suffix.lower() != ".pt2":
        check_output(dense, out, writing)
        return
    known = _OF_TORCH if is_callable(dense) else _OF_TORCH[:2]
    if out.suffix.lower() not in known:
        what = f"a sparse model of PyTorch is not written as {out.suffix or 'a folder'}"
        raise GraphPruneError("GP107", what, "argument OUT", f"write a name with {', '.join(known)}")
    if dense.exists() and out.exists() and os.path.samefile(dense, out) and not writing.in_place:
        remedy = "choose another output path, or allow it with --in-place"
        raise GraphPruneError("GP104", "the output is the input model", str(out), remedy)
    if not writing.dry_run:
        with Outputs(out):
            pass  # that the place can be written is worth knowing before the work


def _onnx(job: _Job) -> int:
    from graphprune.dialects.onnx import files
    from graphprune.sparsity.check import verify_sparse
    from graphprune.sparsity.recover import checked
    from graphprune.sparsity.run import Arranged, arranged, decided, sparsified

    console, writing, seed = job.console, job.writing, job.inputs.seed
    with console.working("analysing"):
        analysis = job.source.analysis()
    analysis.program.check_sizes(job.inputs.sizes)
    recover = checked(job.options["recover"], job.options["calibration"])
    options = job.options if job.notes else calibrated(analysis, job.options, job.inputs, console, recover)
    start, options = Arranged(analysis), {**options}
    if options.pop("permute"):
        with console.working("ordering channels"), writing.verifying():
            start = arranged(analysis, verify=not writing.no_verify and not writing.dry_run, seed=seed,
                             sizes=job.inputs.sizes, **options)  # fmt: skip
            analysis = start.analysis
    with console.working("choosing zeros"):
        choice = decided(analysis, **options, seed=seed)
        result = start.told(sparsified(analysis, choice, verify=False, calibration=options["calibration"]))
    report, failed = result.report, None
    if writing.dry_run:
        return job.show(report)
    with Outputs(job.out) as outputs:
        with console.working("writing"):
            names = files.stage(result.model, outputs, overwrite=writing.in_place)
        if not writing.no_verify:
            with console.working("verifying"), writing.verifying():
                written = files.load(outputs.path(outputs.destination.name))  # the file, not the model in memory
                found = verify_sparse(
                    analysis, written, choice.layers, others=choice.others, seed=seed, sizes=job.inputs.sizes
                )
            found = start.checked(found)
            report, failed = report.with_(verification=found), job.required(found)
        paths = outputs.commit([*_staged_plan(job, outputs), *names])
    return job.show(_written(report, job, paths), failed)


def _module(job: _Job) -> int:
    result, failed = _sparse_module(job)
    if job.writing.dry_run:
        return job.show(result.report)
    with job.console.working("writing"), Outputs(job.out) as outputs:
        names = _writer(job.out)(job, result, outputs)
        paths = outputs.commit([*_staged_plan(job, outputs), *names])
    return job.show(_written(result.report, job, paths), failed)


def _sparse_module(job: _Job) -> tuple[Sparsified, GraphPruneError | None]:
    """The sparse model, with zeros as numbers; and what the checks found where it is wanted in spite of that."""
    from graphprune.torch.sparse import sparsify as sparsify_module

    verify = not job.writing.no_verify and not job.writing.dry_run
    options = {**job.options, "masks": False, "seed": job.inputs.seed, "sizes": job.inputs.sizes}
    with job.console.working("choosing zeros"):
        try:
            return sparsify_module(job.source.model, job.source.example_inputs, verify=verify, **options), None
        except GraphPruneError as error:
            if error.code != "GP401" or not job.writing.keep_failed:
                raise
            failed = error
        return sparsify_module(job.source.model, job.source.example_inputs, verify=False, **options), failed


def _staged_plan(job: _Job, outputs: Outputs) -> list[str]:
    """The plan of channels that were cut, beside the model."""
    if job.plan is None:
        return []
    name = plan_path(outputs.destination).name
    outputs.path(name).write_text(job.plan.to_json(), encoding="utf-8")
    return [name]


def _writer(out: Path) -> Callable[[_Job, Sparsified, Outputs], list[str]]:
    return _stage_weights if out.suffix.lower() == ".safetensors" else _stage_program


def _stage_weights(job: _Job, result: Sparsified, outputs: Outputs) -> list[str]:
    """The weights alone, for the class that they came from."""
    from graphprune.torch import weights

    destination = outputs.destination
    weights.write(outputs.path(destination.name).parent, destination.stem, result.model.state_dict(), 1 << 62)
    return [f"{destination.stem}.safetensors"]


def _stage_program(job: _Job, result: Sparsified, outputs: Outputs) -> list[str]:
    from graphprune.dialects.onnx import files
    from graphprune.torch import programs

    program = programs.exported(result.model, job.source.example_inputs)
    if job.out.suffix.lower() == ".pt2":
        return programs.stage(program, outputs)
    return files.stage(programs.to_onnx(program), outputs, overwrite=job.writing.in_place)


def _written(report: SparsityReport, job: _Job, paths: list[Path]) -> SparsityReport:
    return replace(report, written=tuple(str(job.out.parent / path.name) for path in reversed(paths)))


@taking
def formats(output: Output) -> int:
    """List the sparsity formats that are installed: how they are written, what is stored, what a kernel needs."""
    from graphprune.formats import FORMATS
    from graphprune.report import table

    data = [_described(name) for name in FORMATS.names()]
    rows = [(each["name"], ", ".join(each["examples"]), each["error"] or each["does"]) for each in data]
    lines = [line.rstrip() for line in table(("format", "written as", "what may be zero"), rows)]
    output.console.show("\n".join(lines), data)
    return 0


def _described(name: str) -> dict[str, Any]:
    """One kind of format, as the list shows it; with the error where it cannot be loaded."""
    import sys
    from dataclasses import asdict

    from graphprune.formats import FORMATS, parse

    entry = next(each for each in FORMATS.entries() if each.name == name)
    found: dict[str, Any] = {"name": name, "package": entry.distribution, "examples": [], "does": "", "needs": None}
    try:
        kind = FORMATS.load(name)
    except GraphPruneError as error:
        return {**found, "error": f"{error.code} {error.what}"}
    text = " ".join((sys.modules[kind.__module__].__doc__ or kind.__doc__ or "").split())
    does = text.partition(" (")[0].partition(": ")[2] or text.partition(". ")[0]
    needs = {example: asdict(parse(example).needs) for example in kind.examples}
    return {**found, "examples": list(kind.examples), "does": does.rstrip("."), "needs": needs, "error": None}
