"""Control flow: a body is walked like any graph; what goes in and what comes out is tied."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.dims import Axis, find
from graphprune.program import Block, Use, Value
from graphprune.rules.numbers import Opaque
from graphprune.rules.trace import Operand, Trace, Typed


def _result(trace: Trace, value: Value | None) -> Typed:
    """What a body yields; sizes among it are not followed any further, and so must not change."""
    if value is None:
        return Typed(None)
    typed = trace.typed(value, Use(trace.node, -1))
    for entry in typed.entries or []:
        trace.hold(entry, "its size is a number that control flow hands on")
    return Typed(typed.axes)


def _tie(trace: Trace, a: Typed, b: Typed) -> Typed:
    """Two types of one value; where the ranks differ or are unknown, everything stays and nothing is known."""
    if a.axes is None or b.axes is None or len(a.axes) != len(b.axes):
        for axis in [*(a.axes or []), *(b.axes or [])]:
            trace.pin(axis, "GP210", "the branches of a conditional differ in rank")
        return Typed(None)
    return Typed([_tied(trace, x, y) for x, y in zip(a.axes, b.axes, strict=True)])


def _tied(trace: Trace, a: Axis, b: Axis) -> Axis:
    if a.size == b.size:
        return trace.tie(a, b)
    trace.pin(a, "GP210", "its size differs between branches or iterations")
    trace.pin(b, "GP210", "its size differs between branches or iterations")
    return trace.fixed(trace.unknown(), "its size differs between branches or iterations", "GP210")


def branch(trace: Trace, blocks: Sequence[Block]) -> list[Typed]:
    """If: outputs of all branches are tied."""
    node = trace.node
    results: list[list[Typed]] = []
    for block in blocks:
        trace.walk(block)
        trace.node = node
        results.append([_result(trace, value) for value in block.outputs])
    out = results[0]
    for other in results[1:]:
        out = [_tie(trace, a, b) for a, b in zip(out, other, strict=True)]
    return out


def _carry(trace: Trace, formal: Value, actual: Typed) -> None:
    """A loop-carried value may change its run-time sizes from round to round, so its entries are not known inside."""
    axes = None if actual.axes is None else list(actual.axes)
    trace.types[formal] = Typed(axes)


def condition(trace: Trace, body: Block, carried: Sequence[Typed]) -> None:
    """The body that says whether another round follows: a truth value of what is carried."""
    node = trace.node
    for formal, actual in zip(body.inputs, carried, strict=False):
        _carry(trace, formal, actual)
    trace.walk(body)
    trace.node = node
    for value in body.outputs:
        for axis in _result(trace, value).axes or []:
            trace.whole(axis, "it says whether a loop goes on")


def sliced(trace: Trace, x: Operand, at: int) -> Typed:
    """What a round reads of a scanned input."""
    trace.whole(x.axes[at], "the scan walks along it")
    return Typed([axis for k, axis in enumerate(x.axes) if k != at % x.rank])


def loop(trace: Trace, body: Block, carried: Sequence[Typed], leading: int, scans: Sequence[Typed]) -> list[Typed]:
    """Loop and Scan: carried values are tied with what the body makes of them; ``scans`` are the per-round slices of
    scanned inputs. Returns carried results, then the body's scan outputs without their round axis. ``leading`` formal
    inputs (round number, condition) come first, and the body yields a condition first when ``leading`` is 2."""
    node = trace.node
    for formal in body.inputs[:leading]:
        trace.types[formal] = Typed([], [Opaque(trace.unknown())])
    for formal, actual in zip(body.inputs[leading:], [*carried, *scans], strict=False):
        _carry(trace, formal, actual)
    trace.walk(body)
    trace.node = node
    first = 1 if leading else 0
    results = [_result(trace, value) for value in body.outputs[first:]]
    out = [_tie(trace, a, b) for a, b in zip(carried, results, strict=False)]
    return [*out, *(Typed(typed.axes) for typed in results[len(carried) :])]


def stacked(trace: Trace, slices: Typed, rounds: Axis, axis: int) -> Typed:
    """A scan output: the slices of all rounds along a new axis."""
    if slices.axes is None:
        return Typed(None)
    axes = [find(each) for each in slices.axes]
    axes.insert(axis % (len(axes) + 1), rounds)
    return Typed(axes)


def call(trace: Trace, body: Block) -> list[Typed]:
    """A call of a model-local function: its body is walked with the values of this call."""
    node = trace.node
    trace.walk(body)
    trace.node = node
    return [Typed(None) if value is None else trace.typed(value, Use(node, -1)) for value in body.outputs]
