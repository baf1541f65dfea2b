"""Distillation, schedules and updates against their formulas, written out with NumPy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from graphprune.torch.training.budget import Budget, Done
from graphprune.torch.training.distil import divergence
from graphprune.torch.training.lora import LowRank, add_low_rank, merge_low_rank
from graphprune.torch.training.schedule import SCHEDULES, schedule_of
from tests.torch.lessons import data, pupil, taught


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence_is_that_of_the_paper(shape: tuple[int, ...], temperature: float) -> None:
    generator = np.random.default_rng(0)
    student, teacher = (generator.normal(size=shape) for _ in range(2))
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(-1).mean()
    found = divergence(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    assert np.isclose(float(found), expected, rtol=1e-5)


def test_classes_of_images_are_on_the_second_axis() -> None:
    logits = torch.randn(2, 4, 3, 3)
    flat = logits.movedim(1, -1).reshape(-1, 4)
    assert torch.isclose(divergence(logits, logits.roll(1, 1), 2.0), divergence(flat, flat.roll(1, 1), 2.0))


def test_with_the_share_the_losses_are_mixed() -> None:
    """One step of plain gradient descent with a mixed loss is the mean of two steps."""
    model, teacher = pupil(), pupil(3)

    def moved(**options: object) -> torch.Tensor:
        made = lambda parameters: torch.optim.SGD(parameters, 0.1)  # noqa: E731
        found = taught(model, steps=1, batch=96, optimizer=made, rate=None, schedule="constant", **options).model
        return found.head.weight.detach() - model.head.weight.detach()

    labels, logits = moved(), moved(teacher=teacher, loss=None)
    mixed = moved(teacher=teacher, distill=0.25)
    assert torch.allclose(mixed, 0.75 * labels + 0.25 * logits, atol=1e-6)
    assert not torch.allclose(labels, logits, atol=1e-4)


def test_features_come_closer() -> None:
    model, teacher = pupil(), pupil(3)
    images = data()[0]

    def distance(student: torch.nn.Module) -> float:
        seen = []
        for each in (student, teacher):
            handle = each.block.register_forward_hook(lambda _, __, output: seen.append(output))
            with torch.no_grad():
                each(images)
            handle.remove()
        return float((seen[0] - seen[1]).square().sum())

    before = distance(model)
    result = taught(model, teacher=teacher, loss=None, features=["block"], feature_weight=10.0, epochs=10, rate=0.01)
    assert distance(result.model.eval()) < 0.7 * before


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_stay_within_bounds(name: str) -> None:
    schedule = schedule_of(name)
    factors = [schedule(share) for share in np.linspace(0, 1, 101)]
    assert all(0 <= each <= 1 for each in factors) and max(factors) == pytest.approx(1)


def test_rewinding_replays_the_rest_of_the_schedule() -> None:
    whole, rewound = schedule_of("cosine"), schedule_of("cosine", rewind=0.6)
    for share in (0.0, 0.3, 1.0):
        assert rewound(share) == whole(0.6 + 0.4 * share)
    rates = [each.rate for each in taught(pupil(), schedule="step", rewind=0.5, epochs=4).history[1:]]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_progress_is_that_of_the_nearest_limit() -> None:
    budget = Budget(epochs=4, steps=100, minutes=1)
    assert budget.progress(Done(step=10, epoch=1, position=5, per_epoch=10, seconds=6)) == pytest.approx(1.5 / 4)
    assert budget.progress(Done(step=90, epoch=1)) == 0.9
    assert budget.left(Done(step=50, seconds=10)) == pytest.approx(10)


def test_an_update_changes_nothing_at_first_and_is_merged_exactly() -> None:
    model = pupil()
    images, before = data()[0], dict(model.state_dict())
    with torch.no_grad():
        expected = model(images)
        parameters = add_low_rank(model, 2)
        assert torch.equal(model(images), expected)
        for each in parameters:
            each.normal_()
        changed = model(images)
        assert not torch.allclose(changed, expected, atol=1e-2)
        assert any(isinstance(each, LowRank) for each in model.modules())
        merge_low_rank(model)
        assert torch.equal(model(images), changed)
    assert list(model.state_dict()) == list(before)
    assert not any(isinstance(each, LowRank) for each in model.modules())
