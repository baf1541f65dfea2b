"""`gp.finetune`: it learns within its budget, changes what it may and nothing else, and keeps the best."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import graphprune as gp
from graphprune.formats import parse
from graphprune.torch.sparse_masks import masks_of, put_masks
from graphprune.torch.training.gradual_zeros import GradualZeros
from tests.torch.lessons import Pupil, data, pupil, same, taught

HELD = data(60, seed=1)


# ------------------------------------------------------------------ what it is for
def test_a_cut_network_learns_again() -> None:
    dense = taught(pupil(), epochs=6, validate=HELD)
    assert dense.best is not None and dense.best > 0.9 > dense.history[0].metric
    small = gp.prune(dense.model, HELD[0][:2], macs=0.4, criterion="random", seed=1).model
    result = taught(small, epochs=4, teacher=dense.model, validate=HELD)
    assert result.best > result.history[0].metric + 0.1
    assert type(result.model) is Pupil and result.model.inner.weight.shape == small.inner.weight.shape
    again = gp.prune(result.model, HELD[0][:2], macs=0.9)  # it is a module like any other
    assert again.report.pruned.macs < again.report.dense.macs


def test_a_graph_is_trained_too(tmp_path: Path) -> None:
    dense = taught(pupil(), epochs=4).model.eval()
    small = gp.prune(dense, HELD[0][:2], macs=0.4, criterion="random", seed=1, as_graph=True).model
    result = taught(small, epochs=4, rate=0.02, teacher=dense, validate=HELD)
    assert isinstance(result.model, torch.fx.GraphModule)
    assert result.best > result.history[0].metric
    gp.save(result.model, tmp_path / "graph")
    again = gp.load(pupil, tmp_path / "graph", HELD[0][:2])
    with torch.no_grad():
        assert torch.equal(again.eval()(HELD[0]), result.model.eval()(HELD[0]))


def test_the_given_model_and_the_random_numbers_of_the_caller_stay() -> None:
    model, state = pupil().train(), torch.get_rng_state()
    model.stem.weight.requires_grad_(False)
    before = copy.deepcopy(model)
    result = taught(model, validate=HELD)
    assert same(model, before) and model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert result.model.training and not result.model.stem.weight.requires_grad
    assert torch.equal(result.model.stem.weight, model.stem.weight)
    assert not torch.equal(result.model.head.weight, model.head.weight)
    assert result.model.head.weight.requires_grad and result.model.head.weight.grad is None


def test_the_same_seed_gives_the_same_bits() -> None:
    first, second, other = (taught(pupil(), seed=seed) for seed in (3, 3, 4))
    assert same(first.model, second.model)
    assert not same(first.model, other.model)


def test_it_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        result = taught(pupil(), steps=2)
    assert result.steps == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", torch.optim.Adagrad])
@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", lambda share: 1 - share**2])
def test_optimizers_and_schedules(optimizer: Any, schedule: Any) -> None:
    rate = None if callable(optimizer) else 0.01
    result = taught(pupil(), optimizer=optimizer, schedule=schedule, rate=rate, epochs=3)
    losses = [each.loss for each in result.history[1:]]
    assert losses[-1] < losses[0]


def test_lower_precision_is_an_option() -> None:
    result = taught(pupil(), precision="bfloat16", epochs=4, validate=HELD)
    assert result.best > 0.8 and result.model.head.weight.dtype == torch.float32


# ------------------------------------------------------------------ the budget
def test_the_first_limit_that_is_reached_ends_it() -> None:
    assert (taught(pupil(), epochs=2, steps=100).stopped, taught(pupil(), epochs=9, steps=7).stopped) == (
        "epochs",
        "steps",
    )
    result = taught(pupil(), epochs=2, steps=100)
    assert (result.steps, result.epochs) == (12, 2)


def test_minutes_are_kept() -> None:
    started = time.monotonic()
    result = taught(pupil(), epochs=10_000, minutes=0.01)
    assert result.stopped == "minutes" and result.seconds >= 0.6
    assert time.monotonic() - started < 60  # ten thousand epochs take longer
    rates = [each.rate for each in result.history[1:]]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.01  # the schedule ends with the time


def test_it_ends_early_and_returns_the_best() -> None:
    model = taught(pupil(), epochs=6).model
    result = taught(model, epochs=50, rate=5.0, schedule="constant", clip=100.0, validate=HELD, patience=2)
    assert result.stopped == "patience" and result.epochs < 50
    assert result.best == max(each.metric for each in result.history)
    if result.best_step == 0:
        assert same(result.model, model) and "no better" in str(result)


def test_no_step_makes_it_worse_than_it_was() -> None:
    model = taught(pupil(), epochs=6).model
    unlearnt = (data()[0], data()[1].roll(1))
    result = taught(model, data=unlearnt, epochs=2, validate=HELD)
    assert result.best_step == 0 and same(result.model, model)
    assert result.history[-1].metric < result.best


# ------------------------------------------------------------------ what is trained
@pytest.mark.parametrize(
    ("train", "changed"),
    [
        ("norms", {"norm.weight", "norm.bias"}),
        ("biases", {"stem.bias", "norm.bias", "outer.bias", "head.bias"}),
        ("head", {"head.weight", "head.bias"}),
        ("norms,head", {"norm.weight", "norm.bias", "head.weight", "head.bias"}),
        ("in*.weight", {"inner.weight"}),
        ("lora", {name for name, _ in Pupil().named_parameters()}),
        ("all", {name for name, _ in Pupil().named_parameters()}),
    ],
)
def test_only_what_was_asked_for_changes(train: str, changed: set[str]) -> None:
    model = pupil()
    result = taught(model, train=train)
    after = dict(result.model.named_parameters())
    assert {name for name, each in model.named_parameters() if not torch.equal(each, after[name])} == changed
    assert list(after) == [name for name, _ in model.named_parameters()]
    assert type(result.model.stem) is nn.Conv2d
    assert all(each.requires_grad for each in after.values())


def test_few_parameters_are_enough_to_learn_something() -> None:
    dense = taught(pupil(width=16), epochs=6).model
    small = gp.prune(dense, HELD[0][:2], macs=0.3, criterion="random", seed=3).model
    result = taught(small, train=["norms", "biases"], epochs=6, validate=HELD)
    assert result.best > result.history[0].metric
    assert result.trained < result.parameters / 5


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)
            self.inner = nn.Linear(4, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Any) -> Any:
            return self.head(torch.relu(self.inner(self.table(ids))))

    torch.manual_seed(0)
    model, ids = Tied(), torch.arange(7).repeat(8)
    for train in ("all", "lora"):
        found = gp.finetune(model, (ids, ids), epochs=1, batch=8, rate=0.1, train=train).model
        assert found.head.weight is found.table.weight
        assert torch.equal(found.table.weight, model.table.weight) == (train == "lora")


def test_statistics_of_batch_norms_are_updated_or_frozen() -> None:
    model = pupil()
    free, frozen = (taught(model, batch_norm=how).model for how in ("update", "freeze"))
    assert not torch.equal(free.norm.running_mean, model.norm.running_mean)
    assert torch.equal(frozen.norm.running_mean, model.norm.running_mean)
    assert int(frozen.norm.num_batches_tracked) == 0


# ------------------------------------------------------------------ zeros
def zeroed(share: float = 0.75) -> tuple[Pupil, dict[str, Any]]:
    model = pupil()
    generator = torch.Generator().manual_seed(0)
    held = {name: each for name, each in model.named_parameters() if each.dim() > 1}
    masks = {name: torch.rand(each.shape, generator=generator) > share for name, each in held.items()}
    with torch.no_grad():
        for name, each in held.items():
            each *= masks[name]
    return model, masks


@pytest.mark.parametrize("train", ["all", "lora", "norms"])
@pytest.mark.parametrize("how", ["masks", "keep_zeros"])
def test_zeros_stay_zero(train: str, how: str) -> None:
    model, masks = zeroed()
    if how == "masks":
        put_masks(model, masks)
    result = taught(model, train=train, keep_zeros=how == "keep_zeros", weight_decay=0.01)
    assert set(masks_of(result.model)) == (set(masks) if how == "masks" else set())
    for name, mask in masks.items():
        path, _, attribute = name.rpartition(".")
        before, after = (getattr(each.get_submodule(path), attribute) for each in (model, result.model))
        assert bool((after[~mask] == 0).all()), name
        assert torch.equal(before[mask], after[mask]) == (train == "norms")


@pytest.mark.parametrize(("form", "share"), [("unstructured", 0.8), ("4x1", 0.5), ("2:4", None)])
def test_zeros_become_more_while_it_learns(form: str, share: float | None) -> None:
    seen = []

    def zeros(outputs: Any, labels: Any) -> float:
        return float(len(seen))  # every moment is better than the one before

    def looked(batch: Any) -> Any:
        seen.append(0)
        return batch

    result = taught(
        pupil(), sparsity=share, format=form, epochs=8, validate=HELD, metric=zeros, augment=looked, validate_every=1
    )
    assert result.best_step == result.steps == 48 and not masks_of(result.model)
    for name in ("inner.weight", "outer.weight"):
        weight = result.model.get_parameter(name).detach()
        removed = int((weight == 0).sum())
        counted = weight.numel() / (4 if form == "4x1" else 1)  # blocks
        assert abs(removed / weight.numel() - (share or 0.5)) <= 1 / counted
        matrix = weight.movedim(1, -1).flatten(1).numpy()
        assert parse(form).holds((matrix != 0).reshape(8, 9, -1))
    assert all(bool((result.model.get_parameter(name) != 0).all()) for name in ("stem.weight", "head.weight"))
    assert taught(pupil(), sparsity=share, format=form, epochs=8, validate=HELD).best > 0.8


def test_the_sparsity_follows_the_schedule_of_the_paper() -> None:
    model = pupil()
    zeros = GradualZeros.on(model, "unstructured", 0.8)
    assert zeros is not None
    cuts, before = 0, torch.ones_like(model.outer.weight, dtype=torch.bool)
    for progress in (0.0, 0.1, 0.375, 0.6, 0.75, 1.0):
        cuts = zeros.cut(progress, cuts)
        kept = model.outer.weight != 0
        ramp = cuts / zeros.cuts
        assert ramp == pytest.approx(min(1, progress / 0.75), abs=1 / zeros.cuts)
        assert abs(int((~kept).sum()) - 0.8 * (1 - (1 - ramp) ** 3) * kept.numel()) <= 1
        assert not bool((kept & ~before).any())  # what is zero once stays zero
        before = kept
    assert cuts == zeros.cuts


def test_movement_is_the_sum_of_what_gradients_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """``-sum w dL/dw`` taken down by hand: the lowest go, however large they are, and what is zero stays zero."""
    model, moved = pupil(), torch.zeros(())
    zeros = GradualZeros.on(model, "unstructured", 0.5, by="movement")
    assert zeros is not None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cuts = 0
    for progress in (0.0, 0.2, 0.4, 1.0):
        weight = model.outer.parametrizations.weight[0], model.outer.parametrizations.weight.original
        before = model.outer.weight.detach() != 0
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(HELD[0]), HELD[1]).backward()
        moved = moved - weight[1].grad * weight[1].detach()
        zeros.watch()
        optimizer.step()
        cuts = zeros.cut(progress, cuts)
        kept = weight[0].mask
        torch.testing.assert_close(weight[0].movement, moved)
        if not bool(kept.all()):
            assert moved[kept].min() >= moved[before & ~kept].max()
        assert not bool((kept & ~before).any())
    assert abs(int(kept.sum()) - kept.numel() / 2) <= 1
    small = model.outer.parametrizations.weight.original.detach().abs()
    assert small[kept].min() < small[~kept].max(), "magnitude would have chosen otherwise"


def test_zeros_by_movement_become_numbers() -> None:
    result = taught(pupil(), sparsity=0.8, zeros_by="movement", epochs=8)
    weight = result.model.get_parameter("outer.weight")
    assert int((weight == 0).sum()) == round(0.8 * weight.numel())
    assert not any("movement" in name for name, _ in result.model.named_buffers())


def test_without_a_mask_zeros_are_numbers_like_others() -> None:
    model, masks = zeroed()
    result = taught(model)
    assert any(bool((result.model.get_parameter(name)[~mask] != 0).any()) for name, mask in masks.items())


def test_a_masked_module_is_shrunk_after_training() -> None:
    model = pupil()
    plan = gp.plan(model, HELD[0][:2], macs=0.5)
    gp.mask(model, plan, HELD[0][:2])
    for train in ("all", "lora"):
        trained = taught(model, train=train).model
        assert not torch.equal(trained.inner.weight, model.inner.weight)
        with torch.no_grad():
            expected = trained(HELD[0])
            small = gp.shrink(trained, HELD[0][:2])
            assert torch.allclose(getattr(small, "model", small)(HELD[0]), expected, atol=1e-5)


def test_low_rank_updates_are_of_their_rank() -> None:
    model = pupil()
    found = taught(model, train="lora", rank=2).model
    for name in ("stem.weight", "outer.weight"):
        moved = (found.get_parameter(name) - model.get_parameter(name)).detach().flatten(1)
        assert int(torch.linalg.matrix_rank(moved, rtol=1e-4)) == 2


# ------------------------------------------------------------------ data
def batches() -> Iterator[Any]:
    images, labels = data()
    yield from zip(images.split(16), labels.split(16), strict=True)


class Pairs(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> Any:
        images, labels = data()
        return images[index], int(labels[index])


SOURCES = {
    "arrays": tuple(each.numpy() for each in data()),
    "list": list(batches()),
    "loader": torch.utils.data.DataLoader(Pairs(), 16, shuffle=True),
    "dataset": Pairs(),
    "function": batches,
    "numbered": lambda number: batches(),
    "dicts": [{"images": images, "labels": labels} for images, labels in batches()],
    "nested": [((images,), labels) for images, labels in batches()],
}


@pytest.mark.parametrize("name", SOURCES)
def test_data_of_every_kind(name: str) -> None:
    result = taught(pupil(), data=SOURCES[name], epochs=2, validate=HELD)
    assert (result.steps, result.epochs) == (12, 2)
    assert result.history[-1].loss < result.history[1].loss


def test_a_generator_can_be_read_once() -> None:
    assert taught(pupil(), data=batches(), epochs=1).steps == 6
    assert taught(pupil(), data=batches(), epochs=1, train="head").steps == 6


def test_batches_are_augmented() -> None:
    seen = []

    def mirrored(batch: Any) -> Any:
        seen.append(len(batch[1]))
        return batch[0].flip(3), batch[1]

    plain, augmented = taught(pupil()), taught(pupil(), augment=mirrored)
    assert seen == [16] * 12 and not same(plain.model, augmented.model)


def test_a_language_model_learns_the_next_token() -> None:
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
    ids = (torch.arange(20)[:, None] + torch.arange(6)) % 5
    result = gp.finetune(model, (ids, ids), epochs=30, batch=5, rate=0.5, validate=(ids, ids), metric="loss")
    assert result.best < 0.1 < result.history[0].metric
