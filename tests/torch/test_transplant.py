"""After pruning, an optimizer goes on exactly as one whose state was cut by hand."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphprune.torch.tensors import cut_in_place
from graphprune.torch.transplant import plan_transplant, transplant
from tests.torch.small import (
    CUTS,
    PLAN,
    Net,
    holding,
    images,
    kept,
    prune_,
    pruned_copy,
    same,
    sliced,
    snapshot,
    train,
)

optim = torch.optim


Make = Callable[[Any], Any]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: optim.SGD(p, 0.05),
    "momentum": lambda p: optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1, foreach=False),
    "nesterov foreach": lambda p: optim.SGD(p, 0.05, momentum=0.9, nesterov=True, foreach=True),
    "momentum fused": lambda p: optim.SGD(p, 0.05, momentum=0.9, fused=True),
    "adam": lambda p: optim.Adam(p, 0.01, foreach=False),
    "amsgrad foreach": lambda p: optim.Adam(p, 0.01, amsgrad=True, foreach=True),
    "adam fused": lambda p: optim.Adam(p, 0.01, fused=True),
    "adamw": lambda p: optim.AdamW(p, 0.01, amsgrad=True),
    "adamw foreach": lambda p: optim.AdamW(p, 0.01, foreach=True),
    "adamw fused": lambda p: optim.AdamW(p, 0.01, amsgrad=True, fused=True),
    "rmsprop": lambda p: optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "rmsprop foreach": lambda p: optim.RMSprop(p, 0.01, foreach=True),
    "adagrad": lambda p: optim.Adagrad(p, 0.01),
    "adagrad fused": lambda p: optim.Adagrad(p, 0.01, fused=True),
    "adadelta": optim.Adadelta,
    "adamax": optim.Adamax,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "rprop": optim.Rprop,
    "asgd": optim.ASGD,
    "adafactor": optim.Adafactor,
}


def sliced_state(value: Any, shape: tuple[int, ...], axes: Any) -> Any:
    """One entry of a parameter's state, cut with NumPy; axes of size 1 are sums over the axis."""
    if not isinstance(value, torch.Tensor) or value.dim() != len(shape) or value.numel() == 1:
        return value
    axes = {axis: positions for axis, positions in axes.items() if value.shape[axis] == shape[axis]}
    return torch.from_numpy(np.array(sliced(value.numpy(), axes)))


def by_hand(model: nn.Module, optimizer: Any, make: Make) -> tuple[nn.Module, Any]:
    """A pruned model and an optimizer made anew, with state that NumPy cut, through the state dicts of both."""
    twin = pruned_copy(model)
    other = make(twin.parameters())
    state = copy.deepcopy(optimizer.state_dict())
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if number in state["state"]:
            state["state"][number] = {
                key: sliced_state(value, tuple(parameter.shape), CUTS.get(name, {}))
                for key, value in state["state"][number].items()
            }
    other.load_state_dict(state)
    return twin, other


# ------------------------------------------------------------------ every optimizer
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_with_state_cut_by_hand(name: str) -> None:
    torch.manual_seed(0)
    model, make = Net(), OPTIMIZERS[name]
    optimizer = make(model.parameters())
    train(model, optimizer, 3)
    twin, other = by_hand(model, optimizer, make)
    held = [id(each) for each in model.parameters()]

    prune_(model)
    plan_transplant(PLAN, model, optimizer)

    assert [id(each) for each in model.parameters()] == held
    assert same(optimizer.state_dict(), other.state_dict())
    train(model, optimizer, 4, seed=50)
    train(twin, other, 4, seed=50)
    assert same(model.state_dict(), twin.state_dict())
    assert same(optimizer.state_dict(), other.state_dict())


def test_the_comparison_of_training_can_fail() -> None:
    torch.manual_seed(0)
    model, make = Net(), OPTIMIZERS["adam"]
    optimizer = make(model.parameters())
    train(model, optimizer, 3)
    twin, other = by_hand(model, optimizer, make)
    prune_(model)
    optimizer.state.clear()  # as one that was made anew
    train(model, optimizer, 4, seed=50)
    train(twin, other, 4, seed=50)
    assert not same(model.state_dict(), twin.state_dict())


