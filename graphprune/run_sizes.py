"""What the sizes are that only a run knows, once those of the inputs have numbers.

The height behind a strided convolution, or the length behind a pool, is a symbol of its own where that of the input is
one. Costs need a number for it: the same model is analysed with its inputs at these sizes, and every axis
that is a symbol in the one analysis is a number in the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from itertools import chain
from shlex import quote
from weakref import WeakKeyDictionary

from graphprune.analysis import Analysis, analyze_program
from graphprune.dialects import tools_of
from graphprune.dims import Axis, Dim
from graphprune.errors import GraphPruneError
from graphprune.program import Program, Value
from graphprune.sizes import Size, evaluate, symbols

_FOUND: WeakKeyDictionary[Program, dict[tuple[tuple[str, int], ...], dict[Hashable, int]]] = WeakKeyDictionary()
"""What was found, for costs are counted many times: by program, by the sizes that were given."""


def run_sizes(analysis: Analysis, sizes: Mapping[str, int]) -> dict[Hashable, int]:
    """Numbers for dynamic sizes by their symbols: those that are given, else those that the program says, else 1; and
    what follows from them. What cannot be told is left out."""
    known = {**analysis.program.sizes, **sizes}
    named = {size for value in analysis.program.main.inputs for size in value.shape or () if isinstance(size, str)}
    by_name = {**dict.fromkeys(named, 1), **known}
    found: dict[Hashable, int] = dict(by_name.items())
    if all(symbols(axis.size) <= found.keys() for _, axes in _typed(analysis) for axis in axes):
        return found
    cached = _FOUND.setdefault(analysis.program, {})
    key = tuple(sorted(known.items()))
    if key not in cached:
        cached[key] = _followed(analysis, by_name)
    return cached[key]


def assumed(analysis: Analysis, sizes: Mapping[str, int] | None) -> tuple[str, ...]:
    """What a report says of sizes that count as 1 because nobody gave them: one line, or none. First axes are those of
    samples, by which all costs are multiplied."""
    shapes = [value.shape for value in analysis.program.main.inputs if value.shape]
    names = dict.fromkeys(size for shape in shapes for size in shape[1:] if isinstance(size, str))
    given = {*analysis.program.sizes, *(sizes or {}), *(shape[0] for shape in shapes)}
    left = [name for name in names if name not in given]
    if not left:
        return ()
    example = " ".join(f"--size {quote(f'{name}=N')}" for name in left[:2])
    return (f"dynamic sizes that count as 1 in these costs: {', '.join(left)}; {example} says what they are",)


def _followed(analysis: Analysis, sizes: Mapping[str, int]) -> dict[Hashable, int]:
    """Symbols of sizes that are computed, with the numbers that the analysis at these sizes has in their place."""
    native = analysis.program.native
    found: dict[Hashable, int] = dict(sizes.items())
    try:
        sized = tools_of(native).sized(native, sizes)
        at = dict(_typed(analyze_program(tools_of(native).read(sized, analysis.program.rules))))
    except GraphPruneError:
        return found  # the model does not take these sizes
    for place, axes in _typed(analysis):
        for axis, number in zip(axes, at.get(place, ()), strict=False):
            if isinstance(axis.size, Size) and isinstance(number.size, int):
                _solve(axis.size, number.size, found)
    return found


def _solve(size: Size, number: int, found: dict[Hashable, int]) -> None:
    """Add the only symbol of a size that has no number yet, where the size is linear in it."""
    unknown = symbols(size) - found.keys()
    if len(unknown) != 1 or any(isinstance(item, Dim) for item in symbols(size)):
        return
    (item,) = unknown
    rest = evaluate(size, {**found, item: 0})
    factor = evaluate(size, {**found, item: 1}) - rest
    linear = all(monomial.count(item) <= 1 for monomial in size.terms)
    if linear and factor and (number - rest) % factor == 0 and (number - rest) // factor > 0:
        found[item] = (number - rest) // factor


def _typed(analysis: Analysis) -> Iterator[tuple[tuple[int, int], list[Axis]]]:
    """The axes of what every node computes, by the places of the node and of its output: the same in every reading of
    one model. Inner blocks come after the node that owns them, with their inputs."""
    types = analysis.trace.types
    for place, node in enumerate(analysis.program.nodes()):
        inner: Iterator[Value] = chain.from_iterable(block.inputs for block in node.blocks.values())
        for index, value in enumerate(chain(node.outputs, inner)):
            if value in types:
                yield (place, index), types[value].axes or []
