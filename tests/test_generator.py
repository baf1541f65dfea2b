"""The generator makes valid networks that compute something, the same ones for the same seed, of every block."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings

from tests.execution import degenerate, difference, feeds, run
from tests.generator import BLOCKS, NAMED, OPSETS, Recipe, build, network, recipe, recipes, shrink


def outputs(plan: Recipe) -> list[dict[str, np.ndarray]]:
    """What the network computes from two inputs; it is valid."""
    model = build(plan)
    onnx.checker.check_model(model, full_check=True)
    return [run(model, feeds(model, seed=seed, sizes=NAMED)) for seed in (0, 1)]


def check_sound(plan: Recipe) -> None:
    """The network is valid and its outputs are finite, not constant, and depend on the input."""
    first, second = outputs(plan)
    assert degenerate(first) == [], plan
    assert difference(first, second) > 1e-4, plan


@pytest.mark.parametrize("seed", range(100))
def test_a_hundred_seeds_are_sound(seed: int) -> None:
    check_sound(recipe(seed))


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_block_is_sound_in_the_oldest_and_newest_opset(name: str) -> None:
    for seed in range(3):
        for opset in (OPSETS[0], OPSETS[-1]):
            check_sound(Recipe(seed, opset, "image", (), ((name, seed),)))
            check_sound(Recipe(seed, opset, "tokens", ("batch", "places"), ((name, seed),)))


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(recipes(most=4))
def test_what_hypothesis_draws_is_sound(plan: Recipe) -> None:
    first, second = outputs(plan)
    assert all(np.isfinite(each).all() for each in (*first.values(), *second.values())), plan
    # Small numbers squared again and again leave next to nothing. Such networks prove little and are left alone
    # (tests.generated.check); that they are rare is what the hundred seeds above say.
    assume(degenerate(first) == [] and difference(first, second) > 1e-4)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_network() -> None:
    assert network(7).SerializeToString() == network(7).SerializeToString()
    assert network(7).SerializeToString() != network(8).SerializeToString()


def test_leaving_a_block_out_does_not_change_the_choices_of_the_others() -> None:
    plan = Recipe(0, 18, "sequence", (), (("plain_linear", 1), ("recurrent", 2)))
    rest = replace(plan, blocks=plan.blocks[1:])
    kinds = [{node.op_type for node in build(p).graph.node} & {"LSTM", "GRU", "RNN"} for p in (plan, rest)]
    assert kinds[0] == kinds[1] != set()


def test_shrink_finds_the_one_block_that_fails() -> None:
    plan = recipe(3, size=12)
    culprit = ("scan", 1)
    long = replace(plan, dynamic=("batch", "places"), blocks=(*plan.blocks, culprit, *plan.blocks))
    assert shrink(long, lambda p: culprit in p.blocks) == Recipe(plan.seed, 18, plan.start, (), (culprit,))


def test_shrink_keeps_what_the_failure_needs() -> None:
    plan = Recipe(0, 25, "image", ("batch", "places"), (("scan", 1), ("loop", 2), ("pooling", 3)))

    def fails(p: Recipe) -> bool:
        return p.opset > 23 and "places" in p.dynamic and len(p.blocks) > 1

    found = shrink(plan, fails)
    assert fails(found)
    assert len(found.blocks) == 2
