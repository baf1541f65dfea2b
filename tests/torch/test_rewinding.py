"""Lottery tickets: weights go back bit by bit, zeros stay zero, and rounds of it find what counts."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

import graphprune as gp
from graphprune.errors import GraphPruneError
from graphprune.torch import bake, masks_of, put_masks, rewind
from tests.torch.small import Net, images, train


def trained(model: nn.Module) -> nn.Module:
    train(model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), 3)
    return model


def shown(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of the state dict as the module shows them, by their names without masks."""
    plain = copy.deepcopy(model)
    bake(plain)
    return plain.state_dict()


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("state_with_masks", [True, False])
def test_what_is_kept_is_the_checkpoint_bit_by_bit(masks: bool, state_with_masks: bool) -> None:
    torch.manual_seed(0)
    model = trained(Net())
    checkpoint = shown(model)
    if state_with_masks:  # of a round before: they say nothing about this one
        put_masks(model, {"second.weight": torch.rand(6, 8, 3, 3) > 0.5})
    early = copy.deepcopy(model.state_dict())
    bake(model)
    later = gp.sparsify(
        trained(model), images(1), format="unstructured", sparsity=0.6, allocate="global", only=["*"], masks=masks
    ).model
    before = shown(later)
    removed = {name: (each == 0) & (each.dim() > 1) for name, each in before.items()}
    objects = [id(each) for each in later.parameters()]
    for each in later.parameters():
        each.grad = torch.ones_like(each)
    rewind(later, early)
    after = shown(later)
    for name, numbers in checkpoint.items():
        assert torch.equal(after[name][~removed[name]], numbers[~removed[name]])
        assert not after[name][removed[name]].any()
    weights = [name for name in checkpoint if checkpoint[name].dim() > 1]
    assert sum(int(removed[name].sum()) for name in weights) == pytest.approx(
        0.6 * sum(checkpoint[name].numel() for name in weights), abs=len(weights)
    )
    assert all(not torch.equal(before[name], after[name]) for name in weights)
    assert [id(each) for each in later.parameters()] == objects
    assert all(each.grad is None for each in later.parameters())
    assert bool(masks_of(later)) is masks
    assert not any(each[removed[name]].any() for name, each in shown(trained(later)).items()) or not masks


def test_nothing_changes_where_something_does_not_fit() -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    state = {name: each + 1 for name, each in before.items()}
    for broken in ({"head.weight": None}, {"head.weight": torch.zeros(4, 5)}, {"head.bias": torch.zeros(4).double()}):
        wrong = {name: each for name, each in {**state, **broken}.items() if each is not None}
        with pytest.raises(GraphPruneError, match="GP504") as caught:
            rewind(model, wrong)
        assert next(iter(broken)) in str(caught.value)
        assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_rounds_keep_the_features_that_count() -> None:
    """Linear regression on 50 features of which 5 count (Elesedy, Kanade & Teh, 2020): they are in the ticket."""
    generator = torch.Generator().manual_seed(0)
    inputs, true = torch.randn(500, 50, generator=generator), torch.zeros(50)
    true[::10] = torch.tensor([1.0, -1.0, 0.7, -0.7, 0.5])
    data = inputs, (inputs @ true)[:, None] + 0.1 * torch.randn(500, 1, generator=generator)
    model = nn.Sequential(nn.Linear(50, 1, bias=False))
    early = copy.deepcopy(model.state_dict())
    options = {"loss": "mse", "steps": 30, "batch": 100, "rate": 0.1}
    for turn in range(1, 6):
        model = gp.finetune(model, data, **options).model
        share = 1 - 0.1 ** (turn / 5)
        model = gp.sparsify(model, inputs[:1], format="unstructured", sparsity=share, only=["*"]).model
        rewind(model, early)
        kept = masks_of(model)["0.weight"]
        assert int(kept.sum()) == pytest.approx(50 * (1 - share), abs=1)
        assert torch.equal(shown(model)["0.weight"], early["0.weight"] * kept)
    assert kept.nonzero()[:, 1].tolist() == [0, 10, 20, 30, 40]
