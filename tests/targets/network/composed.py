"""Networks of tests.generator against onnxruntime: `python -m tests.targets.network.composed --count N`.

How far rounding may take an output is measured: it is what the output moves when every stored number and every input
moves by its own rounding error, times eight, and at least what a sum in another order may be off.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from graphprune.errors import GraphPruneError
from graphprune.targets.kernels.tir import Machine
from tests import execution
from tests.generator import NAMED, Recipe, build, recipe
from tests.targets.network.harness import MACHINES, TOLERANCE, Built, built, compare

SAFETY = 8.0
HALF = 4 * 2.0**-11  # a number between two of float16 may be rounded to either, wherever a network does that


@dataclass(frozen=True)
class Checked:
    """What came of a network: why it is refused, or the operators without a kernel, of how many steps."""

    refused: str = ""
    fallbacks: tuple[str, ...] = ()
    steps: int = 0


def check(plan: Recipe, machine: Machine) -> Checked:
    return check_model(build(plan), machine, NAMED)


def check_model(model: onnx.ModelProto, machine: Machine, sizes: Mapping[str, int] | None = None) -> Checked:
    """Raises AssertionError where the built network computes something else, twice on the same arena."""
    cases = [execution.feeds(model, seed=seed, sizes=sizes) for seed in (0, 1)]
    try:
        network = built(model, machine, {name: list(array.shape) for name, array in cases[0].items()})
    except GraphPruneError as error:
        if error.code != "GP811":
            raise
        return Checked(str(error))
    least = HALF if halves(network) else TOLERANCE
    compare(network, [*cases, *cases], max(least, SAFETY * moved(model, cases[0])))
    return Checked("", tuple(network.fallbacks), steps(network))


def steps(network: Built) -> int:
    return len(network.lowered.calls)


def halves(network: Built) -> bool:
    return any(value.dtype == "float16" for node in network.lowered.graph.nodes for value in node.outputs)


def moved(model: onnx.ModelProto, case: Mapping[str, np.ndarray]) -> float:
    """How far rounding errors of weights and inputs move the outputs."""
    generator = np.random.default_rng(0)

    def jittered(array: np.ndarray) -> np.ndarray:
        if array.dtype != np.float32:
            return array
        return (array * (1 + 2.0**-23 * generator.uniform(-1, 1, array.shape))).astype(np.float32)

    other = onnx.ModelProto()
    other.CopyFrom(model)
    for graph in execution.graphs(other):
        stored = [
            *graph.initializer,
            *(a.t for node in graph.node for a in node.attribute if node.op_type == "Constant"),
        ]
        for tensor in stored:
            # what has fewer axes may be sizes, as Resize takes them, which do not move
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
                tensor.CopyFrom(numpy_helper.from_array(jittered(numpy_helper.to_array(tensor)), tensor.name))
    exact = execution.run(model, case)
    return execution.difference(exact, execution.run(other, {name: jittered(array) for name, array in case.items()}))


def problem(plan: Recipe, machine: Machine) -> tuple[str, Checked]:
    """What is wrong, in words; a crash is a problem like any other, which the thread hands back."""
    with ThreadPoolExecutor(1) as thread:
        outcome = thread.submit(check, plan, machine)
    error = outcome.exception()
    return (f"{type(error).__name__}: {error}", Checked()) if error is not None else ("", outcome.result())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=6, help="the most blocks of a network")
    options = parser.parse_args()
    failed, operators, refused, count = 0, Counter[str](), Counter[str](), 0
    for seed in range(options.seed, options.seed + options.count):
        plan = recipe(seed, options.size)
        wrong, checked = problem(plan, MACHINES[seed % len(MACHINES)])
        failed += bool(wrong)
        if wrong:
            print(f"{seed}: {plan}\n    {wrong}", flush=True)
        if checked.refused:
            refused[checked.refused] += 1
        operators.update(checked.fallbacks)
        count += checked.steps
    print(f"{options.count} networks, {failed} failed, {sum(refused.values())} refused; {count} steps")
    print("without a kernel:", ", ".join(f"{name} {number}" for name, number in operators.most_common()))
    for reason, number in refused.most_common(20):
        print(f"refused {number}: {reason[:160]}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
