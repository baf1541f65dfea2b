"""What cannot be trained is told, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from graphprune.errors import GraphPruneError
from tests.torch.lessons import data, pupil, taught

IMAGES, LABELS = data()
HELD = data(60, seed=1)


def broken(*_: Any) -> Any:
    raise ValueError("no such thing")


def once() -> Iterator[Any]:
    yield IMAGES, LABELS


def failing() -> Iterator[Any]:
    yield IMAGES, LABELS
    raise OSError("disk gone")


def spoilt() -> Any:
    images = IMAGES.clone()
    images[0] = torch.inf
    return images, LABELS


class Infinite(torch.autograd.Function):
    """A finite loss with a gradient that is none."""

    @staticmethod
    def forward(ctx: Any, tensor: Any) -> Any:
        return tensor.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return torch.full((96, 3), torch.inf)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        # data
        ({"data": spoilt()}, "GP707", "the loss is nan"),
        ({"data": (IMAGES, LABELS[:50])}, "GP702", "no first axis of samples in common"),
        ({"data": (IMAGES, LABELS + 7)}, "GP702", "labels go from 7 to 9 for 3 classes"),
        ({"data": (IMAGES, LABELS + 7)}, "GP702", "number the classes from 0 to 2"),
        ({"data": (IMAGES[:, :2], LABELS)}, "GP702", "the model cannot be run"),
        ({"data": (IMAGES, LABELS.float()[:, None])}, "GP702", "labels of shape"),
        ({"data": [IMAGES]}, "GP704", "needs labels"),
        ({"data": []}, "GP708", "not one batch"),
        ({"data": once(), "epochs": 2}, "GP708", "a generator, which can be read once"),
        ({"data": failing}, "GP708", "after 1 batches: OSError: disk gone"),
        ({"data": broken}, "GP708", "no such thing"),
        ({"data": 7}, "GP702", "a int holds no data"),
        ({"data": "no.such:thing"}, "GP101", "cannot be imported"),
        ({"data": [()]}, "GP702", "a batch is empty"),
        ({"augment": broken}, "GP708", "augments failed"),
        # loss, teacher, metric
        ({"loss": "crossentropy"}, "GP704", "there is no loss"),
        ({"loss": lambda outputs, labels: outputs}, "GP704", "one floating-point number"),
        ({"loss": lambda outputs, labels: torch.zeros(())}, "GP702", "cannot be differentiated"),
        (
            {"loss": lambda outputs, labels: Infinite.apply(outputs), "batch": 96},
            "GP707",
            "the length of its gradient nan",
        ),
        ({"loss": None}, "GP704", "neither a loss nor a teacher"),
        ({"distill": 0.5}, "GP107", "needs a teacher"),
        ({"teacher": pupil(), "loss": None, "distill": 0.5}, "GP107", "there is no other loss"),
        ({"teacher": pupil(), "distill": 1.5}, "GP107", "out of range"),
        ({"teacher": pupil(), "features": ["blocks"]}, "GP107", "no module 'blocks'"),
        ({"teacher": pupil(width=4), "features": ["inner"]}, "GP702", "the student's 'inner' returns"),
        ({"teacher": broken}, "GP702", "the teacher cannot be run"),
        ({"teacher": pupil(), "mix": "mixup"}, "GP107", "option mix"),
        ({"teacher": pupil(), "loss": None, "mix": "mixap"}, "GP106", "did you mean 'mixup'"),
        ({"teacher": pupil(), "loss": None, "mix": ","}, "GP107", "option mix"),
        ({"teacher": lambda images: images.flatten(1)}, "GP702", "cannot be compared with the teacher's"),
        ({"validate": HELD, "metric": broken}, "GP709", "the metric failed: ValueError: no such thing"),
        ({"validate": HELD, "metric": lambda outputs, labels: [1, 2]}, "GP709", "the metric returned"),
        ({"validate": HELD, "metric": lambda outputs, labels: float("nan")}, "GP709", "the metric is nan"),
        ({"validate": HELD, "metric": "accurracy"}, "GP106", "did you mean 'accuracy'"),
        ({"validate": HELD[0]}, "GP702", "accuracy needs labels"),
        ({"validate": (HELD[0], HELD[1][:, None])}, "GP702", "do not fit outputs"),
        # options
        ({"epochs": None}, "GP107", "how long"),
        ({"epochs": 0}, "GP107", "option epochs"),
        ({"steps": True}, "GP107", "option steps"),
        ({"minutes": -1}, "GP107", "option minutes"),
        ({"train": "head.*,nothing"}, "GP107", "'nothing'"),
        ({"train": ""}, "GP107", "nothing is to be trained"),
        ({"sparsity": 1.0}, "GP107", "option sparsity"),
        ({"sparsity": 0.5, "zeros_by": "moving"}, "GP106", "movement"),
        ({"zeros_by": "movement"}, "GP107", "option zeros_by"),
        ({"format": "2:4", "zeros_by": "movement"}, "GP107", "option zeros_by"),
        ({"sparsity": 0.5, "format": "2:4"}, "GP107", "option sparsity"),
        ({"sparsity": 0.5, "format": "2x"}, "GP106", "2x"),
        ({"schedule": "cosin"}, "GP106", "did you mean 'cosine'"),
        ({"rewind": 1.0}, "GP107", "option rewind"),
        ({"optimizer": "adam"}, "GP106", "did you mean 'adamw'"),
        ({"optimizer": torch.optim.SGD}, "GP107", "option rate"),
        ({"optimizer": torch.optim.SGD(pupil().parameters(), 0.1)}, "GP107", "a function that makes one"),
        ({"optimizer": lambda parameters: None, "rate": None}, "GP107", "returned a NoneType"),
        ({"rate": -1.0}, "GP107", "option rate"),
        ({"clip": 0.0}, "GP107", "option clip"),
        ({"batch": 0}, "GP107", "option batch"),
        ({"batch_norm": "off"}, "GP107", "option batch_norm"),
        ({"precision": "int8"}, "GP107", "option precision"),
        ({"patience": 2}, "GP107", "give validate="),
        ({"resume": True}, "GP107", "option resume"),
        ({"augment": 3}, "GP107", "option augment"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        taught(pupil(), **{"epochs": 1, **options})
    assert caught.value.code == code, caught.value
    assert words in str(caught.value)


def test_what_is_no_module_is_refused() -> None:
    for model in (torch.export.export(pupil(), (IMAGES[:2],)), "model", torch.jit.script(torch.nn.Linear(2, 2))):
        with pytest.raises(GraphPruneError) as caught:
            taught(model)  # type: ignore[arg-type]
        assert caught.value.code == "GP103"


def test_a_frozen_model_has_nothing_to_train() -> None:
    with pytest.raises(GraphPruneError) as caught:
        taught(pupil().requires_grad_(False))
    assert caught.value.code == "GP107"
    assert "requires_grad_" in caught.value.remedy


def test_a_message_says_at_which_step_and_what_the_loss_was_before() -> None:
    images = IMAGES.clone()
    images[40] = torch.nan
    stream = list(zip(images.split(16), LABELS.split(16), strict=True))
    with pytest.raises(GraphPruneError) as caught:
        taught(pupil(), data=stream)
    assert caught.value.where.startswith("step 3, learning rate") and "after a mean of" in caught.value.what
