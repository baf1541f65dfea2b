"""State of other shapes than its parameter's, what cannot follow a cut, and models that were pruned twice."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from graphprune.errors import GraphPruneError
from graphprune.torch.pruned import Pruned, composed, pruned_of, whole
from graphprune.torch.tensors import cut_in_place
from graphprune.torch.transplant import plan_transplant, transplant
from tests.torch.small import (
    CUTS,
    PLAN,
    Net,
    holding,
    kept,
    prune_,
    same,
    sliced,
    snapshot,
    train,
)

optim = torch.optim


# ------------------------------------------------------------------ state of other shapes
class Factored(optim.Optimizer):
    """State summed over axes, named as asked, as Adafactor of transformers has it."""

    def __init__(self, parameters: Any, **state: Any) -> None:
        super().__init__(parameters, {})
        for each in self.param_groups[0]["params"]:
            self.state[each].update({key: make(each) for key, make in state.items()})


def cut_with(state: Any, shape: tuple[int, ...] = (6, 6), cuts: Any = None) -> dict[str, Any]:
    model = holding(nn.Parameter(torch.arange(float(np.prod(shape))).view(shape)))
    optimizer = Factored(model.parameters(), **state)
    before = snapshot(optimizer)
    cuts = {"weight": cuts or {0: kept(1, 2), 1: kept(0, 3, 4)}}
    cut_in_place(model, cuts)
    try:
        transplant(optimizer, cuts, dict(model.named_parameters()))
    except GraphPruneError:
        assert same(snapshot(optimizer), before)
        raise
    return dict(optimizer.state[model.weight])  # type: ignore[index]


def test_factored_state_follows_by_its_name() -> None:
    found = cut_with({
        "exp_avg_sq_row": lambda each: each.detach().sum(-1),
        "exp_avg_sq_col": lambda each: each.detach().sum(-2),
        "RMS": lambda each: 3.0,
    })  # fmt: skip
    dense = np.arange(36.0).reshape(6, 6)
    assert np.array_equal(found["exp_avg_sq_row"], dense.sum(-1)[[1, 2]])
    assert np.array_equal(found["exp_avg_sq_col"], dense.sum(-2)[[0, 3, 4]])
    assert found["RMS"] == 3.0


def test_summed_state_follows_where_only_one_axis_can_be_meant() -> None:
    state = {"full": torch.ones_like, "rows": lambda each: torch.arange(6.0), "columns": lambda each: torch.arange(7.0)}
    found = cut_with(state, (6, 7), {0: kept(1, 2)})
    assert found["rows"].tolist() == [1, 2]
    assert found["columns"].tolist() == list(range(7))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"full": torch.ones_like, "rows": lambda each: torch.ones(6)}, "the state may belong to several axes"),
        ({"full": torch.ones_like, "blocks": lambda each: torch.ones(9)}, "the state fits no axes"),
        ({"rows": lambda each: torch.ones(9)}, r"the state may belong to several axes: .* was \(\?, \?\)"),
        ({"deep": lambda each: torch.ones(6, 6, 6)}, "the state fits no axes"),
        ({"factors": lambda each: [torch.ones(6, 6)]}, "the state is a list of tensors"),
        ({"factors": lambda each: {"left": (torch.ones(6, 6),)}}, "the state is a dict of tensors"),
        ({"full": torch.ones_like, "larger": lambda each: torch.ones(6, 8)}, "state or gradient has 8 entries"),
        ({"larger": lambda each: torch.ones(6, 4)}, "state or gradient has 4 entries along axis 1"),
    ],
)
def test_state_that_cannot_follow_is_refused_and_left_alone(state: Any, message: str) -> None:
    with pytest.raises(GraphPruneError, match=message) as caught:
        cut_with(state)
    assert caught.value.code == "GP504"


# ------------------------------------------------------------------ refusals
def trained() -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = Net()
    optimizer = optim.Adam(model.parameters())
    train(model, optimizer, 1)
    return model, optimizer


def refusals() -> Iterator[Any]:
    def not_pruned(model: Any, optimizer: Any) -> None:
        transplant(optimizer, CUTS, dict(model.named_parameters()))

    def foreign(model: Any, optimizer: Any) -> None:
        transplant(optimizer, CUTS, dict(prune_(Net()).named_parameters()))

    def prefixed(model: Any, optimizer: Any) -> None:
        transplant(optimizer, {f"module.{name}": axes for name, axes in CUTS.items()}, dict(model.named_parameters()))

    def other_source(model: Any, optimizer: Any) -> None:
        transplant(optimizer, CUTS, dict(model.named_parameters()), source=dict(model.named_parameters()))

    def lacking(model: Any, optimizer: Any) -> None:
        small = dict(prune_(copy.deepcopy(model)).named_parameters())
        del small["head.bias"]
        transplant(optimizer, CUTS, small, source=dict(model.named_parameters()))

    def torn_state(model: Any, optimizer: Any) -> None:
        optimizer.state[model.head.weight]["exp_avg"] = torch.ones(5, 5)
        before = snapshot(optimizer)
        small = prune_(copy.deepcopy(model))
        try:
            transplant(optimizer, CUTS, dict(small.named_parameters()), source=dict(model.named_parameters()))
        finally:
            assert same(snapshot(optimizer), before)

    def wrong_shapes(model: Any, optimizer: Any) -> None:
        prune_(model)
        transplant(optimizer, CUTS, dict(model.named_parameters()), shapes={"first.weight": (9, 3, 3, 3)})

    yield pytest.param(not_pruned, "the shape of the parameter is (8, 3, 3, 3)", id="not pruned")
    yield pytest.param(foreign, "the optimizer holds none of the parameters", id="foreign")
    yield pytest.param(prefixed, "no tensor of the cut is a parameter", id="prefixed")
    yield pytest.param(other_source, "the shape of the parameter is (8, 3, 3, 3)", id="source is the model")
    yield pytest.param(lacking, "the pruned model has no parameter of this name", id="lacking")
    yield pytest.param(torn_state, "state or gradient has 5 entries along axis 1", id="torn state")
    yield pytest.param(wrong_shapes, "has 8 entries along axis 0, but the parameter had 9", id="wrong shapes")


@pytest.mark.parametrize(("act", "message"), list(refusals()))
def test_what_does_not_fit_is_refused(act: Callable[[Any, Any], None], message: str) -> None:
    model, optimizer = trained()
    state = copy.deepcopy(optimizer.state_dict()["state"]) if act.__name__ != "torn_state" else None
    with pytest.raises(GraphPruneError) as caught:
        act(model, optimizer)
    assert caught.value.code == "GP504"
    assert message in caught.value.what
    assert state is None or same(optimizer.state_dict()["state"], state)


def test_lbfgs_is_refused_once_it_has_a_history() -> None:
    model = Net()
    optimizer = optim.LBFGS(model.parameters())
    optimizer.step(lambda: train(model, optim.SGD(model.parameters(), 0.0), 1))
    prune_(model)
    with pytest.raises(GraphPruneError, match="LBFGS keeps its history as vectors"):
        plan_transplant(PLAN, model, optimizer)
    plan_transplant(PLAN, model, optim.LBFGS(model.parameters()))


def test_a_model_that_was_not_pruned_by_the_plan_is_refused() -> None:
    model, optimizer = trained()
    with pytest.raises(GraphPruneError, match="GP501 the model was pruned by none"):
        plan_transplant(PLAN, model, optimizer)
    prune_(model)
    with pytest.raises(GraphPruneError, match="GP501 the model was pruned by another plan"):
        plan_transplant(type(PLAN)(), model, optimizer)


# ------------------------------------------------------------------ several prunings
AGAIN = Pruned(
    type(PLAN)((type(PLAN.groups[0])("first.weight:0", 5, (1, 4)),)),
    {name: {axis: kept(1, 4) for axis, positions in axes.items() if len(positions) == 5} for name, axes in CUTS.items()
     if any(len(positions) == 5 for positions in axes.values())},
    {"first": {"out_channels": 2}, "norm": {"num_features": 2}, "second": {"in_channels": 2}},
)  # fmt: skip


@pytest.mark.parametrize("late", [False, True])
def test_a_model_pruned_twice_is_followed_at_once_or_step_by_step(late: bool) -> None:
    model, optimizer = trained()
    dense = {name: optimizer.state[each]["exp_avg"].numpy() for name, each in model.named_parameters()}
    prune_(model)
    if not late:
        plan_transplant(PLAN, model, optimizer)
    prune_(model, AGAIN)
    plan_transplant(PLAN if late else AGAIN.plan, model, optimizer)
    both = composed(CUTS, AGAIN.cuts)
    for name, each in model.named_parameters():
        assert np.array_equal(optimizer.state[each]["exp_avg"], sliced(dense[name], both.get(name, {})))
    train(model, optimizer, 1)
    found = pruned_of(model)
    assert found is not None
    assert whole(found).plan.groups[0].keep == (2, 6)
    assert whole(found).edits["second"] == {"in_channels": 2, "out_channels": 3}


def test_state_from_before_the_first_pruning_is_not_taken_for_that_of_the_second() -> None:
    model, optimizer = trained()
    prune_(model)
    shapes = {name: tuple(each.shape) for name, each in model.named_parameters()}
    prune_(model, Pruned(AGAIN.plan, AGAIN.cuts, AGAIN.edits, shapes=shapes))
    with pytest.raises(GraphPruneError, match="GP504 state or gradient has 8 entries"):
        plan_transplant(AGAIN.plan, model, optimizer)
