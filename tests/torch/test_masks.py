"""Masks compute what the pruned model computes, train like it, and come off without a trace."""

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from graphprune.errors import GraphPruneError
from graphprune.torch.masks import Mask, mask, masked_cuts, unmask
from tests.torch.small import CUTS, Net, holding, images, kept, pruned_copy, same, sliced, train


def shown(cuts: Any) -> Any:
    return {name: {axis: np.asarray(positions).tolist() for axis, positions in axes.items()} for name, axes in
            sorted(cuts.items())}  # fmt: skip


def described(model: nn.Module) -> Any:
    """What a model is made of, with the identity of parameters and the order of everything."""
    return (
        type(model),
        [(name, type(each)) for name, each in model.named_modules()],
        [(name, id(each)) for name, each in model.named_parameters(remove_duplicate=False)],
        [name for name, _ in model.named_buffers(remove_duplicate=False)],
        list(model.state_dict()),
    )


def test_a_masked_model_computes_what_the_pruned_one_computes() -> None:
    torch.manual_seed(0)
    model = Net()
    train(model, torch.optim.SGD(model.parameters(), 0.1), 3)
    twin = pruned_copy(model)
    dense = model.eval()(images(1))
    mask(model, CUTS)
    assert torch.allclose(model(images(1)), twin.eval()(images(1)), atol=1e-6)
    assert not torch.allclose(model(images(1)), dense, atol=1e-3)
    for name, axes in CUTS.items():
        if not name.startswith("norm.running"):
            owner = model.get_submodule(name.rpartition(".")[0])
            tensor = getattr(owner, name.rpartition(".")[2]).detach().numpy()
            assert np.count_nonzero(tensor) == np.count_nonzero(sliced(tensor, axes)) > 0


def test_masks_come_off_without_a_trace() -> None:
    model = Net()
    before, state, table = described(model), copy.deepcopy(model.state_dict()), model.table
    mask(model, CUTS)
    assert described(model) != before
    assert {id(each) for each in model.parameters()} == {number for _, number in before[2]}
    unmask(model)
    assert described(model) == before
    assert same(model.state_dict(), state)
    assert model.table is table
    assert vars(model).keys() == vars(Net()).keys()
    unmask(model)


@settings(max_examples=60, deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
def test_masked_cuts_are_the_cuts_that_were_masked(shape: list[int], data: st.DataObject) -> None:
    axes = {}
    for axis, size in enumerate(shape):
        keep = data.draw(st.sets(st.integers(0, size - 1), min_size=1).map(sorted))
        if len(keep) < size:
            axes[axis] = kept(*keep)
    cuts = {"weight": axes} if axes else {}
    model = holding(nn.Parameter(torch.rand(shape) + 1))
    mask(model, cuts)
    assert shown(masked_cuts(model)) == shown(cuts)
    expected = np.zeros(shape, bool)
    expected[np.ix_(*(axes.get(axis, range(size)) for axis, size in enumerate(shape)))] = True
    assert np.array_equal(model.weight.detach().numpy() != 0, expected)


def test_all_cuts_are_found_again_also_those_of_tensors_that_are_not_masked() -> None:
    model = Net()
    assert masked_cuts(model) == {}
    mask(model, CUTS)
    assert shown(masked_cuts(model)) == shown(CUTS)
    assert shown(masked_cuts(copy.deepcopy(model))) == shown(CUTS)
    other = Net()
    mask(other, {**CUTS, "first.weight": {0: kept(1)}})
    other.load_state_dict(model.state_dict())
    assert shown(masked_cuts(other)) == shown(CUTS)


def test_gradients_of_masked_entries_are_zero_even_of_those_that_are_not_finite() -> None:
    model = Net()
    with torch.no_grad():
        model.first.weight[1] = torch.nan
        model.first.bias[1] = torch.inf
    mask(model, CUTS)
    model(images(0)).square().sum().backward()
    for name, each in model.named_parameters():
        axes = CUTS.get(name.replace("parametrizations.", "").replace(".original", ""), {})
        assert torch.isfinite(each.grad).all(), name
        assert np.count_nonzero(each.grad) == np.count_nonzero(sliced(each.grad.numpy(), axes)), name


def test_training_goes_on_with_the_same_optimizer_and_the_statistics_are_updated() -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    train(model, optimizer, 1)
    twin = pruned_copy(model)
    mask(model, CUTS)
    train(model, optimizer, 3)
    train(twin, torch.optim.SGD(twin.parameters(), 0.1), 3)
    unmask(model)
    for name, tensor in twin.state_dict().items():
        assert np.allclose(sliced(model.state_dict()[name].numpy(), CUTS.get(name, {})), tensor, atol=1e-5), name


def test_tied_weights_and_shared_modules_stay_so() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 5, bias=False))
    model[2].weight = model[0].weight
    model.append(model[1])
    before = described(model)
    mask(model, {"2.weight": {1: kept(0, 3)}, "3.weight": {0: kept(1)}})
    assert torch.equal(model[0].weight, model[2].weight)
    assert model[0].weight[:, 1].count_nonzero() == 0
    assert len(list(model.parameters())) == 2
    assert shown(masked_cuts(model)) == {"0.weight": {1: [0, 3]}, "1.weight": {0: [1]}}
    unmask(model)
    assert described(model) == before


