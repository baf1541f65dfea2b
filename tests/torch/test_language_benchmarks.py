"""What the tables of benchmarks/accuracy/decoder.py and encoder.py stand on: the encoding of text, networks that were
changed without changing what they compute, and rows that are not run twice."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphprune as gp

_FOLDER = Path(__file__).parents[2] / "benchmarks"
_TEXT = "the cat sat on the mat \n that the cat saw , too \n" * 8


@pytest.fixture
def load() -> Iterator[Any]:
    """Import scripts by name; what was imported is forgotten, as its folder is no package."""
    folders, before = [str(_FOLDER), str(_FOLDER / "accuracy")], set(sys.modules)
    sys.path[:0] = folders

    def loaded(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield loaded
    for folder in folders:
        sys.path.remove(folder)
    for name, module in list(sys.modules.items()):
        if name not in before and str(_FOLDER) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


def test_the_encoding_loses_nothing(load: Any) -> None:
    wikitext = load("wikitext")
    encoding = wikitext.learned(_TEXT, 300)
    spelled = [bytes([token]) for token in range(256)]
    for first, second in encoding.merges:
        spelled.append(spelled[first] + spelled[second])
    other = "an owl – unseen – sat \n"
    for text in (_TEXT, other):
        assert b"".join(spelled[token] for token in encoding.encode(text)).decode() == text
    assert len(encoding.encode(_TEXT)) < len(_TEXT.encode()) / 2


def small(llama: ModuleType) -> Any:
    torch.manual_seed(0)
    return llama.Decoder(llama.Shape(layers=1, width=16, heads=4, groups=2, hidden=24, vocabulary=32, length=16)).eval()


def masks(model: Any, numbers: Any, criterion: str) -> dict[str, Any]:
    found = gp.sparsify(
        model, numbers[:2], format="2:4", criterion=criterion, calibration=[(numbers,)], masks=False, verify=False
    )
    return found.masks


def test_planted_scales_change_magnitudes_and_nothing_else(load: Any) -> None:
    llama, decoder = load("llama"), load("decoder")
    numbers = torch.randint(32, (8, 16), generator=torch.Generator().manual_seed(1))
    model, other = small(llama), decoder.planted(decoder.with_biases(small(llama)), 16.0)
    torch.testing.assert_close(other(numbers), model(numbers))
    for criterion, same in (("wanda", True), ("l2", False)):
        one, two = masks(model, numbers, criterion), masks(other, numbers, criterion)
        name = "blocks.0.gate.weight"
        assert bool(np.array_equal(one[name], two[name])) is same


def test_a_bias_compensation_has_something_to_write_to(load: Any) -> None:
    llama, decoder = load("llama"), load("decoder")
    numbers = torch.randint(32, (8, 16), generator=torch.Generator().manual_seed(1))
    options = {"macs": 0.9, "criterion": "flap", "recover": "bias", "calibration": [(numbers,)], "heads": "count"}
    for model, biases in ((small(llama), False), (decoder.with_biases(small(llama)), True)):
        ignored = [load("rows").stream(model, numbers[:2])]
        report = str(gp.prune(model, numbers[:2], ignore=ignored, **options).report)
        assert ("GP705 it has no bias" in report) is not biases


def test_the_halves_of_a_paragraph_follow_each_other(load: Any) -> None:
    words = " ".join(f"w{place}" for place in range(130))
    text = f" = A heading of {words} = \n short \n {words} \n"
    first, second = load("encoder").halves(text, lambda line: [int(word[1:]) for word in line.split()], 900, 901)
    assert first.tolist() == [[900, *range(62), 901]]  # headings and short lines are left out
    assert second.tolist() == [[900, *range(62, 124), 901]]


def test_rows_are_written_and_not_run_again(load: Any, tmp_path: Path) -> None:
    llama, rows = load("llama"), load("rows")
    numbers = torch.randint(32, (8, 16), generator=torch.Generator().manual_seed(1))
    model, judged = small(llama), []

    def judge(each: Any) -> dict[str, float]:
        judged.append(sum(parameter.numel() for parameter in each.parameters()))
        return {"size": judged[-1]}

    def bench() -> Any:
        data = gp.calibration([(numbers, numbers)], model, numbers[:2])
        return rows.Bench(model, numbers[:2], data, judge, path=str(tmp_path / "found.json"))

    wanted: dict[str, Any] = {"random": {"criterion": "random"}, "wanda": {"criterion": "wanda"}}
    bench().run("test", ["0.7", "2:4"], wanted)
    assert len(judged) == 8  # three seeds of random, at two cuts
    again = bench()
    again.run("test", ["0.7", "2:4"], wanted)
    assert len(judged) == 8
    shares = [each["macs"] for each in again.done if each["cut"] == "0.7"]
    assert len(shares) == 4
    assert all(0.5 < share <= 0.7 for share in shares)
    assert "70% of MACs" in again.table(["0.7", "2:4"], wanted, "size")
