"""`gp.build`: a model becomes an artifact, checked against the model before it appears."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import graphprune
from graphprune.dialects.onnx.runner import has_onnxruntime
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.runtime import Executable, cpu, folder, load
from graphprune.runtime.artifact import Network, Tensor
from graphprune.runtime.manifest import Manifest
from graphprune.targets import TARGETS
from graphprune.targets.interrupts import heard
from graphprune.targets.models import as_onnx, static_shapes
from graphprune.targets.quantised import is_quantised
from graphprune.targets.sizes import several
from graphprune.targets.sizes import write as write_sizes
from graphprune.targets.target import Processor, Target

if TYPE_CHECKING:
    from graphprune.targets.checking import Reference

PRECISIONS = ("float32", "bfloat16")  # of products, the exact one first


@dataclass(frozen=True)
class Built:
    """An artifact: where it is and what is in it. One that was given no place is deleted with this object."""

    path: Path
    manifest: Manifest
    keeper: Any = field(default=None, repr=False)

    def load(self, **options: Any) -> Executable:
        """See `graphprune.runtime.load`."""
        return load(self.path, **options)


def build(
    model: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    target: str = "x86",
    example_inputs: Any = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    sizes: Mapping[str, int | Sequence[int]] | None = None,
    variants: Sequence[str] | None = None,
    precision: str = "float32",
    threads: int = 1,
    tune: float = 60.0,
    force: bool = False,
    verify: bool = True,
    seed: int = 0,
) -> Built:
    """Compile a whole network for a target and write it as an artifact, a folder such as `model.gp`.

    model:    an ONNX file or model, or a module of PyTorch with `example_inputs`
    output:   the folder; default: one that is deleted with the result
    shapes:   of inputs whose axes have no size in the model, by input; `sizes`: the same by the names of axes. With
              several for one, `{"batch": [1, 8]}`, the folder holds an artifact for each: see `runtime.load_sizes`
    variants: the processors to compile for, such as `["v4", "v3"]`; default: all of the target
    precision: `bfloat16` for variants too that round what they multiply, where a processor has instructions for it
    threads:  that one call uses
    tune:     seconds that kernels may be measured for; 0: estimates decide, and the same model gives the same bytes
    force:    replace an artifact that is there
    verify:   run every variant that this machine can run, and compare it with the model; where one differs, nothing is
              written. The first is timed beside onnxruntime as well
    Raises GraphPruneError: what loading raises, GP105 where it cannot be written, GP106 and GP107 for options, GP108
    where TVM or onnxruntime is missing, GP403 where the result is wrong.
    """
    goal = _target(target)
    _check(goal, variants, precision, threads, tune)
    keeper = None
    if output is None:
        keeper = tempfile.TemporaryDirectory(prefix="graphprune-")
        output = Path(keeper.name) / "model.gp"
    folder.check_destination(output, force)
    given = {name: tuple(int(n) for n in shape) for name, shape in (shapes or {}).items()}
    combinations = several(sizes or {})
    with as_onnx(model, example_inputs) as (path, loaded), folder.staged(output, force) as staged:
        processors = chosen(goal, variants, precision, is_quantised(loaded))

        def make(place: Path, chosen_sizes: Mapping[str, int]) -> Manifest:
            static, notes = static_shapes(loaded, given, chosen_sizes)
            with heard():
                network = goal.compile(path, shapes=static, processors=processors, threads=threads, tune=tune)
            manifest = folder.write(place, network, _about(goal, path, model, [*notes, *_judged(verify)]))
            if verify:
                rows, speed = _verified(place, manifest, network, path, loaded, seed)
                manifest = folder.write_manifest(place, replace(manifest, verification=tuple(rows), pace=speed))
            return manifest

        if len(combinations) == 1:
            return Built(Path(output), make(staged, combinations[0]), keeper)
        manifest = write_sizes(
            staged, combinations, make, loaded, _comparing(loaded, seed) if verify else None, processors
        )
    return Built(Path(output), manifest, keeper)


def _check(target: Target, variants: Sequence[str] | None, precision: str, threads: int, tune: float) -> None:
    """What cannot be is refused before anything is read."""
    chosen(target, variants, precision)
    if threads < 1:
        raise GraphPruneError("GP107", f"{threads} is no number of threads", "threads", "give 1 or more")
    if not 0 <= tune < math.inf:
        raise GraphPruneError("GP107", f"{tune} is no number of seconds", "tune", "give 0 or more")


def _comparing(model: Any, seed: int) -> Callable[[Sequence[Tensor]], Reference]:
    from graphprune.targets.checking import Reference

    return lambda tensors: Reference(model, tensors, seed)


def _target(name: str) -> Target:
    kind = TARGETS.load(name)
    target: Target = kind()
    return target


def chosen(
    target: Target, names: Sequence[str] | None, precision: str = "float32", integers: bool = False
) -> tuple[Processor, ...]:
    """Rows of a target by name, or all that round no more than `precision`, the best first; those for `integers` where
    they are wanted, and those that nobody has run so far where this machine can run them. Raises GraphPruneError GP106
    for unknown names, GP107 for none."""
    if precision not in PRECISIONS:
        raise GraphPruneError(
            "GP106", f"{precision!r} is no precision", "precision", did_you_mean(precision, PRECISIONS)
        )
    known = {each.name: each for each in target.processors}
    for name in names or ():
        if name not in known:
            what = f"the target {target.name} has no variant {name!r}"
            raise GraphPruneError("GP106", what, "variants", did_you_mean(name, known))
    if names is not None and not names:
        raise GraphPruneError("GP107", "no variant was chosen", "variants", f"known: {', '.join(known)}")
    if names is not None:
        return tuple(each for each in target.processors if each.name in names)
    allowed = PRECISIONS[: PRECISIONS.index(precision) + 1]
    fit = [each for each in target.processors if each.rounding in allowed and integers >= each.integers]
    return tuple(each for each in fit if each.proven or each.runs_on(cpu.cpu()))


def _judged(verify: bool) -> list[str]:
    """What is worth knowing about what the build was compared with."""
    missing = verify and not has_onnxruntime()
    return ["onnxruntime is not installed, so the reference evaluator of onnx was compared with"] if missing else []


def _about(target: Target, path: Path, model: Any, notes: Sequence[str]) -> Manifest:
    """What is known before compiling. The name of a source is that of its file alone: artifacts travel."""
    name = Path(model).name if isinstance(model, str | os.PathLike) else type(model).__name__
    source = {"name": name, "sha256": folder.digest_of(path)}
    versions = {"graphprune": graphprune.__version__}
    return Manifest("", target.name, target.machine, 1, (), (), (), (), versions, source, (), tuple(notes))


def _verified(
    place: Path, manifest: Manifest, network: Network, path: Path, model: Any, seed: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The rows of all variants, and the pace of the first that this machine can run. Raises GraphPruneError GP403 where
    one differs from the model."""
    from graphprune.targets.checking import Reference
    from graphprune.targets.pace import pace

    here, reference, speed = cpu.cpu(), None, {}
    rows: list[dict[str, Any]] = []
    for variant, each in zip(manifest.variants, network.variants, strict=True):
        missing = here.missing(set(variant.features))
        if missing or here.machine != manifest.machine:
            note = f"not run: this machine has no {', '.join(missing[:4]) or manifest.machine}"
            unknown = {"output": "", "error": None, "tolerance": None, "ok": None}
            rows.append({"variant": variant.name, **unknown, "note": note})
            continue
        first = reference is None
        reference = reference or Reference(model, manifest.inputs, seed)
        executable = load(place, variant=variant.name)
        found = reference.compare(executable, each.rounding)
        _refuse_others(found, variant.name, manifest)
        rows += found
        if first:
            speed = pace(executable, path, reference.cases[0], manifest.threads)
    return rows, speed


def _refuse_others(rows: Sequence[Mapping[str, Any]], variant: str, manifest: Manifest) -> None:
    for row in rows:
        if not row["ok"]:
            error = "not finite, or of another shape" if row["error"] is None else f"off by {row['error']:.1e}"
            what = f"the output {row['output']!r} of {variant} is {error}; allowed is {row['tolerance']:.1e}"
            raise GraphPruneError("GP403", what, str(manifest.source.get("name", "")))
