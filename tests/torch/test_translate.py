"""A plan for a module becomes the plan for its own ONNX export, whose tensors have other names and orders of axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

import graphprune as gp
from graphprune.errors import GraphPruneError
from graphprune.plan import Plan, named
from graphprune.torch import pruning
from graphprune.translate import matched
from tests.torch.architectures import ARCHITECTURES
from tests.torch.dialects_agree import exported


def both(name: str, folder: Path) -> tuple[Any, Any, Any, Any, Any]:
    """A network with weights that are all different, what it takes, its export, and both analyses."""
    torch.manual_seed(0)
    model, inputs = ARCHITECTURES[name]()
    model.eval()
    with torch.no_grad():
        for each in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            each += 0.01 * torch.rand_like(each)
    dense = exported(model, inputs, folder)
    return model, inputs, dense, pruning.analyze(model, inputs), gp.analyze(dense)


def outputs(model: Any, inputs: tuple[Any, ...], folder: Path) -> Any:
    gp.save(model, folder / "small.onnx")
    session = ort.InferenceSession(str(folder / "small.onnx"))
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, (each.numpy() for each in inputs), strict=True)))[0]


@pytest.mark.parametrize("name", ["mlp", "convolutions", "attention", "tied"])
def test_a_plan_of_a_module_prunes_its_export(name: str, tmp_path: Path) -> None:
    model, inputs, dense, source, target = both(name, tmp_path)
    plan = gp.plan(source, ratio=0.4, criterion="random")
    assert any(len(cut.keep) < cut.size for cut in plan.groups)
    small = gp.prune(model, inputs, plan=plan, as_graph=True, verify=False).model
    made = plan.translated(source, target)
    pruned = gp.apply(target, made)
    assert gp.verify(dense, pruned, made).ok
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(small(*inputs))[0].numpy()
    np.testing.assert_allclose(outputs(pruned, inputs, tmp_path), expected, rtol=1e-3, atol=1e-4)


def test_and_back(tmp_path: Path) -> None:
    _, _, _, source, target = both("mlp", tmp_path)
    plan = gp.plan(source, ratio=0.4, criterion="random")
    again = plan.translated(source, target).translated(target, source)
    assert {cut.group: cut.keep for cut in again.groups} == {cut.group: cut.keep for cut in plan.groups}


def test_tensors_are_told_by_their_numbers(tmp_path: Path) -> None:
    """Linear weights are stored transposed, under other names."""
    _, _, _, source, target = both("mlp", tmp_path)
    found = matched(source, target)
    moved = {name: places for name, places in found.items() if name != places[0]}
    assert moved and {axes for _, axes in moved.values()} == {(1, 0)}
    weights = {each.name for each in source.program.stored if len(each.shape) == 2}
    assert weights <= {name for name, _ in found.values()}


def test_weights_that_are_not_those_of_the_plan_are_an_error(tmp_path: Path) -> None:
    _, _, _, source, target = both("mlp", tmp_path)
    plan = gp.plan(source, ratio=0.4, criterion="random")
    for each in target.program.stored:
        array = each.read() + 1.0
        each.read = lambda array=array: array  # type: ignore[misc]
        each.name = f"other_{each.name}"
    with pytest.raises(GraphPruneError, match="GP501"):
        plan.translated(source, target)


def test_a_plan_of_another_model_is_an_error(tmp_path: Path) -> None:
    _, _, _, source, target = both("mlp", tmp_path)
    plan = gp.plan(source, ratio=0.4, criterion="random")
    with pytest.raises(GraphPruneError, match="GP501"):
        plan.translated(target, source)


def test_a_group_that_runs_through_more_of_the_other_form_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One coupling of the module that the export is not known to have: it must not be cut in part."""
    _, _, _, source, target = both("mlp", tmp_path)
    plan = gp.plan(source, ratio=0.4, criterion="random")
    wider = {
        name: group if k else replace(group, members=group.members[1:])
        for k, (name, group) in enumerate(named(target).items())
    }
    monkeypatch.setattr("graphprune.translate.named", lambda analysis: wider if analysis is target else named(analysis))
    with pytest.raises(GraphPruneError, match="runs through other tensors"):
        plan.translated(source, target)


def test_blocks_that_are_left_out_are_an_error(tmp_path: Path) -> None:
    _, _, _, source, target = both("mlp", tmp_path)
    plan: Plan = replace(gp.plan(source, ratio=0.4, criterion="random"), blocks=("add",))
    with pytest.raises(GraphPruneError, match="GP501 the plan leaves out residual blocks"):
        plan.translated(source, target)
