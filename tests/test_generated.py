"""Two thousand generated networks against all oracles, and the oracles against networks that are wrong.

`python -m tests.generated --count 20000 --seed 0` does the same at length.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import numpy_helper

import graphprune as gp
from tests import generated
from tests.generated import failures, main, problems_of
from tests.generator import Recipe, build, network, recipe
from tests.models import CASES
from tests.oracles import kept_entries, strangers, unexplained, zeroed

COUNT, CHUNK = 2000, 25
CHUNKS = [
    pytest.param(start, marks=[pytest.mark.slow] if start >= 2 * CHUNK else []) for start in range(0, COUNT, CHUNK)
]


@pytest.mark.parametrize("start", CHUNKS)
def test_generated_networks_survive_pruning(start: int) -> None:
    found = failures(start, CHUNK)
    assert not found, "\n".join(map(str, found))


def test_most_networks_lose_weights() -> None:
    checked = [generated.check(recipe(seed)) for seed in range(40)]
    assert sum(c.removed > 0 for c in checked) >= 38


def _breaking(block: str) -> Callable[[Recipe], generated.Checked]:
    """A check that finds a problem with, or stumbles over, every network with a certain block."""

    def check(plan: Recipe) -> generated.Checked:
        if any(name == block for name, _ in plan.blocks):
            raise KeyError(block)
        return generated.Checked([], 1, 1)

    return check


def test_a_failure_is_reported_with_its_smallest_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = next(seed for seed in range(1000) if "scan" in {name for name, _ in recipe(seed).blocks[1:]})
    monkeypatch.setattr(generated, "check", _breaking("scan"))
    (failure,) = failures(seed, 1)
    assert [name for name, _ in failure.smallest.blocks] == ["scan"]
    assert failure.problems == ("KeyError: 'scan'",)
    assert f"seed {seed}, shrunk to Recipe(" in str(failure)
    monkeypatch.setattr(generated, "in_parallel", lambda *_: iter([(1, [failure])]))
    assert main(["--count", "1", "--seed", str(seed)]) == 1
    assert "1 of 1 networks, 1 failed" in capsys.readouterr().out


def test_a_printed_recipe_builds_the_network() -> None:
    plan = recipe(11)
    assert build(eval(repr(plan), {"Recipe": Recipe})).SerializeToString() == network(11).SerializeToString()


def test_kept_entries_are_found_by_value() -> None:
    dense = np.random.default_rng(0).standard_normal((5, 4, 3))
    kept = kept_entries(dense, dense[np.ix_([0, 4], [1, 2, 3], [2])])
    assert kept is not None
    assert [axis.tolist() for axis in kept] == [[0, 4], [1, 2, 3], [2]]


def test_kept_entries_refuse_what_is_no_selection_along_axes() -> None:
    dense = np.arange(6.0).reshape(2, 3)
    with pytest.raises(ValueError, match="numbers that the dense tensor does not"):
        kept_entries(dense, np.array([[7.0]]))
    with pytest.raises(ValueError, match="come from different positions"):
        kept_entries(dense, np.array([[0.0, 1.0], [4.0, 3.0]]))
    assert kept_entries(np.zeros((2, 2)), np.zeros((1, 2))) is None


def _with_weight(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    return copy


def test_unexplained_axes_are_those_of_no_group_and_no_refusal() -> None:
    model = CASES["c2f_block"].build()
    analysis = gp.analyze(onnx_ir.from_proto(model))
    assert list(unexplained(model, analysis)) == []
    nothing = SimpleNamespace(groups=[], refusals=analysis.refusals)
    assert "nothing is said about axis 0 of enter.weight, which Conv  reads" in list(unexplained(model, nothing))


def test_strangers_are_weights_that_were_changed() -> None:
    dense = CASES["c2f_block"].build()
    assert list(strangers(dense, _with_weight(dense, "leave.weight", lambda array: array[:5]))) == []
    (line,) = strangers(dense, _with_weight(dense, "leave.weight", lambda array: array * 1.001))
    assert line.startswith("weight leave.weight: ")


def test_zeroed_silences_what_is_missing() -> None:
    dense = CASES["c2f_block"].build()
    model = zeroed(dense, _with_weight(dense, "leave.weight", lambda array: array[1:, 2:]))
    assert model is not None
    (array,) = (numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "leave.weight")
    assert not array[0].any()
    assert not array[:, :2].any()
    assert array[1:, 2:].all()


def test_problems_of_a_sound_network_are_none() -> None:
    assert problems_of(Recipe(0, 18, "image", (), (("residual_bottleneck", 0),))) == ()


def test_groups_normalised_over_a_size_that_only_the_run_knows() -> None:
    """How many places come out of an If over parts of a list is known to no rule, at no sizes of the inputs."""
    blocks = (("listed_parts", 679467834), ("branching_sequence", 932917209), ("normalised_groups", 419893018))
    assert problems_of(Recipe(1051284342, 18, "image", ("places",), blocks)) == ()


def test_two_scores_that_are_nearly_equal_at_the_inputs_that_are_tried_first() -> None:
    blocks = (
        ("repeated_channels", 612684916),
        ("odd_slices", 268724633),
        ("pooling", 1144260715),
        ("hard_choice", 2109922072),
    )
    assert problems_of(Recipe(858008323, 18, "image", ("places",), blocks)) == ()