@pytest.mark.parametrize("name", ["momentum", "adamw fused", "adafactor"])
def test_a_copy_takes_the_place_of_the_dense_model(name: str) -> None:
    torch.manual_seed(0)
    dense, make = Net(), OPTIMIZERS[name]
    optimizer = make(dense.parameters())
    train(dense, optimizer, 3)
    twin, other = by_hand(dense, optimizer, make)
    before = copy.deepcopy(dense.state_dict())

    model = prune_(copy.deepcopy(dense))
    plan_transplant(PLAN, model, optimizer, source=dense)

    assert [id(each) for each in optimizer.param_groups[0]["params"]] == [id(each) for each in model.parameters()]
    for each, was in zip(model.named_parameters(), dense.parameters(), strict=True):
        assert np.array_equal(each[1].grad, sliced(was.grad.numpy(), CUTS.get(each[0], {})))
    train(model, optimizer, 4, seed=50)
    train(twin, other, 4, seed=50)
    assert same(model.state_dict(), twin.state_dict())
    assert same(dense.state_dict(), before)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    name=st.sampled_from([each for each in OPTIMIZERS if each != "adafactor"]),
    data=st.data(),
)
def test_steps_and_cuts_commute(shape: list[int], name: str, data: st.DataObject) -> None:
    """What a step does to an entry depends on this entry only, so cutting before or after it is the same."""
    axes = {}
    for axis, size in enumerate(shape):
        keep = data.draw(st.sets(st.integers(0, size - 1), min_size=1).map(sorted))
        if len(keep) < size and data.draw(st.booleans()):
            axes[axis] = kept(*keep)
    random = np.random.default_rng(len(shape))
    dense = nn.Parameter(torch.from_numpy(random.standard_normal(shape)))
    small = nn.Parameter(dense.detach().clone())
    optimizers = [OPTIMIZERS[name]([dense]), OPTIMIZERS[name]([small])]
    for step in range(5):
        if step == 3:
            cut_in_place(holding(small), {"weight": axes} if axes else {})
            transplant(optimizers[1], {"weight": axes} if axes else {}, {"weight": small})
        gradient = random.standard_normal(shape)
        dense.grad = torch.from_numpy(gradient)
        small.grad = torch.from_numpy(np.array(sliced(gradient, axes if step >= 3 else {})))
        for optimizer in optimizers:
            optimizer.step()
    assert np.allclose(sliced(dense.detach().numpy(), axes), small.detach().numpy(), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------ what hangs on an optimizer
def test_groups_and_scheduler_go_on() -> None:
    def start(model: nn.Module, make_optimizer: bool = True) -> tuple[Any, Any]:
        groups = [
            {"params": [model.first.weight, model.head.weight], "lr": 0.1},
            {"params": [each for name, each in model.named_parameters() if name not in ("first.weight", "head.weight")],
             "lr": 0.01, "weight_decay": 0.2},
        ]  # fmt: skip
        optimizer = optim.AdamW(groups)
        return optimizer, optim.lr_scheduler.OneCycleLR(optimizer, [0.2, 0.02], total_steps=20)

    def run(model: nn.Module, optimizer: Any, scheduler: Any, steps: int, seed: int) -> list[Any]:
        rates = []
        for step in range(steps):
            train(model, optimizer, 1, seed + step)
            scheduler.step()
            rates.append([(group["lr"], group["betas"], group["weight_decay"]) for group in optimizer.param_groups])
        return rates

    torch.manual_seed(0)
    model = Net()
    optimizer, scheduler = start(model)
    run(model, optimizer, scheduler, 4, 0)
    twin = pruned_copy(model)
    other, other_scheduler = start(twin)
    other_scheduler.load_state_dict(scheduler.state_dict())
    state = copy.deepcopy(optimizer.state_dict())
    names = {id(each): name for name, each in model.named_parameters()}
    held = [each for group in optimizer.param_groups for each in group["params"]]
    for number, each in enumerate(held):
        axes = CUTS.get(names[id(each)], {})
        state["state"][number] = {
            key: sliced_state(value, tuple(each.shape), axes) for key, value in state["state"][number].items()
        }
    other.load_state_dict(state)

    prune_(model)
    plan_transplant(PLAN, model, optimizer)

    assert run(model, optimizer, scheduler, 5, 90) == run(twin, other, other_scheduler, 5, 90)
    assert same(model.state_dict(), twin.state_dict())


def test_gradient_scaler_goes_on() -> None:
    def scaled(model: nn.Module, optimizer: Any, scaler: Any, seed: int) -> None:
        optimizer.zero_grad()
        scaler.scale(model(images(seed)).square().mean()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    torch.manual_seed(0)
    model, make = Net(), OPTIMIZERS["momentum"]
    optimizer, scaler = make(model.parameters()), torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
    for seed in range(3):
        scaled(model, optimizer, scaler, seed)
    twin, other = by_hand(model, optimizer, make)
    other_scaler = torch.amp.GradScaler("cpu")
    other_scaler.load_state_dict(scaler.state_dict())
    prune_(model)
    plan_transplant(PLAN, model, optimizer)
    for seed in range(20, 23):
        scaled(model, optimizer, scaler, seed)
        scaled(twin, other, other_scaler, seed)
    assert same(model.state_dict(), twin.state_dict())
    assert scaler.state_dict() == other_scaler.state_dict()


def test_accumulated_gradients_go_on_while_the_last_graph_lives() -> None:
    """The graph of the last loss holds nodes that remember the old shapes; hooks must survive that they are dropped."""
    torch.manual_seed(0)
    model = Net()
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    called: list[str] = []
    model.first.weight.register_post_accumulate_grad_hook(lambda _: called.append("after"))
    model.first.weight.register_hook(lambda _: called.append("before"))
    loss = train(model, optimizer, 2)
    twin = pruned_copy(model)
    for (name, each), was in zip(twin.named_parameters(), model.parameters(), strict=True):
        each.grad = torch.from_numpy(np.array(sliced(was.grad.numpy(), CUTS.get(name, {}))))
    called.clear()
    prune_(model)
    plan_transplant(PLAN, model, optimizer)
    for each in (model, twin):
        each(images(7)).square().mean().backward()
    assert loss.requires_grad
    assert called == ["before", "after"]
    assert same([each.grad for each in model.parameters()], [each.grad for each in twin.parameters()])


def test_state_is_laid_out_as_its_parameter_for_fused_steps() -> None:
    torch.manual_seed(0)
    model = Net().to(memory_format=torch.channels_last)
    optimizer = optim.Adam(model.parameters(), 0.01, fused=True)
    train(model, optimizer, 2)
    prune_(model)
    plan_transplant(PLAN, model, optimizer)
    for each in model.parameters():
        assert optimizer.state[each]["exp_avg"].stride() == each.stride() == each.grad.stride()


def test_a_gradient_of_the_dense_shape_is_cut_too() -> None:
    model = Net()
    model(images(0)).sum().backward()
    dense = {name: each.grad.clone() for name, each in model.named_parameters()}
    optimizer = optim.SGD(model.parameters(), 0.1)
    for name, axes in CUTS.items():  # as if only the data was changed
        if name in dense:
            each = model.get_parameter(name)
            each.data = torch.from_numpy(np.array(sliced(each.detach().numpy(), axes)))
    transplant(optimizer, CUTS, dict(model.named_parameters()))
    for name, each in model.named_parameters():
        assert np.array_equal(each.grad, sliced(dense[name].numpy(), CUTS.get(name, {})))


def test_within_inference_mode_state_can_be_trained_with_later() -> None:
    model = Net()
    optimizer = optim.Adam(model.parameters())
    train(model, optimizer, 1)
    with torch.inference_mode():
        prune_(model)
        plan_transplant(PLAN, model, optimizer)
    train(model, optimizer, 1)


def test_again_changes_nothing_and_fresh_optimizers_need_nothing() -> None:
    model = Net()
    optimizer = optim.Adam(model.parameters())
    train(model, optimizer, 1)
    prune_(model)
    plan_transplant(PLAN, model, optimizer)
    before = snapshot(optimizer)
    plan_transplant(PLAN, model, optimizer)
    assert same(snapshot(optimizer), before)
    plan_transplant(PLAN, model, optim.Adam(model.parameters()))


def test_tied_and_foreign_parameters() -> None:
    first, second = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)
    second.weight = first.weight
    model, alone = nn.Sequential(first, second), nn.Parameter(torch.ones(6, 4))
    optimizer = optim.Adam([*model.parameters(), alone])
    (model[0](torch.ones(4)).sum() + alone.sum()).backward()
    optimizer.step()
    cuts = {"1.weight": {0: kept(0, 5)}}
    cut_in_place(model, cuts)
    transplant(optimizer, cuts, dict(model.named_parameters(remove_duplicate=False)))
    assert optimizer.state[first.weight]["exp_avg"].shape == (2, 4)
    assert optimizer.state[alone]["exp_avg"].shape == (6, 4)
