"""Mixed batches: what lies between samples, the same for student and teacher, and never with labels."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from graphprune.errors import GraphPruneError
from graphprune.torch.training.batches import Batch
from graphprune.torch.training.mixing import MIXES, mixed
from tests.torch.lessons import data, pupil, taught

SEEDS = st.integers(0, 2**31)


@given(SEEDS, st.integers(1, 5), st.lists(st.integers(1, 4), max_size=3))
def test_mixup_is_a_convex_combination(seed: int, count: int, shape: list[int]) -> None:
    """Of zeros and ones one share for each sample; swapping the two gives the rest of it."""
    torch.manual_seed(seed)
    mix = MIXES["mixup"](count)
    zeros, ones = torch.zeros(count, *shape), torch.ones(count, *shape)
    shares = mix(ones, zeros)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert all(torch.equal(each, each.flatten()[0].expand_as(each)) for each in shares)
    assert torch.allclose(mix(zeros, ones), 1 - shares, atol=1e-6)
    samples, partners = torch.randn(2, count, *shape)
    assert torch.allclose(mix(samples, partners), shares * samples + (1 - shares) * partners, atol=1e-5)


@given(SEEDS, st.integers(1, 9), st.integers(1, 9))
def test_cutmix_takes_a_rectangle_from_the_partners(seed: int, height: int, width: int) -> None:
    """Each pixel is of one of the two, the same ones in all samples and channels, and those of the partner are a
    rectangle of the image's proportions."""
    torch.manual_seed(seed)
    taken = MIXES["cutmix"](2)(torch.zeros(2, 3, height, width), torch.ones(2, 3, height, width))
    inside = taken[0, 0] == 1
    assert torch.equal(taken, inside.to(taken).expand_as(taken))
    rows, columns = inside.any(1), inside.any(0)
    assert torch.equal(inside, rows[:, None] & columns)
    assert abs(int(rows.sum()) / height - int(columns.sum()) / width) <= 0.5 / height + 0.5 / width + 1e-9
    for held in (rows, columns):
        places = held.nonzero().flatten()
        assert not len(places) or len(places) == int(places[-1] - places[0]) + 1


@pytest.mark.parametrize("name", MIXES)
def test_shares_are_drawn_evenly(name: str) -> None:
    torch.manual_seed(0)
    ones = torch.ones(1, 1, 32, 32)
    shares = torch.stack([MIXES[name](1)(ones, 0 * ones).mean() for _ in range(500)])
    assert abs(float(shares.mean()) - 0.5) < 0.05 and abs(float(shares.std()) - 12**-0.5) < 0.03


def test_half_of_the_batches_stay_as_they_are_and_labels_go() -> None:
    torch.manual_seed(0)
    images, labels = data(4)
    found = [mixed(Batch((images,), {}, labels), ("mixup", "cutmix")) for _ in range(200)]
    same = [torch.equal(each.args[0], images) for each in found]
    assert 70 < sum(same) < 130 and all(each.labels is None for each in found)


def test_inputs_of_one_batch_are_mixed_alike() -> None:
    """Numbers of another kind stay."""
    torch.manual_seed(0)
    images, numbers = data(6)
    for _ in range(20):
        found = mixed(Batch((images,), {"twice": 2 * images, "numbers": numbers}, None), ("cutmix", "mixup"))
        assert torch.allclose(found.kwargs["twice"], 2 * found.args[0], atol=1e-5)
        assert torch.equal(found.kwargs["numbers"], numbers)


def test_the_teacher_is_given_what_the_student_is_given() -> None:
    seen: dict[str, list[torch.Tensor]] = {"student": [], "teacher": []}
    model, teacher = pupil(), pupil(3)
    model.register_forward_pre_hook(lambda module, inputs: seen["student"].append(inputs[0].clone()))
    teacher.register_forward_pre_hook(lambda module, inputs: seen["teacher"].append(inputs[0].clone()))
    taught(model, teacher=teacher, loss=None, mix="mixup,cutmix", epochs=3)
    pairs = list(zip(seen["student"], seen["teacher"], strict=True))
    assert len(pairs) == 18 and all(torch.equal(*pair) for pair in pairs)
    known = data()[0]
    strange = [bool((images[0] - known).flatten(1).any(1).all()) for images, _ in pairs]
    assert 0 < sum(strange) < len(strange)


def test_tokens_are_not_mixed() -> None:
    for args in ((torch.ones(2, 3, dtype=torch.long),), (torch.ones(2, 3), torch.ones(3, 3)), (torch.ones(()),)):
        with pytest.raises(GraphPruneError, match="GP702"):
            mixed(Batch(args, {}, None), ("mixup",))


def test_cutmix_is_of_images() -> None:
    with pytest.raises(GraphPruneError, match="GP702"):
        MIXES["cutmix"](2)(torch.ones(2, 3), torch.ones(2, 3))
