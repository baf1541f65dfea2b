"""ONNX control flow, and calls of functions that the model defines."""

from __future__ import annotations

from graphprune.dims import Axis
from graphprune.program import Node
from graphprune.rules import control
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed


def _if(trace: Trace, node: Node) -> list[Typed]:
    return control.branch(trace, [node.blocks["then_branch"], node.blocks["else_branch"]])


def _loop(trace: Trace, node: Node) -> list[Typed]:
    carried = [operand.typed if operand else Typed(None) for operand in trace.operands()[2:]]
    results = control.loop(trace, node.blocks["body"], carried, 2, [])
    rounds = trace.fixed(trace.unknown("rounds"), "counts the rounds of a loop")
    stacks = [control.stacked(trace, typed, rounds, 0) for typed in results[len(carried) :]]
    return [*results[: len(carried)], *stacks]


def _scan(trace: Trace, node: Node) -> list[Typed]:
    count = int(node.attributes["num_scan_inputs"])
    operands = [trace.need(k) for k in range(len(node.inputs))]
    if node.version < 9:
        raise ValueError("the batched Scan of operator set 8")
    states, scanned = operands[: len(operands) - count], operands[len(operands) - count :]
    axes = node.attributes.get("scan_input_axes") or [0] * count
    slices, rounds = [], trace.fixed(trace.unknown("rounds"), "counts the rounds of a scan")
    for operand, axis in zip(scanned, axes, strict=True):
        rounds = operand.axes[axis]
        slices.append(control.sliced(trace, operand, axis))
    results = control.loop(trace, node.blocks["body"], [state.typed for state in states], 0, slices)
    outputs = results[len(states) :]
    places = node.attributes.get("scan_output_axes") or [0] * len(outputs)
    return [*results[: len(states)], *_stacks(trace, outputs, rounds, places)]


def _stacks(trace: Trace, outputs: list[Typed], rounds: Axis, places: list[int]) -> list[Typed]:
    return [control.stacked(trace, typed, rounds, place) for typed, place in zip(outputs, places, strict=True)]


def _call(trace: Trace, node: Node) -> list[Typed]:
    return control.call(trace, node.blocks["call"])


CALL = Operator(_call, sizes=True)
FLOW: dict[str, Operator] = {"If": Operator(_if), "Loop": Operator(_loop), "Scan": Operator(_scan)}
