"""Generated networks in bulk against all oracles: `python -m tests.generated --count 20000 --seed 0 --jobs 2`.

Prints every failure shrunk to the shortest list of blocks that still fails, as a recipe that can be pasted into
`tests.generator.build`. Exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from tests.execution import degenerate, feeds, run
from tests.generator import NAMED, Recipe, build, recipe, shrink
from tests.oracles import Checked, prune_and_check

RATIOS = (0.25, 0.5, 0.75)
CHUNK = 25
# Blocks that the oracle of zeros (`tests.oracles.zeroed`) cannot judge: both factors of a product are activations that
# are not zero at zero, channels compete for being the largest, a silent channel is divided by its own norm, or rounding
# is coarser than its tolerance.
NOT_BY_ZEROS = {"linear_attention", "hard_choice", "quantised", "half_precision", "normalised_weight"}


@dataclass(frozen=True)
class Failure:
    """A seed whose network fails, the shortest recipe that fails in the same way, and what is wrong with that one."""

    seed: int
    smallest: Recipe
    problems: tuple[str, ...]

    def __str__(self) -> str:
        lines = "\n".join(f"    {line}" for problem in self.problems for line in problem.splitlines())
        return f"seed {self.seed}, shrunk to {self.smallest!r}\n{lines}"


def check(plan: Recipe) -> Checked:
    """Prune the network of a recipe by a share that follows from its seed, and hold it against all oracles.

    One whose outputs hardly move (rarely, all channels of a layer are dead) would prove nothing, and is left alone.
    """
    model = build(plan)
    if degenerate(run(model, feeds(model, sizes=NAMED))):
        return Checked([], 0, 0)
    zeros = not any(name in NOT_BY_ZEROS for name, _ in plan.blocks)
    return prune_and_check(
        model, ratio=RATIOS[plan.seed % len(RATIOS)], seed=plan.seed % 1000, sizes=NAMED, zeros=zeros
    )


def problems_of(plan: Recipe) -> tuple[str, ...]:
    """What is wrong with a recipe; a crash is a problem like any other, which the thread hands back."""
    with ThreadPoolExecutor(1) as thread:
        outcome = thread.submit(check, plan)
    error = outcome.exception()
    return (f"{type(error).__name__}: {error}",) if error is not None else tuple(outcome.result().problems)


def kind(problems: tuple[str, ...]) -> str:
    """The first words of the first problem: what stays the same while a failure is shrunk."""
    return " ".join(problems[0].split()[:2]) if problems else ""


def failures(start: int, count: int, size: int = 6) -> list[Failure]:
    """The failures among the networks of `count` seeds from `start`, each shrunk."""
    found = []
    for seed in range(start, start + count):
        wrong = kind(problems_of(recipe(seed, size)))
        if wrong:
            smallest = shrink(recipe(seed, size), lambda plan, wrong=wrong: kind(problems_of(plan)) == wrong)
            found.append(Failure(seed, smallest, problems_of(smallest)))
    return found


def in_parallel(start: int, count: int, size: int, jobs: int) -> Iterator[tuple[int, list[Failure]]]:
    """Chunks of seeds on several processes: how many are done, and the failures of the chunk."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        chunks = [
            pool.submit(failures, first, min(CHUNK, start + count - first), size)
            for first in range(start, start + count, CHUNK)
        ]
        for place, chunk in enumerate(chunks):
            yield min((place + 1) * CHUNK, count), chunk.result()


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.generated", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="how many networks")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--size", type=int, default=6, help="the most blocks a network has")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args(arguments)
    begun, failed = time.monotonic(), 0
    for done, found in in_parallel(options.seed, options.count, options.size, options.jobs):
        failed += len(found)
        for failure in found:
            print(failure)
        if found or done % 500 == 0 or done == options.count:
            minutes = (time.monotonic() - begun) / 60
            print(f"{done} of {options.count} networks, {failed} failed, {minutes:.1f} min", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
