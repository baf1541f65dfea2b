"""Zeros that a model has already, whoever put them there: which formats its layers satisfy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.errors import one_line
from graphprune.formats.format import Array
from graphprune.formats.recognise import Recognised, recognise
from graphprune.layers import layers
from graphprune.report import table

LEAST = 0.01
"""The share of zeros from which on the zeros of a layer are looked at."""
_MOST_SHOWN = 4


@dataclass(frozen=True)
class Zeros:
    """The zeros of one layer: their share, and the formats that they have, the most structured first.

    Of a grouped convolution, the formats are those that all groups have, with the sparsity of the least sparse group.
    """

    name: str
    sparsity: float
    formats: tuple[Recognised, ...]


def zeros_of(analysis: Analysis) -> list[Zeros]:
    """The layers with zeros in their weights, in running order. Weights that are computed or quantised are not looked
    at."""
    found = []
    for layer in layers(analysis):
        stored = layer.weight.stored
        if stored is None or stored.empty:
            continue
        cubes = layer.cubes(stored.read())
        sparsity = 1 - np.count_nonzero(cubes) / max(1, cubes.size)
        if sparsity >= LEAST:
            found.append(Zeros(stored.name, float(sparsity), tuple(_common(cubes))))
    return found


def _common(cubes: Array) -> list[Recognised]:
    """What all groups have in common. Groups of one weight to an output have nothing that a format could use."""
    if len(cubes) > 1 and cubes[0].shape[0] * cubes[0].shape[2] <= 1:
        return []
    each = [recognise(cube) for cube in cubes if np.any(cube)]  # a group of zeros has every format
    counts = Counter(str(one.format) for group in each for one in group)
    return [
        min((one for group in each for one in group if str(one.format) == str(first.format)), key=lambda x: x.sparsity)
        for first in (each[0] if each else ())
        if counts[str(first.format)] == len(each)
    ]


def zero_lines(found: list[Zeros]) -> Iterator[str]:
    """A table of layers, formats and shares, for people."""
    rows = [
        (one_line(each.name), f"{each.sparsity:.1%}", ", ".join(map(str, each.formats[:_MOST_SHOWN])) or "none")
        for each in found
    ]
    yield from table(("zeros in", "share", "formats"), rows, right=(1,))


def zero_data(found: list[Zeros]) -> list[dict[str, Any]]:
    """The same as plain data."""
    return [
        {
            "name": each.name,
            "sparsity": each.sparsity,
            "formats": [
                {"format": str(one.format), "sparsity": one.sparsity, "explained": one.explained, "filled": one.filled}
                for one in each.formats
            ],
        }
        for each in found
    ]