@pytest.mark.parametrize(
    "make", [lambda: nn.LSTM(3, 4, batch_first=True), lambda: nn.MultiheadAttention(4, 2, batch_first=True)]
)
def test_modules_that_keep_lists_of_their_weights(make: Any) -> None:
    model = make()
    name = next(name for name, _ in model.named_parameters())
    rows = model.get_parameter(name).shape[0]
    inputs = torch.randn(2, 3, model.get_parameter(name).shape[1])
    args = (inputs, inputs, inputs) if isinstance(model, nn.MultiheadAttention) else (inputs,)
    dense = model(*args)[0]
    zeroed = copy.deepcopy(model)
    zeroed.get_parameter(name).data[1:] = 0
    before = described(model)
    mask(model, {name: {0: kept(0)}})
    assert torch.allclose(model(*args)[0], zeroed(*args)[0], atol=1e-6)
    unmask(model)
    assert rows > 1
    assert described(model) == before
    assert torch.equal(model(*args)[0], dense)
    model(*args)[0].sum().backward()
    assert model.get_parameter(name).grad is not None


def test_parameter_lists_and_parameters_of_the_root() -> None:
    model = holding(nn.Parameter(torch.ones(3, 2)))
    model.items = nn.ParameterList([torch.ones(4), torch.ones(2, 2)])
    before = described(model)
    mask(model, {"weight": {0: kept(1)}, "items.0": {0: kept(3)}})
    assert model.items[0].tolist() == [0, 0, 0, 1]
    assert shown(masked_cuts(model)) == {"items.0": {0: [3]}, "weight": {0: [1]}}
    unmask(model)
    assert described(model) == before


def test_masks_follow_the_model_to_another_type_and_into_its_graph() -> None:
    model = holding(nn.Parameter(torch.ones(4, 2)))
    mask(model, {"weight": {0: kept(1)}})
    model.to(torch.bfloat16)
    assert model.weight.dtype == torch.bfloat16
    assert model.weight.count_nonzero() == 2


@pytest.mark.parametrize(
    ("prepare", "cuts", "code", "message"),
    [
        (lambda model: mask(model, CUTS), CUTS, "GP103", "parametrized already"),
        (lambda model: parametrizations.weight_norm(model.head), CUTS, "GP103", "parametrized already"),
        (
            lambda model: parametrizations.weight_norm(model.head),
            {"head.parametrizations.weight.original1": {1: kept(0)}},
            "GP103",
            "parametrized already",
        ),
        (lambda model: None, {**CUTS, "third.weight": {0: kept(0)}}, "GP504", "no tensor 'third.weight'"),
        (lambda model: None, {**CUTS, "head.scale": {0: kept(0)}}, "GP504", "no tensor 'head.scale'"),
        (lambda model: None, {**CUTS, "head.bias": {0: kept(0, 4)}}, "GP504", r"\(4,\) does not fit the cut"),
        (lambda model: None, {**CUTS, "head.bias": {1: kept(0)}}, "GP504", r"\(4,\) does not fit the cut"),
    ],
)
def test_what_cannot_be_masked_is_refused_and_the_model_left_alone(
    prepare: Any, cuts: Any, code: str, message: str
) -> None:
    model = Net()
    prepare(model)
    before = described(model)
    with pytest.raises(GraphPruneError, match=message) as caught:
        mask(model, cuts)
    assert caught.value.code == code
    assert described(model) == before


def test_a_failure_in_the_middle_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    before = described(model)
    register = parametrize.register_parametrization

    def interrupted(module: nn.Module, name: str, *rest: Any, **options: Any) -> nn.Module:
        if isinstance(module, nn.Linear):
            raise KeyboardInterrupt
        return register(module, name, *rest, **options)

    monkeypatch.setattr(parametrize, "register_parametrization", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mask(model, CUTS)
    assert described(model) == before


def test_masks_of_others_are_left_alone() -> None:
    model = Net()
    parametrizations.weight_norm(model.head)
    before = described(model)
    mask(model, {"first.bias": {0: kept(1)}})
    assert sum(isinstance(each, Mask) for each in model.modules()) == 1
    unmask(model)
    assert described(model) == before
