"""Averages of weights and state dicts follow a cut; the public names of the package."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import graphprune.torch
from graphprune.errors import GraphPruneError
from graphprune.torch.pruned import pruned_of
from graphprune.torch.transplant import cut_state_dict, plan_transplant, transplant, transplant_average
from tests.torch.small import (
    CUTS,
    EDITS,
    PLAN,
    Net,
    images,
    prune_,
    pruned_by,
    pruned_copy,
    same,
    train,
)


def test_an_average_goes_on_and_runs() -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for seed in range(3):
        train(model, optimizer, 1, seed)
        average.update_parameters(model)
    twin_average = AveragedModel(pruned_copy(average.module), multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    twin_average.n_averaged.copy_(average.n_averaged)
    prune_(model)
    plan_transplant(PLAN, model, optimizer)
    pruned = pruned_of(model)
    assert pruned is not None
    transplant_average(average, pruned)
    transplant_average(average, pruned)  # again changes nothing
    for seed in range(3):
        train(model, optimizer, 1, 30 + seed)
        average.update_parameters(model)
        twin_average.update_parameters(model)
    assert same(average.state_dict(), twin_average.state_dict())
    assert average.module.first.out_channels == 5
    assert torch.equal(average.eval()(images(1)), twin_average.eval()(images(1)))


def test_averages_that_do_not_fit_are_refused_and_left_alone() -> None:
    average = AveragedModel(nn.Sequential(nn.Linear(3, 3)))
    before = copy.deepcopy(average.state_dict())
    with pytest.raises(GraphPruneError, match=r"GP504 the module has no tensor 'first.weight'"):
        transplant_average(average, CUTS)
    with pytest.raises(GraphPruneError, match="GP504 the pruned model became a graph"):
        transplant_average(average, pruned_by(kind="graph"))
    net = Net()
    with pytest.raises(GraphPruneError, match="GP506 the Conv2d has no attribute 'chanels'"):
        transplant_average(net, pruned_by(edits={**EDITS, "second": {"chanels": 3}}))
    assert same(average.state_dict(), before)
    assert net.first.weight.shape == (8, 3, 3, 3)
    assert net.first.out_channels == 8


def test_a_state_dict_is_cut_under_each_name_of_a_tied_tensor() -> None:
    model = Net()
    state = {f"module.{name}": each for name, each in model.state_dict().items()}
    state["module.again"] = state["module.first.weight"].view_as(state["module.first.weight"])
    found = cut_state_dict(state, CUTS, prefix="module.")
    small = pruned_copy(model).state_dict()
    assert same({name: found[f"module.{name}"] for name in small}, dict(small))
    assert found["module.again"].shape == (5, 3, 3, 3)
    assert found["module.head.bias"] is state["module.head.bias"]
    with pytest.raises(GraphPruneError, match=r"GP504 there is no 'first.weight'"):
        cut_state_dict(state, CUTS)
    with pytest.raises(GraphPruneError, match="does not fit the cut: 5 of axis 0 up to position 6"):
        cut_state_dict({"first.weight": torch.ones(4, 3, 3, 3)}, CUTS)


# ------------------------------------------------------------------ the package
def test_public_names_are_fetched_on_first_use() -> None:
    for name in graphprune.torch.__all__:
        assert getattr(graphprune.torch, name).__name__ == name
    assert graphprune.torch.transplant is transplant
    with pytest.raises(AttributeError, match=r"module 'graphprune.torch' has no attribute 'prnue'"):
        _ = graphprune.torch.prnue  # type: ignore[attr-defined]
