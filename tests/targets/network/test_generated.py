"""Some of the networks that `python -m tests.targets.network.composed` builds in bulk, and the hard cases."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("tvm")

from tests.generator import recipe
from tests.models import CASES, Case
from tests.targets.network import composed
from tests.targets.network.composed import check_model, problem
from tests.targets.network.harness import MACHINES, Built, built
from tests.targets.network.net import Net

SEEDS = range(30)
REFUSED = {"anchors_and_suppression": "NonMaxSuppression"}  # the sizes of what they find are not known
BLOCKS = 4


@pytest.mark.parametrize("seed", SEEDS)
def test_generated_networks(seed: int) -> None:
    wrong, checked = problem(recipe(seed, BLOCKS), MACHINES[seed % len(MACHINES)])
    assert not wrong
    assert checked.refused or checked.steps


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_hard_cases(case: Case) -> None:
    checked = check_model(case.build(), MACHINES[0])
    operator = REFUSED.get(case.name)
    assert bool(checked.steps) != bool(operator)
    assert f"({operator})" in checked.refused or not operator


def test_what_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    model = net.model(net.op("Relu", net.op("MatMul", net.input(6, 8), net.weight(8, 4))))

    def off(*given: object) -> Built:
        other = onnx.ModelProto()
        other.CopyFrom(model)
        (stored,) = other.graph.initializer
        array = numpy_helper.to_array(stored) * np.float32(1.0001)
        stored.CopyFrom(numpy_helper.from_array(array, stored.name))
        found = built(other)
        return Built(model, found.lowered, found.program)

    check_model(model, MACHINES[0])
    monkeypatch.setattr(composed, "built", off)
    with pytest.raises(AssertionError, match="run 0"):
        check_model(model, MACHINES[0])
