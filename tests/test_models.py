"""The hard cases are sound models: valid, runnable, and with outputs on which a comparison means something."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.execution import degenerate, difference, feeds, run, session
from tests.models import CASES, Case
from tests.models.case import case, members

ALL = pytest.mark.parametrize("hard_case", CASES.values(), ids=CASES.keys())


def _tensors(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the initializers of a graph and of its subgraphs."""
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found.update(_tensors(attribute.g))
    return found


@ALL
def test_valid(hard_case: Case) -> None:
    onnx.checker.check_model(hard_case.build(), full_check=True)


@ALL
def test_runs_on_two_inputs_that_give_different_finite_outputs(hard_case: Case) -> None:
    model = hard_case.build()
    first, second = (run(model, feeds(model, seed=seed)) for seed in (0, 1))
    assert degenerate(first) == []
    assert difference(first, second) > 1e-3


@ALL
def test_runs_with_optimisations_alike(hard_case: Case) -> None:
    model = hard_case.build()
    inputs = feeds(model)
    names = [output.name for output in model.graph.output]
    optimised = dict(zip(names, session(model, optimise=True).run(names, inputs), strict=True))
    assert difference(run(model, inputs), optimised) < 1e-5


@ALL
def test_builds_the_same_bytes_twice(hard_case: Case) -> None:
    assert hard_case.build().SerializeToString() == hard_case.build().SerializeToString()


@ALL
def test_couplings_name_axes_that_can_hold_them(hard_case: Case) -> None:
    shapes = _tensors(hard_case.build().graph)
    for coupling in hard_case.couplings:
        assert coupling.size > 1
        for tensor, axis in coupling.members:
            assert shapes[tensor][axis] >= coupling.size, f"{tensor}:{axis} cannot hold {coupling.size}"


def test_branches_differ() -> None:
    model = CASES["branches"].build()
    inputs = feeds(model)
    other = {**inputs, "deep": np.array(False)}
    assert difference(run(model, inputs), run(model, other)) > 1e-3


def test_members_are_read_from_the_right() -> None:
    assert members("a:b.weight:1 c:0") == {("a:b.weight", 1), ("c", 0)}


def test_a_name_is_taken_once() -> None:
    build = next(iter(CASES.values())).build
    with pytest.raises(ValueError, match="two cases are called"):
        case()(build)


def test_difference_sees_values_shapes_names_and_nans() -> None:
    base = {"y": np.array([1.0, 2.0], np.float32)}
    assert difference(base, {"y": np.array([1.0, 2.2], np.float32)}) == pytest.approx(0.1, rel=1e-6)
    assert difference(base, {"y": np.array([1.0], np.float32)}) == np.inf
    assert difference(base, {"z": base["y"]}) == np.inf
    assert difference(base, {"y": np.array([1.0, np.nan], np.float32)}) == np.inf


def test_degenerate_sees_constants_and_infinities() -> None:
    outputs = {"a": np.array([1.0, 2.0]), "b": np.full(3, 2.0), "c": np.array([1.0, np.inf]), "d": np.zeros(0)}
    assert degenerate(outputs) == ["b", "c", "d"]
