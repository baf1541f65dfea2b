"""Calibration data: every kind of source gives the same numbers, and what does not fit is refused."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.calibrate import Calibration, Moments, collect
from graphprune.data.text import from_file
from graphprune.errors import GraphPruneError
from graphprune.layers import layers
from tests.models.case import seeded

RNG = np.random.default_rng(0)
X = RNG.standard_normal((20, 6)).astype(np.float32)
Y = np.arange(20) % 3


def network(text: str) -> ir.Model:
    return ir.from_proto(seeded(text))


ROWS = network("""
rows (float[batch, 6] x) => (float[batch, 3] y)
<float[6, 8] "first", float[8, 3] "second">
{
    a = MatMul(x, "first")
    b = Relu(a)
    y = MatMul(b, "second")
}""")
FIXED = network("""
rows (float[8, 6] x) => (float[8, 3] y)
<float[6, 8] "first", float[8, 3] "second">
{
    a = MatMul(x, "first")
    y = MatMul(a, "second")
}""")
IMAGES = network("""
images (float[batch, 3, 8, 10] x) => (float[batch, 4, h, w] y)
<float[8, 3, 3, 3] "first", float[4, 8, 3, 3] "second">
{
    a = Conv(x, "first")
    y = Conv(a, "second")
}""")
TOKENS = network("""
tokens (int64[batch, length] input_ids, int64[batch, length] attention_mask) => (float[batch, length, 3] y)
<float[256, 8] table, float[8, 5] first, float[5, 3] second, int64[1] last = {-1}>
{
    a = Gather(table, input_ids)
    m = Cast <to = 1> (attention_mask)
    n = Unsqueeze(m, last)
    b = Mul(a, n)
    c = MatMul(b, first)
    y = MatMul(c, second)
}""")


def rows(source: Any, **options: Any) -> Calibration:
    return gp.calibration(source, options.pop("model", ROWS), **{"batch": 8, **options})


def numbers(calibration: Calibration, name: str = "x") -> np.ndarray:
    return np.concatenate([case[name] for case in calibration.cases])


def code(source: Any, **options: Any) -> GraphPruneError:
    with pytest.raises(GraphPruneError) as caught:
        rows(source, **options)
    return caught.value


class Dataset:
    """Columns and records, as those of Hugging Face."""

    def __init__(self, columns: dict[str, Any]):
        self.columns = columns
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {name: column[place] for name, column in self.columns.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[place] for place in range(len(self)))


def once() -> Iterator[np.ndarray]:
    yield from X


SOURCES = {
    "array": X,
    "dict": {"x": X},
    "tuple": (X,),
    "case": ((X,), {}),
    "samples": list(X),
    "lists": [row.tolist() for row in X],
    "dicts": [{"x": row} for row in X],
    "generator": once(),
    "function": once,
    "module": "tests.test_data:once",
    "dataset": Dataset({"x": X.tolist(), "text": [""] * 20}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_source_gives_the_same_numbers(name: str) -> None:
    found = rows(SOURCES[name])
    assert [len(case["x"]) for case in found.cases] == [8, 8, 4]
    np.testing.assert_array_equal(numbers(found), X)
    assert found.source.partition("sha256")[2] == rows(X).source.partition("sha256")[2]
    assert not found.data_free and found.labels is None
    assert numbers(found).dtype == np.float32


def test_files_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X, labels=Y)
    np.savez(tmp_path / "anonymous.npz", X)
    np.save(tmp_path / "labels.npy", Y)
    for name in ("x.npy", "x.npz", "anonymous.npz"):
        np.testing.assert_array_equal(numbers(rows(str(tmp_path / name))), X)
    labels = rows(tmp_path / "x.npz").labels
    assert labels is not None and [each for batch in labels for each in batch] == Y.tolist()
    assert rows(tmp_path / "x.npy", labels=str(tmp_path / "labels.npy")).labels == labels
    assert rows(tmp_path / "x.npz").source.startswith("arrays: 20 samples with labels in 3 batches, sha256 ")


def test_batches_stay_as_they_are_given() -> None:
    found = rows([X[:5], X[5:6], X[6:]])
    assert [len(case["x"]) for case in found.cases] == [5, 1, 14]
    found = rows([(X[:5], Y[:5]), (X[5:], Y[5:])])
    assert found.labels == [Y[:5].tolist(), Y[5:].tolist()]
    found = rows([(row, label) for row, label in zip(X, Y, strict=True)])
    assert found.labels == [Y[:8].tolist(), Y[8:16].tolist(), Y[16:].tolist()]
    assert rows([{"x": X, "labels": Y}]).labels == [Y.tolist()]


def test_only_as_many_samples_as_were_asked_for_are_read() -> None:
    read = []

    def counted() -> Iterator[np.ndarray]:
        for row in X:
            read.append(1)
            yield row

    assert len(numbers(rows(counted(), samples=10))) == 10 == len(read)
    drawn = numbers(rows(X, samples=10, seed=1))
    assert len(drawn) == 10
    places = [int(np.flatnonzero((row == X).all(1))[0]) for row in drawn]
    assert places == sorted(set(places)) != list(range(10))
    assert not np.array_equal(drawn, numbers(rows(X, samples=10, seed=2)))


def test_a_batch_of_one_size_is_kept() -> None:
    found = rows(X, model=FIXED, batch=3)
    assert [len(case["x"]) for case in found.cases] == [8, 8]
    assert "4 left out that fill no batch of 8" in found.source
    assert "4 left out" in rows(list(X), model=FIXED).source
    error = code(X[:5], model=FIXED)
    assert error.code == "GP701" and "5 samples do not fill a batch of 8" in error.what


def test_samples_of_other_lengths_make_batches_of_their_own() -> None:
    samples = [{"input_ids": np.arange(n), "attention_mask": np.ones(n, np.int32)} for n in (4, 4, 5, 5, 5, 4)]
    found = rows(samples, model=TOKENS)
    assert [case["input_ids"].shape for case in found.cases] == [(2, 4), (3, 5), (1, 4)]
    assert found.cases[0]["attention_mask"].dtype == np.int64


BAD: dict[str, tuple[Any, str, str]] = {
    "no items": ([], "GP701", "not one batch"),
    "no samples": (X[:0], "GP701", "not one batch"),
    "name": ({"xs": X}, "GP702", "'xs', which is no input"),
    "missing": ([{"labels": Y}], "GP702", "lacks the input 'x'"),
    "shape": (X[:, :5], "GP702", "gives 8x5"),
    "axes": (X[None, None], "GP702", "for the input 'x'"),
    "integers": (np.zeros((4, 6), np.uint8), "GP702", "uint8 for the input 'x'"),
    "text": (["a", "b"], "GP702", "no array of numbers"),
    "too many": ((X, X, X), "GP702", "has 3 arrays"),
    "nan": (np.full((4, 6), np.nan), "GP703", "not finite"),
    "lengths": ({"x": X, "labels": Y[:3]}, "GP702", "different lengths"),
    "number": (7, "GP702", "a int holds no calibration data"),
    "no file": ("nothing.npz", "GP101", "no such file"),
    "no module": ("no_such_module:data", "GP101", "cannot be imported"),
    "some labels": ([(X, Y), X], "GP702", "some batches have labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name: str) -> None:
    source, expected, what = BAD[name]
    error = code(source)
    assert (error.code, what in error.what) == (expected, True), str(error)


def test_a_misspelt_name_gets_a_suggestion() -> None:
    assert "did you mean 'input_ids'" in code([{"inputids": X}], model=TOKENS).remedy


def test_numbers_that_do_not_fit_their_type_are_refused() -> None:
    ids = np.full((2, 4), 2**40, np.uint64)
    assert rows({"input_ids": ids, "attention_mask": ids}, model=TOKENS).cases
    ids = np.full((2, 4), 2**63, np.uint64)
    assert code({"input_ids": ids, "attention_mask": ids}, model=TOKENS).code == "GP702"
    assert code({"input_ids": X, "attention_mask": X}, model=TOKENS).code == "GP702"


@pytest.mark.parametrize("option", ["batch", "samples", "length"])
def test_options_are_checked(option: str) -> None:
    assert code(X, **{option: 0}).code == "GP107"


def test_broken_files(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK not a file")
    (tmp_path / "bad.npy").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("bad.npz", "bad.npy", "objects.npy"):
        assert code(str(tmp_path / name)).code == "GP102"
    (tmp_path / "data.csv").write_text("1,2")
    assert code(str(tmp_path / "data.csv")).code == "GP103"
    assert code(tmp_path, model=IMAGES).code in {"GP701", "GP108"}


# ---------------------------------------------------------------- images
def painted(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for kind, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (folder / kind).mkdir()
        for k in range(2):
            image.new("RGB", (20 + k, 30), colour).save(folder / kind / f"{k}.png")
    image.new("L", (20, 20), 128).save(folder / "red" / "grey.png")


def test_images_are_resized_cropped_and_scaled(tmp_path: Path) -> None:
    painted(tmp_path)
    found = rows(tmp_path, model=IMAGES, labels="folders")
    data = numbers(found)
    assert data.shape == (5, 3, 8, 10)
    assert data[0].mean((1, 2)).tolist() == [0, 0, 1]  # blue/0.png
    assert data[2].mean((1, 2)).tolist() == [1, 0, 0]
    np.testing.assert_allclose(data[4], 128 / 255, rtol=1e-5)
    assert found.labels == [[0, 0, 1, 1, 1]]
    assert rows(tmp_path, model=IMAGES).labels is None
    assert found.source.startswith("images: 5 samples with labels in 1 batches")
    standard = numbers(rows(tmp_path, model=IMAGES, mean=(0.5, 0, 0), std=0.5))
    np.testing.assert_allclose(standard[2].mean((1, 2)), [1, 0, 0])
    assert code(tmp_path, model=IMAGES, std=0).code == "GP107"


def test_the_middle_of_an_image_stays(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((8, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    image.fromarray(pixels).save(tmp_path / "one.png")
    assert (numbers(rows(tmp_path, model=IMAGES)) == 1).all()


def test_images_with_channels_last(tmp_path: Path) -> None:
    painted(tmp_path)
    model = network("""
    images (float[batch, height, width, 3] x) => (float[batch, c, h, w] y)
    <float[8, 3, 3, 3] "first", float[4, 8, 3, 3] "second">
    {
        t = Transpose <perm = [0, 3, 1, 2]> (x)
        a = Conv(t, "first")
        y = Conv(a, "second")
    }""")
    assert numbers(rows(tmp_path, model=model, sizes={"height": 7, "width": 9})).shape == (5, 7, 9, 3)
    assert "the size of images is open" in code(tmp_path, model=model).what
    assert code(tmp_path).code == "GP702"


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    assert code(tmp_path, model=IMAGES).code == "GP102"


def test_a_dataset_of_images() -> None:
    image = pytest.importorskip("PIL.Image")
    data = Dataset({"picture": [image.new("RGB", (9, 9), (255, 0, 0))] * 3, "label": [2, 1, 0]})
    found = rows(data, model=IMAGES, labels=True)
    assert numbers(found).shape == (3, 3, 8, 10) and found.labels == [[2, 1, 0]]
    assert "no column 'class'" in code(data, model=IMAGES, labels="class").what


# ---------------------------------------------------------------- text
def test_text_by_bytes_and_by_a_function(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("hello world, " * 10)
    found = rows(path, model=TOKENS, tokenizer="bytes", length=16)
    assert found.cases[0]["input_ids"].shape == (8, 16)
    assert bytes(found.cases[0]["input_ids"][0].tolist()) == b"hello world, hel"
    assert (found.cases[0]["attention_mask"] == 1).all()
    found = rows(path, model=TOKENS, tokenizer=lambda text: [len(word) for word in text.split()], length=4)
    assert found.cases[0]["input_ids"].tolist() == [[5, 6, 5, 6]] * 5
    assert code(path, model=TOKENS).code == "GP107"
    assert code(path, model=TOKENS, tokenizer="bytes", length=1000).code == "GP701"
    assert code(path, tokenizer="bytes").code == "GP702"
    assert from_file.__doc__


# ---------------------------------------------------------------- noise
@pytest.mark.parametrize("source", [None, "noise"])
def test_noise_is_said_to_be_noise(source: str | None) -> None:
    found = rows(source, samples=20)
    assert found.data_free and found.source.startswith("noise, no data: 20 samples in 3 batches")
    assert abs(numbers(rows(source, samples=4000)).std() - 1) < 0.05
    assert found.source == rows(source, samples=20).source != rows(source, samples=20, seed=1).source
    assert rows(source, model=TOKENS, sizes={"length": 5}).cases[0]["input_ids"].shape == (8, 5)


def test_noise_has_the_statistics_of_a_batch_normalisation() -> None:
    model = network("""
    images (float[batch, 3, 8, 10] x) => (float[batch, 4, h, w] y)
    <float[3] scale = {1, 1, 1}, float[3] shift = {0, 0, 0}, float[3] mean = {1, 2, 3}, float[3] var = {4, 1, 9},
     float[8, 3, 3, 3] "first", float[4, 8, 3, 3] "second">
    {
        n = BatchNormalization(x, scale, shift, mean, var)
        a = Conv(n, "first")
        y = Conv(a, "second")
    }""")
    data = numbers(rows("noise", model=model))
    np.testing.assert_allclose(data.mean((0, 2, 3)), [1, 2, 3], atol=0.1)
    np.testing.assert_allclose(data.std((0, 2, 3)), [2, 1, 3], rtol=0.05)


# ---------------------------------------------------------------- plans and memory
def test_a_plan_says_what_it_was_made_from() -> None:
    plan = gp.plan(ROWS, macs=0.6, criterion="wanda", calibration=X)
    again = gp.plan(ROWS, macs=0.6, criterion="wanda", calibration=rows(list(X), batch=32))
    assert "sha256" in json.loads(plan.to_json())["options"]["calibration"]
    assert plan.groups == again.groups
    assert plan.to_json() == gp.plan(ROWS, macs=0.6, criterion="wanda", calibration={"x": X.copy()}).to_json()
    result = gp.prune(ROWS, macs=0.6, criterion="flap", calibration="noise")
    assert any(note.startswith("calibration data: noise, no data: 512 samples") for note in result.report.notes)


@pytest.mark.parametrize("threads", [1, 3])
def test_few_batches_are_in_memory_at_a_time(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    analysis = gp.analyze(ROWS)
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def batches() -> Iterator[dict[str, np.ndarray]]:
        nonlocal most
        for row in range(20):
            batch = X[row : row + 1].copy()
            alive.append(weakref.ref(batch))
            gc.collect()
            most = max(most, sum(each() is not None for each in alive))
            case = {"x": batch}
            del batch
            yield case
            del case

    found = collect(analysis, layers(analysis), batches(), lambda layer: Moments())
    # One for each thread, the one that is made, and one that a thread has reported and not let go yet.
    assert len(alive) == 20 and most <= threads + 2
    assert all(isinstance(each, Moments) and each.count == 20 for each in found.values())


def test_an_interrupt_loses_only_the_pass() -> None:
    calibration, calls = rows(X), []

    def make(layer: Any) -> Any:
        calls.append(layer)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return Moments()

    analysis = gp.analyze(ROWS)
    with pytest.raises(KeyboardInterrupt):
        collect(analysis, layers(analysis), calibration.cases, make)
    found = collect(analysis, layers(analysis), calibration.cases, lambda layer: Moments())
    assert {each.count for each in found.values() if isinstance(each, Moments)} == {20}
