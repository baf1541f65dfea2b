"""`graphprune bench`: is it faster? Measured in turns with the dense model; within the noise the answer is no."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli.options import Inputs, Output, taking
from graphprune.cli.verify import Dense, Pruned
from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from graphprune.dialects.onnx.peers import Peer


@taking
def bench(
    dense: Dense,
    pruned: Pruned,
    inputs: Inputs,
    output: Output,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to measure.", min=0.1, max=600)] = 3.0,
    threads: Annotated[
        str, typer.Option("--threads", help="Of an artifact: numbers of threads to compare at, such as 1,4.")
    ] = "",
    python: Annotated[
        list[str] | None,
        typer.Option(
            "--python",
            help="Of an artifact: the Python that has openvino or onnxruntime, if not this one (repeatable).",
            metavar="RUNTIME=PATH",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Measure both models with onnxruntime, in turns, and say how far the measurement can be trusted.

    Where PRUNED is an artifact of graphprune build, it is measured against DENSE in onnxruntime, and in OpenVINO where
    that is installed, each in a process of its own.

    graphprune bench resnet.onnx small.onnx
    graphprune bench small.onnx small.gp --threads 1,2
    """
    from graphprune.report import table

    sizes = inputs.sizes
    if not pruned.exists():
        raise GraphPruneError("GP101", "there is no such file", str(pruned))
    if pruned.is_dir():
        with output.console.working("measuring"):
            from graphprune.dialects.onnx.peers import compare as compare_peers

            counts, others = numbers_of_threads(threads), dict(map(named_python, python or []))
            peers = compare_peers(dense, pruned, threads=counts, pythons=others, seed=inputs.seed, seconds=seconds)
        data = [{**asdict(each), "differs": each.differs} for each in peers]
        output.console.show("\n".join(_lines(peers)), data)
        return 0
    if threads or python:
        what = f"--{'threads' if threads else 'python'} is for artifacts, and this is a file"
        raise GraphPruneError("GP107", what, str(pruned), "leave it out, or give what graphprune build wrote")
    from graphprune.dialects.onnx.timing import compare

    with output.console.working("measuring"):
        timing = compare(dense, pruned, seed=inputs.seed, sizes=sizes, seconds=seconds)
    row = ("latency (median)", f"{timing.dense * 1e3:.3f} ms", f"{timing.pruned * 1e3:.3f} ms", timing.change)
    lines = table(("", "dense", "pruned", "change"), [row], right=(1, 2))
    noise = f"{timing.rounds} rounds in turns; the dense model differs from itself by up to {timing.noise:.1%}"
    output.console.show("\n".join([*lines, noise]), {**asdict(timing), "differs": timing.differs})
    return 0


def numbers_of_threads(text: str) -> list[int]:
    """`1,4` as numbers; nothing is 1. Raises GraphPruneError GP107."""
    found = text.split(",") if text else ["1"]
    if not all(each.isascii() and each.isdigit() and 0 < int(each) <= 4096 for each in found):
        what = f"{text!r} is not one or several numbers of threads"
        raise GraphPruneError("GP107", what, "option --threads", "write 1 or 1,4")
    return list(map(int, found))


def named_python(text: str) -> tuple[str, str]:
    """A runtime and an interpreter from `openvino=path`. Raises GraphPruneError GP107."""
    name, equals, path = text.partition("=")
    if not (equals and name and path):
        what = f"{text!r} is not a runtime and the path of a Python"
        raise GraphPruneError("GP107", what, "option --python", "write openvino=PATH")
    return name, path


def _lines(peers: Sequence[Peer]) -> Iterator[str]:
    from graphprune.report import table

    rows = []
    for each in peers:
        against = f"{each.speedup:.2f}x ({each.low:.2f} to {each.high:.2f})"
        if not each.differs:
            against = f"no difference beyond noise (±{each.noise:.1%})"
        if each.runtime == peers[0].runtime:
            against = ""
        name, times = f"{each.runtime} {each.version}", (f"{each.p50 * 1e3:.3f} ms", f"{each.p90 * 1e3:.3f} ms")
        rows.append((str(each.threads), name, *times, against, f"{each.error:.1e}" if against else ""))
    head = ("threads", "runtime", "p50", "p90", "against onnxruntime", "error")
    yield from table(head, rows, right=(0, 2, 3, 5))
    for threads, rounds, noise in sorted({(each.threads, each.rounds, each.noise) for each in peers}):
        noted = f"{rounds} rounds in turns on {threads} thread{'s' if threads > 1 else ''}"
        yield f"{noted}; onnxruntime differs from itself by up to {noise:.1%}"
