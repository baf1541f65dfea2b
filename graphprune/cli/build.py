"""`graphprune build`: a whole network compiled for a kind of machine, checked, and written as an artifact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli.options import Inputs, Output, taking
from graphprune.errors import GraphPruneError, one_line

if TYPE_CHECKING:
    from graphprune.runtime.manifest import Build, Manifest

SUFFIX = ".gp"
_MOST_NAMES = 6


@taking
def build(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model: .onnx or .pt2.", show_default=False)],
    inputs: Inputs,
    output: Output,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The artifact, a folder; default: MODEL with .gp.", show_default=False),
    ] = None,
    target: Annotated[str, typer.Option("--target", help="What to build for: see graphprune targets.")] = "x86",
    threads: Annotated[int, typer.Option("--threads", help="Threads that one call uses.", min=1, max=4096)] = 1,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            help="Shape of an input, such as x=1,3,224,224 (repeatable).",
            metavar="NAME=N,N",
            show_default=False,
        ),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option("--variants", help="Processors to build for, such as v4,v3; default: all.", show_default=False),
    ] = None,
    precision: Annotated[
        str,
        typer.Option("--precision", help="float32, or bfloat16: products of rounded numbers, where there are such."),
    ] = "float32",
    tune: Annotated[float, typer.Option("--tune", help="Seconds to measure kernels; 0: the same bytes always.")] = 60.0,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not compare the result with the model.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an artifact that is there.")] = False,
) -> int:
    """Compile a whole network for a kind of machine; what graphprune run and graphprune.runtime.load take.

    graphprune build model.onnx -o model.gp --target x86
    graphprune build model.onnx --shape ids=1,128 --threads 4 --variants v4,v3
    graphprune build model.onnx --size batch=1,8        # an artifact for each, in one folder
    """
    console = output.console
    names = None if variants is None else [name.strip() for name in variants.split(",") if name.strip()]
    place = out or model.with_suffix(SUFFIX)
    with console.working("building"):
        from graphprune.targets.building import build as build_model

        built = build_model(
            model,
            place,
            target=target,
            shapes=dict(map(named_shape, shape or [])),
            sizes=dict(map(named_sizes, inputs.size)),
            variants=names,
            precision=precision,
            threads=threads,
            tune=tune,
            force=force,
            verify=not no_verify,
            seed=inputs.seed,
        )
    console.show("\n".join(lines(built.manifest, place)), {"written": str(place), **asdict(built.manifest)})
    return 0


def named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """An input and its shape from `x=1,3,224,224`. Raises GraphPruneError GP107."""
    return _numbered(text, "a name and a shape", "option --shape", "write name=sizes, such as x=1,3,224,224")


def named_sizes(text: str) -> tuple[str, tuple[int, ...]]:
    """An axis and its sizes from `batch=1,8`. Raises GraphPruneError GP107."""
    return _numbered(text, "a name and sizes", "option --size", "write name=size, or several, such as batch=1,8")


def _numbered(text: str, kind: str, where: str, remedy: str) -> tuple[str, tuple[int, ...]]:
    name, equals, numbers = text.rpartition("=")
    sizes = numbers.split(",")
    if not (equals and name and all(each.isascii() and each.isdigit() and 0 < int(each) < 1 << 31 for each in sizes)):
        raise GraphPruneError("GP107", f"{text!r} is not {kind}", where, remedy)
    return name, tuple(map(int, sizes))


def lines(manifest: Manifest, place: Path) -> Iterator[str]:
    """An artifact for people: variants, what runs them, how they were checked."""
    from graphprune.report import quantity, table
    from graphprune.runtime.cpu import cpu

    here = cpu()
    rows = [
        (
            each.name,
            "no" if here.missing(set(each.features)) or here.machine != manifest.machine else "yes",
            quantity(each.library.bytes, "B"),
            quantity(each.constants.bytes, "B"),
            quantity(each.arena, "B"),
            str(len(each.layers)),
            str(sum(layer.fallback for layer in each.layers)),
            _verdict(manifest, each.name),
        )
        for each in manifest.variants
    ]
    head = ("variant", "runs here", "library", "weights", "scratch", "steps", "fallbacks", "compared with the model")
    yield from table(head, rows, right=(2, 3, 4, 5, 6))
    yield from _fallbacks(manifest.variants)
    yield from _pace(manifest)
    yield from (one_line(note) for note in manifest.notes)
    yield f"wrote {place}"


def _verdict(manifest: Manifest, variant: str) -> str:
    found: list[Any] = [row for row in manifest.verification if row.get("variant") == variant]
    if not found:
        return "not compared"
    if any(row["ok"] is None for row in found):
        return one_line(found[0]["note"])
    worst = max(found, key=lambda row: row["error"] / row["tolerance"])
    note = f"; {worst['note']}" if worst["note"] else ""
    return f"error {worst['error']:.1e} of {worst['tolerance']:.1e}{note}"


def _pace(manifest: Manifest) -> Iterator[str]:
    """How fast it was beside onnxruntime; where it was slower, that it is better not to use it."""
    from graphprune.targets.pace import SLOWER, ratio

    found = ratio(manifest.pace)
    if found is None:
        return
    ours, theirs = (f"{1e3 * manifest.pace[name]:.3g} ms" for name in ("graphprune", "onnxruntime"))
    yield f"a call takes {ours} here, and {theirs} in onnxruntime: {found:.2f} times as fast"
    if found < SLOWER:
        yield "onnxruntime is faster on this network and this machine: use that"


def _fallbacks(variants: Sequence[Build]) -> Iterator[str]:
    """What no kernel of ours runs, with the reasons: it is where time may be lost."""
    found = {
        (layer.name, layer.operators, layer.reason) for each in variants for layer in each.layers if layer.fallback
    }
    for name, operators, reason in sorted(found)[:_MOST_NAMES]:
        yield one_line(f"onnxruntime runs {operators} {name}{': ' if reason else ''}{reason}")
    if len(found) > _MOST_NAMES:
        yield f"and {len(found) - _MOST_NAMES} steps more: --json lists them"
