"""Two layers with nothing but functions of one entry between them: a convolution, its BatchNorm, an activation, and the
next convolution. What the first computes can be followed through all of that, value and slope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graphprune.functions import CONSTANT_SECOND, FUNCTIONS, Dual, Function, Place
from graphprune.layers import Layer
from graphprune.program import Array, BatchNorm, Node, Use, Value
from graphprune.recover.pair import Pair

Numbers = Callable[[Value], Array]
"""The numbers of a constant value, as they are by now."""


@dataclass(frozen=True, eq=False)
class Couple:
    """The result of ``first`` goes through ``steps`` into ``second``, and nowhere else."""

    first: Layer
    second: Layer
    steps: Mapping[Node, Function | BatchNorm]

    def between(self, results: Array, numbers: Numbers, shape: tuple[int, ...], chosen: Array) -> Dual:
        """What ``second`` reads of some samples of ``first``, and its slope: ``[samples, groups, outputs]`` both.

        results: what ``first`` computes for them, bias and all
        shape:   that of its whole result; chosen: the numbers of these samples
        """
        known: dict[Value, Dual] = {self.first.result: Dual(results, 1.0)}

        def constant(array: Array) -> Dual:
            return Dual(_on_samples(self.first, np.asarray(array, results.dtype), shape, chosen))

        for node, step in self.steps.items():
            if isinstance(step, BatchNorm):
                made = _normalised(step, known, numbers, constant, len(shape))
            else:
                operands = [
                    Dual(each) if isinstance(each, float | int) else _operand(node, each, known, numbers, constant)
                    for each in step.operands
                ]
                made = FUNCTIONS[step.name](*operands, **step.numbers)
            known[node.outputs[0]] = made
        return known[self.second.activation]


def couple_of(pair: Pair, second: Layer, firsts: Mapping[Value, Layer]) -> Couple | str:
    """The couple that a layer of the pruned network is the second of; why there is none, where that is so.

    firsts: the layers of the pruned network by their results
    """
    steps: dict[Node, Function | BatchNorm] = {}
    found: dict[Layer, None] = {}
    pending, seen = [second.activation], set()
    order = {node: place for place, node in enumerate(pair.small.program.main.nodes)}
    while pending:
        value = pending.pop()
        if value in seen or pair.small.trace.is_constant(value):
            continue
        seen.add(value)
        if value in firsts:
            found[firsts[value]] = None
            continue
        step = _step(pair, value)
        if isinstance(step, str) or value.producer not in order:
            return step if isinstance(step, str) else "it is computed in another block"
        steps[value.producer], operands = step
        pending += operands
    if len(found) != 1:
        return f"it reads what {len(found)} layers compute"
    inside = {*steps, second.node}
    outputs = {each for each in pair.small.program.main.outputs if each is not None}
    for value in seen:
        if value in outputs or any(use.node not in inside for use in pair.readers.get(value, ())):
            return f"{value.name} is read by others, too"
    (first,) = found
    return Couple(first, second, {node: steps[node] for node in sorted(steps, key=lambda node: order[node])})


def _step(pair: Pair, value: Value) -> tuple[Function | BatchNorm, list[Value]] | str:
    """What computes a value entry by entry, and from which; why nothing does, where that is so."""
    node, constant = value.producer, pair.small.trace.is_constant
    if node is None or len(node.outputs) != 1:
        return f"{value.name} is not computed entry by entry"
    if node in pair.norms:
        places = [pair.norms[node].data.index]
        return pair.norms[node], [each for place in places if (each := node.inputs[place]) is not None]
    function: Function | None = pair.small.program.dialect.function(node)
    if function is None or function.name not in FUNCTIONS:
        return f"the slope of {node} is not known"
    values = [node.inputs[each.index] for each in function.operands if isinstance(each, Place)]
    if function.name in CONSTANT_SECOND and any(each is None or not constant(each) for each in values[1:]):
        return f"the second operand of {node} is no constant"
    return function, [each for each in values if each is not None]


def _operand(
    node: Node, place: Place, known: Mapping[Value, Dual], numbers: Numbers, constant: Callable[[Array], Dual]
) -> Dual:
    value = node.inputs[place.index]
    assert value is not None, "operands of functions are there"
    return known[value] if value in known else constant(numbers(value))


def _normalised(
    norm: BatchNorm, known: Mapping[Value, Dual], numbers: Numbers, constant: Callable[[Array], Dual], rank: int
) -> Dual:
    def channels(use: Use) -> Array:
        value = use.node.inputs[use.index]
        assert value is not None, "the operands of a BatchNorm are there"
        return np.asarray(numbers(value), np.float64)

    gain = 1 / np.sqrt(channels(norm.variance) + norm.epsilon)
    gain = gain if norm.scale is None else gain * channels(norm.scale)
    shift = (0 if norm.shift is None else channels(norm.shift)) - gain * channels(norm.mean)
    value = norm.data.node.inputs[norm.data.index]
    assert value is not None
    x = known[value]
    along = [-1 if axis == 1 else 1 for axis in range(rank)]
    factor, offset = constant(gain.reshape(along)), constant(np.broadcast_to(shift, gain.shape).reshape(along))
    return Dual(x.value * factor.value + offset.value, x.slope * factor.value)


def _on_samples(layer: Layer, array: Array, shape: tuple[int, ...], chosen: Array) -> Array:
    """A constant that is broadcast against the result of a layer, for some samples: one number, or
    ``[samples or 1, groups, outputs]``."""
    if array.size == 1:
        return array.reshape(())
    rows = layer.results(np.broadcast_to(array, shape))
    steps = zip(rows.view.strides[: rows.lead], rows.view.shape[: rows.lead], strict=True)
    same = all(step == 0 or size == 1 for step, size in steps)
    return rows.take(np.zeros(1, np.int64) if same else chosen)
