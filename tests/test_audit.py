"""Audits: what is planted is found, what is not there is not, and numbers are those of counts by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphprune as gp
from graphprune.audit import Audit, audit
from graphprune.audit.alter import ALTERATIONS, altered
from graphprune.audit.groups import harms, slope
from graphprune.audit.report import Audited, Distance
from graphprune.cli import audit as command
from graphprune.cli import main
from graphprune.errors import GraphPruneError
from tests.models.case import seeded

CLASSES, HIDDEN = 5, 40
RNG = np.random.default_rng(0)
CENTRES = RNG.standard_normal((CLASSES, 8)).astype(np.float32) * 3
LABELS = np.repeat(np.arange(CLASSES), 60)
X = (CENTRES[LABELS] + RNG.standard_normal((len(LABELS), 8))).astype(np.float32)
TEXT = f"""
classes (float[batch, 8] x) => (float[batch, {CLASSES}] y)
<float[8, {HIDDEN}] "first", float[{HIDDEN}, {CLASSES}] "second">
{{
    a = MatMul(x, "first")
    b = Relu(a)
    y = MatMul(b, "second")
}}"""


def network(change: Callable[[np.ndarray], None] = lambda second: None) -> ir.Model:
    """Eight features for each class, which are as large as an input is near to its centre; then sums of them."""
    model = ir.from_proto(seeded(TEXT))
    second = np.zeros((HIDDEN, CLASSES), np.float32)
    for number in range(CLASSES):
        second[number * 8 : number * 8 + 8, number] = 1
    change(second)
    norms = np.linalg.norm(CENTRES, axis=1, keepdims=True)
    for name, array in (("first", np.repeat(CENTRES / norms, 8, 0).T.copy()), ("second", second)):
        model.graph.initializers[name].const_value = ir.tensor(array.astype(np.float32), name=name)
    return model


def without(number: int) -> ir.Model:
    def change(second: np.ndarray) -> None:
        second[number * 8 : number * 8 + 8] = 0

    return network(change)


def code(**options: Any) -> GraphPruneError:
    options = {"pruned": without(2), "data": X, "labels": LABELS, **options}
    with pytest.raises(GraphPruneError) as caught:
        audit(network(), options.pop("pruned"), **options)
    return caught.value


# ---------------------------------------------------------------- whole audits
def test_the_class_whose_features_were_deleted_is_found() -> None:
    found = audit(network(), {"small": without(3)}, data=X, labels=LABELS)
    (model,) = found.models
    assert [each.name for each in model.groups if each.more] == ["3"]
    worst = model.groups[0]
    assert worst.name == "3" and worst.count == 60 and worst.drop > 0.8 and worst.excess > 0.8
    text = str(found)
    assert "more than the others" in text and text.count("more than the others") == 1


def test_a_network_is_no_way_from_itself() -> None:
    found = audit(network(), network(), data=X, labels=LABELS)
    (model,) = found.models
    assert set(model.distances) == {"as given", "noise"} and found.skipped == ("blur", "contrast")
    assert all(each.error == 0 and each.same == 1 and each.lost == 0 for each in model.distances.values())
    assert not any(each.more or each.drop for each in model.groups) and math.isnan(model.unsure)
    assert model.macs == model.parameters == 1 and model.slope is None


def test_numbers_are_those_of_a_count_by_hand() -> None:
    dense, small = network(), gp.prune(network(), macs=0.4, criterion="random").model
    (model,) = audit(dense, small, data=X, labels=LABELS).models
    first, second = (dense.graph.initializers[name].const_value.numpy() for name in ("first", "second"))
    kept, rest = (small.graph.initializers[name].const_value.numpy() for name in ("first", "second"))
    y, z = np.maximum(X @ first, 0) @ second, np.maximum(X @ kept, 0) @ rest
    far = model.distances["as given"]
    assert far.error == pytest.approx(np.square(z - y).sum() / np.square(y).sum(), rel=1e-4)
    assert far.same == np.mean(y.argmax(1) == z.argmax(1)) < 1
    assert (far.dense, far.pruned) == (np.mean(y.argmax(1) == LABELS), np.mean(z.argmax(1) == LABELS))
    width = kept.shape[1]
    assert model.macs == model.parameters == width / HIDDEN == pytest.approx(0.4)
    for group in model.groups:
        inside = int(group.name) == LABELS
        loss = (y.argmax(1) == LABELS)[inside].astype(float) - (z.argmax(1) == LABELS)[inside]
        assert group.drop == pytest.approx(loss.mean())
        assert group.error == pytest.approx(loss.std(ddof=1) / math.sqrt(60))
    margins = np.sort(y, axis=1)
    least = np.argsort(margins[:, -1] - margins[:, -2], kind="stable")[:60]
    changed = y.argmax(1) != z.argmax(1)
    assert model.unsure == changed[least].sum() / changed.sum()


def test_the_distance_grows_with_zeros() -> None:
    def zeros(count: int) -> ir.Model:
        def change(second: np.ndarray) -> None:
            second.reshape(-1)[np.random.default_rng(1).permutation(second.size)[:count]] = 0

        return network(change)

    counts = [0, 40, 100, 160, 200]
    found = audit(network(), {str(count): zeros(count) for count in counts}, data=X, labels=LABELS)
    errors = [each.distances["as given"].error for each in found.models]
    assert errors[0] == 0 and errors == sorted(errors) and len(set(errors)) == len(errors)


def test_without_labels_answers_are_held_against_the_dense_network() -> None:
    found = audit(network(), without(3), data=X)
    (model,) = found.models
    far = model.distances["as given"]
    assert far.lost == 1 - far.same > 0.1 and math.isnan(far.dense) and model.groups == ()
    with pytest.raises(ValueError):  # what is not a number is written as null
        json.dumps(vars(far), allow_nan=False)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["models"][0]["distances"]["as given"]["dense"] is None


def test_outputs_that_are_no_answers_have_an_error_alone() -> None:
    text = 'maps (float[batch, 3, 8, 8] x) => (float[batch, 4, 8, 8] y) <float[4, 3, 1, 1] "w"> { y = Conv(x, "w") }'
    model, x = ir.from_proto(seeded(text)), RNG.standard_normal((4, 3, 8, 8)).astype(np.float32)
    found = audit(model, model, data=x)
    assert set(found.models[0].distances) == {"as given", *ALTERATIONS} and found.skipped == ()
    assert math.isnan(found.potential()) and "no answers are counted" in str(found)
    with pytest.raises(GraphPruneError, match="GP709"):
        audit(model, model, data=x, labels=np.arange(4))


def test_groups_of_ones_own() -> None:
    groups = np.where(np.arange(len(X)) % 2, "odd", "even")
    (model,) = audit(network(), without(3), data=X, labels=LABELS, groups=groups).models
    assert {each.name for each in model.groups} == {"odd", "even"}
    assert not any(each.more for each in model.groups)


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(audit(network(), without(1), data=X, labels=LABELS, seed=3).to_dict())
    assert found[0] == found[1]
    assert audit(network(), without(1), data=X, labels=LABELS, seed=4).to_dict() != found[0]


def test_the_potential_is_the_most_that_went_within_the_drop() -> None:
    def model(macs: float, *drops: float) -> Audited:
        kinds = {
            kind: Distance(0.1, 0.9, 0.8, 0.8 - drop) for kind, drop in zip(("as given", "blur"), drops, strict=False)
        }
        return Audited(f"{macs}", macs, macs, kinds)

    found = Audit("dense", "data", 0.01, (model(0.9, 0.0, 0.005), model(0.5, 0.0099, 0.02), model(0.3, 0.03, 0.09)))
    assert found.potential() == 0.5 and found.potential("blur") == pytest.approx(0.1)
    none = Audit("dense", "data", 0.01, (model(0.3, 0.03, 0.02),))
    assert none.potential() == none.potential("blur") == 0


def test_modules_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    dense = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 5, 3), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    ).eval()  # fmt: skip
    images = torch.randn(40, 3, 8, 8)
    small = gp.prune(dense, images[:2], macs=0.5).model
    labels = dense(images).argmax(1)
    (model,) = audit(dense, small, images[:2], data=(images, labels)).models
    far = model.distances["as given"]
    wanted = float((small(images).argmax(1) == labels).double().mean())
    assert far.dense == 1 and far.pruned == far.same == pytest.approx(wanted)
    assert set(model.distances) == {"as given", *ALTERATIONS} and 0.3 < model.macs <= 0.5
    with pytest.raises(GraphPruneError, match="another framework"):
        audit(dense, network(), images[:2], data=images)


# ---------------------------------------------------------------- groups
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_where_groups_make_no_difference_few_are_told(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    names = generator.integers(0, count, 400)
    false = 0
    for _ in range(40):
        dense, pruned = generator.random(400) < 0.9, generator.random(400) < 0.8
        false += any(each.more for each in harms(names, dense, pruned))
    assert false <= 8  # of 40, 2 are expected


def test_few_samples_conclude_nothing() -> None:
    names = np.array(["a"] * 300 + ["b"] * 9)
    right, wrong = np.ones(309, bool), np.array([True] * 300 + [False] * 9)
    worst = harms(names, right, wrong)[0]
    assert worst.name == "b" and worst.drop == 1 and not worst.more
    assert harms(np.append(names, "b"), np.append(right, True), np.append(wrong, False))[0].more


@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0])
def test_the_slope_of_drops_by_rarity_is_found(sign: float) -> None:
    generator = np.random.default_rng(0)
    sizes = [4000, 2000, 1000, 500, 250]
    names = np.repeat(np.arange(5), sizes)
    lost = 0.2 + sign * 0.05 * (np.arange(5) - 2)  # a point of five for each halving
    found = slope(harms(names, np.ones(len(names), bool), generator.random(len(names)) >= lost[names]))
    assert found is not None and found.value == pytest.approx(sign * 0.05, abs=4 * found.error + 0.005)
    assert sign == 0 or np.sign(found.value) == sign
    assert slope(harms(np.repeat(np.arange(5), 100), np.ones(500, bool), np.ones(500, bool))) is None


# ---------------------------------------------------------------- alterations
def changed(name: str, array: np.ndarray, seed: int = 0) -> np.ndarray:
    found, any_was = altered({"x": array}, ALTERATIONS[name], np.random.default_rng(seed))
    assert any_was and found["x"].dtype == array.dtype and found["x"].shape == array.shape
    return np.asarray(found["x"])


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_images_are_blurred_and_lose_contrast_along_height_and_width(axes: tuple[int, ...]) -> None:
    images = RNG.standard_normal((2, 3, 7, 9)).astype(np.float32) + np.arange(3, dtype=np.float32)[:, None, None] * 10
    moved = images.transpose(axes)
    blurred = np.empty_like(images)
    wide = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    for row in range(7):
        for column in range(9):
            blurred[:, :, row, column] = wide[:, :, row : row + 3, column : column + 3].mean(axis=(2, 3))
    assert np.allclose(changed("blur", moved), blurred.transpose(axes), atol=1e-5)
    less = (images + images.mean(axis=(1, 2, 3), keepdims=True)) / 2
    assert np.allclose(changed("contrast", moved), less.transpose(axes), atol=1e-5)


def test_noise_has_a_quarter_of_the_deviation() -> None:
    array = RNG.standard_normal((200, 50)).astype(np.float16) * np.float16(3)
    found = changed("noise", array)
    assert (found.astype(float) - array).std() == pytest.approx(0.25 * array.astype(float).std(), rel=0.05)
    assert np.array_equal(found, changed("noise", array)) and not np.array_equal(found, changed("noise", array, 1))


@pytest.mark.parametrize("name", list(ALTERATIONS))
def test_whole_numbers_and_flags_stay(name: str) -> None:
    case = {"ids": np.ones((2, 3, 8, 8), np.int64), "mask": np.ones((2, 8), bool), "scale": np.float32(2)}
    found, any_was = altered(case, ALTERATIONS[name], np.random.default_rng(0))
    assert not any_was and all(found[key] is case[key] for key in case)


def test_tensors_stay_tensors_of_their_type() -> None:
    torch = pytest.importorskip("torch")
    case = ((torch.ones(2, 4, dtype=torch.bfloat16), torch.ones(2, dtype=torch.int64), 3), {"flag": None})
    found, any_was = altered(case, lambda array, generator: array + 1, np.random.default_rng(0))
    assert any_was and found[0][0].dtype == torch.bfloat16 and bool((found[0][0] == 2).all())
    assert found[0][1] is case[0][1] and found[0][2] == 3 and found[1] == {"flag": None}


# ---------------------------------------------------------------- what goes wrong
def test_errors_say_what_to_do() -> None:
    assert code(data="noise", labels=None).code == "GP701"
    assert code(alter=["nois"]).code == "GP106" and "noise" in code(alter=["nois"]).remedy
    assert code(drop=3).code == "GP107" and code(pruned={}).code == "GP107"
    assert code(labels=LABELS[:-1]).code == "GP702"
    assert code(labels=LABELS + 0.5).code == "GP709"
    assert code(groups=np.arange(7)).code == "GP702"
    assert code(groups=LABELS, labels=None).code == "GP107"
    assert code(data=gp.calibration(X, network())).code == "GP107"
    other = ir.from_proto(seeded(TEXT.replace(str(CLASSES), "6")))
    assert "other shapes" in str(code(pruned={"wide": other}))


def test_the_command_alters_by_all_there_is() -> None:
    assert ",".join(ALTERATIONS) == command.ALTERATIONS


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, model in (("dense", network()), ("a", without(1)), ("b", network())):
        gp.save(model, tmp_path / f"{name}.onnx")
    np.savez(tmp_path / "test.npz", x=X)
    np.save(tmp_path / "labels.npy", LABELS)
    dense, a, b = (str(tmp_path / f"{name}.onnx") for name in ("dense", "a", "b"))
    data = ["--calibration", str(tmp_path / "test.npz"), "--labels", str(tmp_path / "labels.npy")]
    assert main(["audit", dense, a, b, *data, "--alter", "none"]) == 0
    text = capsys.readouterr().out
    assert "300 samples with labels" in text and "more than the others" in text and "noise" not in text
    assert main(["audit", dense, a, b, *data, "--json", "--drop", "2%"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "graphprune.audit" and found["drop"] == 0.02 and found["skipped"] == ["blur", "contrast"]
    assert [each["name"] for each in found["models"]] == [a, b] and found["potential"]["as given"] == 0
    assert main(["audit", dense, a]) == 2 and "GP701" in capsys.readouterr().err
    assert main(["audit", dense, a, *data, "--alter", "blurr"]) == 2
    assert "did you mean 'blur'" in capsys.readouterr().err
