"""PyTorch's samples of every operator of the table: gathered tensors give gathered results, along every free dimension,
and there are as many free dimensions as there must be."""

from __future__ import annotations

import pytest

from .floors import FLOORS, checked, names, shortfalls, usable


@pytest.mark.parametrize("name", FLOORS)
def test_gathered_tensors_give_gathered_results(name: str) -> None:
    counts, mismatches = checked(usable(name))
    assert mismatches == []
    assert shortfalls(name, FLOORS[name], counts) == []


def test_every_function_is_one_that_there_are_samples_of() -> None:
    assert FLOORS.keys() - set(names()) == set()
