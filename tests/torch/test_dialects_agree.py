"""The captured module and its own ONNX export have the same coupled sets, and a plan of one fits the other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from graphprune import api
from graphprune.torch import pruning
from tests.torch import dialects_agree
from tests.torch.dialects_agree import ARCHITECTURES, agreement, compare, coupled_sets, exported, parameters_of

IN_CI = ["mlp", "convolutions", "transposed", "gru", "tied", "attention", "encoder", "unet", "gated"]


@pytest.mark.parametrize("name", IN_CI)
def test_dialects_agree(name: str) -> None:
    found = agreement(name)
    assert found.problems == []
    assert found.groups >= 2
    assert found.errors.keys() == {"ATen", "ONNX"}


def test_coupled_sets_that_differ_are_found(tmp_path: Path) -> None:
    model, inputs = ARCHITECTURES["mlp"]()
    model.eval()
    analysis = api.analyze(exported(model, inputs, tmp_path))
    names = parameters_of(analysis, model)
    assert set(dict(model.named_parameters())) == {name for name, _ in names.values()}
    sets = coupled_sets(pruning.analyze(model, inputs), parameters_of(pruning.analyze(model, inputs), model))
    other = coupled_sets(analysis, names)
    assert compare(sets, other) == []
    (size, places), *_ = other
    wrong = {key: name for key, name in other.items() if key != (size, places)}
    assert len(compare(sets, wrong)) == 1 and compare(sets, wrong)[0].startswith("only ATen: ")
    wrong[size, frozenset(list(places)[1:])] = "g"
    assert len(compare(sets, wrong)) == 2


def test_plans_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    true = dialects_agree.translated

    def reversed_(plan: Any, source: Any, target: Any) -> Any:
        made = true(plan, source, target)
        if all(source.get(key) == name for key, name in target.items()):
            return made  # the plan for the side that it was made on
        cuts = [replace(cut, keep=tuple(cut.size - 1 - each for each in reversed(cut.keep))) for cut in made.groups]
        return replace(made, groups=tuple(cuts))

    monkeypatch.setattr(dialects_agree, "translated", reversed_)
    problems = agreement("mlp").problems
    assert len(problems) == 2 and all("apart by" in problem for problem in problems)
