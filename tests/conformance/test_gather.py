"""Every backend test case of the onnx package: gathered inputs give gathered outputs, along every free dimension."""

from __future__ import annotations

import re

import pytest

from .cases import FILES, Case, file_cases, node_cases
from .floors import FLOORS
from .oracle import CannotRun, Subject

# What neither evaluator reproduces: random draws without a seed that both understand, image formats, bodies of
# functions that the reference evaluator stacks differently, and gradients.
UNRUNNABLE = re.compile("test_bernoulli.*|test_image_decoder_.*|test_gradient_of_.*|test_range_.*_expanded")


def mismatches(cases: list[Case]) -> list[str]:
    """What does not hold of some cases, with their tensors stored and fed."""
    found: list[str] = []
    for case in cases:
        for stored in (True, False):
            try:
                found += Subject(case, stored=stored).check().mismatches
            except CannotRun:
                assert UNRUNNABLE.fullmatch(case.name), f"{case.name} cannot be run as it is shipped"
    return found


@pytest.mark.parametrize("operator", sorted(FLOORS))
def test_gathered_inputs_give_gathered_outputs(operator: str) -> None:
    assert mismatches(node_cases()[operator]) == []


@pytest.mark.parametrize("kind", FILES)
def test_gathered_weights_and_inputs_of_whole_models_give_gathered_outputs(kind: str) -> None:
    assert mismatches(file_cases(kind)) == []
