"""Noise instead of data: standard normal numbers, or those that the first batch normalisation was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np

from graphprune.analysis import Analysis
from graphprune.data.batches import Batches, Named, Reading
from graphprune.data.inputs import Input
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.program import Array, Use

# Tried in turn for open axes that nobody gave a size for, but the first: many networks only run from some size on.
_SIZES = (16, 64, 224, 640, 1)
_MOST_NUMBERS = 2**28


def make(batches: Batches, analysis: Analysis, reading: Reading) -> None:
    """Fill batches with noise on which the model runs. Raises GraphPruneError GP402 where there is none."""
    tools, program = tools_of(analysis.program.native), analysis.program
    run = tools.runner(program.native)
    trained, failure = _trained(analysis), None
    for open_size in _SIZES:
        made = list(_noise(batches, trained, reading, open_size))
        try:
            run(tools.case(program.native, made[0]))
        except GraphPruneError as error:
            failure = failure or error
            continue
        for each in made:
            batches.add(each, None, "noise")
        return
    assert failure is not None
    failure.remedy = "give sizes of dynamic axes by name, or real data"
    raise failure


def _noise(
    batches: Batches, trained: Mapping[str, tuple[Array, Array]], reading: Reading, open_size: int
) -> Iterator[Named]:
    rng = np.random.Generator(np.random.PCG64(reading.seed))
    for begin in range(0, batches.samples, batches.size):
        count = batches.fixed or min(batches.size, batches.samples - begin)
        yield {each.name: _drawn(each, count, trained, rng, reading.sizes, open_size) for each in batches.inputs}


def _drawn(
    each: Input,
    count: int,
    trained: Mapping[str, tuple[Array, Array]],
    rng: np.random.Generator,
    sizes: Mapping[str, int],
    open_size: int,
) -> Array:
    rest = [size if isinstance(size, int) else sizes.get(str(size), open_size) for size in (each.shape or ())[1:]]
    shape = [count, *rest] if each.shape else []
    if prod(shape) > _MOST_NUMBERS:
        what = f"the input {each.name!r} asks for {prod(shape)} numbers"
        raise GraphPruneError("GP402", what, "", "give a smaller batch, or sizes of dynamic axes by name")
    if each.dtype.kind == "b":
        return np.ones(shape, bool)
    if each.dtype.kind in "iu":
        return rng.integers(0, 2, shape).astype(each.dtype)
    noise = np.asarray(rng.standard_normal(shape, np.float32))
    if each.name in trained:
        mean, variance = (part.reshape(-1, *[1] * (len(shape) - 2)) for part in trained[each.name])
        noise = noise * np.sqrt(variance) + mean
    return noise.astype(each.dtype)


def _trained(analysis: Analysis) -> dict[str, tuple[Array, Array]]:
    """Mean and variance of the channels of inputs that a batch normalisation reads as they are."""
    inputs = set(analysis.program.main.inputs)
    found = {}
    for norm in analysis.trace.batch_norms:
        data = norm.data.node.inputs[norm.data.index]
        numbers = [_constant(analysis, use) for use in (norm.mean, norm.variance)]
        if data is not None and data in inputs and numbers[0] is not None and numbers[1] is not None:
            found[data.name] = (numbers[0], numbers[1])
    return found


def _constant(analysis: Analysis, use: Use) -> Array | None:
    value = use.node.inputs[use.index]
    return None if value is None else analysis.program.dialect.constant(value)
