"""`graphprune bench`: is it faster? Measured in turns with the dense model; within the noise the answer is no."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from graphprune.cli.options import Inputs, Output, taking
from graphprune.cli.verify import Dense, Pruned


@taking
def bench(
    dense: Dense,
    pruned: Pruned,
    inputs: Inputs,
    output: Output,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to measure.", min=0.1, max=600)] = 3.0,
) -> int:
    """Measure both models with onnxruntime, in turns, and say how far the measurement can be trusted.

    graphprune bench resnet.onnx small.onnx
    """
    from graphprune.dialects.onnx.timing import compare
    from graphprune.report import table

    with output.console.working("measuring"):
        timing = compare(dense, pruned, seed=inputs.seed, sizes=inputs.sizes, seconds=seconds)
    row = ("latency (median)", f"{timing.dense * 1e3:.3f} ms", f"{timing.pruned * 1e3:.3f} ms", timing.change)
    lines = table(("", "dense", "pruned", "change"), [row], right=(1, 2))
    noise = f"{timing.rounds} rounds in turns; the dense model differs from itself by up to {timing.noise:.1%}"
    output.console.show("\n".join([*lines, noise]), {**asdict(timing), "differs": timing.differs})
    return 0
