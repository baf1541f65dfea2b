"""How long the division of a cut among groups takes, and how much is lost with it, at 10, 100 and 1,000 groups.

    python benchmarks/allocation.py [--rounds N] [--align N] [--allocators NAME ...] [--groups N ...] [--json PATH]

The networks are residual: blocks of two 1 x 1 convolutions, ten blocks a stream, 32 x 32 positions that are halved up
to four times, with 64 to 1,024 entries a group. Weights have shapes and no numbers; scores are random, and their
magnitude is log-normal from group to group. 40 % of the multiply-accumulates and half of the parameters may remain,
both at once. `loss` is the sum of the scores that are lost as a share of all: the smaller the better, among the
allocators of one column. Seconds are medians over the rounds, of the whole call, in processor time of all threads,
which other work on the machine hardly touches; `wall` is by the clock.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from measure import interleaved, machine, note, table, write_json

from graphprune.allocate import ALLOCATORS
from graphprune.allocate.bounds import bounds
from graphprune.allocate.problem import Problem, limits_of
from graphprune.analysis import analyze_program
from graphprune.cost import Costing
from graphprune.dialects.onnx.reader import read

GOAL_SECONDS = 5.0
BLOCKS_OF_A_STREAM = 10
FRACTIONS = {"macs": 0.4, "parameters": 0.5}


class Network:
    """An onnx-ir model under construction whose weights take no memory."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []

    def node(self, op: str, *inputs: ir.Value, **attributes: list[int]) -> ir.Value:
        given = [ir.AttrInt64s(name, numbers) for name, numbers in attributes.items()]
        made = ir.Node("", op, inputs, given, name=f"{op}_{len(self.nodes)}", num_outputs=1)
        made.outputs[0].name = f"{made.name}_out"
        self.nodes.append(made)
        return made.outputs[0]

    def conv(self, x: ir.Value, width: int, out: int, stride: int = 1) -> ir.Value:
        numbers = np.broadcast_to(np.float32(1), (out, width, 1, 1))
        name = f"weight_{len(self.weights)}"
        shape, kind = ir.Shape(numbers.shape), ir.TensorType(ir.DataType.FLOAT)
        self.weights.append(ir.Value(name=name, shape=shape, type=kind, const_value=ir.Tensor(numbers, name=name)))
        return self.node("Conv", x, self.weights[-1], strides=[stride, stride])


def residual(groups: int, seed: int = 0) -> ir.Model:
    """A residual network with so many groups of 64 to 1,024 entries."""
    random = np.random.default_rng(seed)
    widths = (64 * 2 ** random.uniform(0, 4, groups)).astype(int).tolist()
    network = Network()
    x = image = ir.Value(name="x", shape=ir.Shape((1, 64, 32, 32)), type=ir.TensorType(ir.DataType.FLOAT))
    stream, left, halvings = 64, 0, 0
    for place, width in enumerate(widths):
        if left == 0:
            stride = 2 if place >= len(widths) * (halvings + 1) / 5 else 1
            x, halvings = network.conv(x, stream, width, stride), halvings + stride - 1
            stream, left = width, BLOCKS_OF_A_STREAM
        else:
            inner = network.node("Relu", network.conv(x, stream, width))
            x, left = network.node("Add", x, network.conv(inner, width, stream)), left - 1
    y = network.conv(x, stream, 10)
    graph = ir.Graph([image], [y], nodes=network.nodes, initializers=network.weights, opset_imports={"": 17})
    return ir.Model(graph, ir_version=10)


def problem(groups: int, align: int = 1, seed: int = 0) -> Problem:
    """What an allocator is asked."""
    analysis = analyze_program(read(residual(groups, seed)))
    assert len(analysis.groups) == groups
    random = np.random.default_rng(seed)
    scores = {
        group.dim: random.lognormal(random.normal(), 1.0, group.size) * len(group.members) for group in analysis.groups
    }
    found, costing = bounds(analysis, analysis.groups, align=align), Costing(analysis, {})
    limits = limits_of(costing, analysis.groups, found, FRACTIONS, 0.0)
    return Problem(analysis, analysis.groups, scores, found, costing, limits)


def timed(asked: Problem, name: str, losses: dict[str, float]) -> dict[str, float]:
    wall, start = time.perf_counter(), time.process_time()
    widths = ALLOCATORS.load(name)(asked)
    times = {"seconds": time.process_time() - start, "wall": time.perf_counter() - wall}
    asked.check(widths, name)
    losses[name] = asked.loss(widths) / asked.loss({dim: 0 for dim in widths})
    return times


def measured(groups: int, names: Sequence[str], rounds: int, align: int) -> dict[str, Any]:
    asked, losses = problem(groups, align), dict[str, float]()
    times = interleaved({name: functools.partial(timed, asked, name, losses) for name in names}, rounds)
    return {name: {"loss": losses[name], **times[name]} for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time allocation.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--align", type=int, default=1)
    parser.add_argument("--allocators", nargs="+", default=sorted(ALLOCATORS.builtin))
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    results = {groups: measured(groups, given.allocators, given.rounds, given.align) for groups in given.groups}
    head = ("allocator", *(f"{what}, {groups} groups" for groups in results for what in ("seconds", "wall", "loss")))
    rows = []
    for name in given.allocators:
        cells: list[str] = []
        for of in results.values():
            medians = [of[name][what].median for what in ("seconds", "wall")]
            cells += [*(f"{median:.3f}" for median in medians), f"{of[name]['loss']:.5f}"]
        rows.append((name, *cells))
    print(table(head, rows))
    largest = max(results)
    slowest = max(given.allocators, key=lambda name: results[largest][name]["seconds"].median)
    worst = results[largest][slowest]["seconds"].median
    verdict = "met" if worst < GOAL_SECONDS else "NOT met"
    print(f"\nslowest at {largest} groups: {slowest} with {worst:.2f} s; the goal of {GOAL_SECONDS:g} s is {verdict}")
    write_json(given.json, "allocation", results)


if __name__ == "__main__":
    main()
