"""Tools are found by the type of a model alone, and those of ONNX do what the core relies on."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune import dialects
from graphprune.analysis import analyze_program
from graphprune.dialects import tools_of
from graphprune.dialects.onnx import files
from graphprune.dialects.onnx.runner import DYNAMIC_SIZES
from graphprune.dialects.onnx.tools import ONNX
from graphprune.errors import GraphPruneError
from tests.models.case import seeded
from tests.planning import two_layers


def named(module: str, name: str, *bases: type) -> object:
    """An object of a new class of this name, as if its module had been imported."""
    return type(name, bases, {"__module__": module})()


class Another:
    """A model of a dialect that is not ONNX."""


ANOTHER = object()
"""The tools of that dialect."""


class Derived(ir.Model):
    """A model of a user's own class."""


def test_models_are_told_by_their_type_and_those_it_derives_from() -> None:
    model = ir.from_proto(two_layers())
    assert tools_of(model) is ONNX
    assert tools_of(Derived(model.graph, ir_version=10)) is ONNX
    assert tools_of(named("onnx_ir._core", "Model")) is ONNX


@pytest.mark.parametrize(
    ("model", "code", "remedy"),
    [
        (two_layers(), "GP103", "onnx_ir.from_proto"),
        (named("torch.nn", "Linear"), "GP103", "torch.onnx.export"),
        (named("__main__", "Net", type(named("torch.nn", "Module"))), "GP103", "torch.onnx.export"),
        (named("onnx_ir", "Graph"), "GP103", "gp.load"),
        (named("onnx_ir_of_another", "Model"), "GP103", "gp.load"),
        (collections.OrderedDict(), "GP103", "into their module"),
        (named("torch", "Tensor"), "GP103", "the model comes first"),
        (None, "GP103", "gp.load"),
        ("model.onnx", "GP107", "gp.load"),
        (Path("model.onnx"), "GP107", "gp.load"),
    ],
)
def test_what_is_not_a_model_is_an_error_that_says_what_to_do(model: object, code: str, remedy: str) -> None:
    with pytest.raises(GraphPruneError) as error:
        tools_of(model)
    assert error.value.code == code and remedy in error.value.remedy


@pytest.mark.parametrize(
    "step",
    [
        lambda model: gp.save(model, "never.onnx"),
        gp.clean,
        lambda model: gp.verify(model, ir.from_proto(two_layers())),
        lambda model: gp.verify(ir.from_proto(two_layers()), model),
    ],
)
def test_what_only_onnx_models_can_do_is_refused_to_others(
    step: Callable[[object], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dialects._TOOLS, (__name__, "Another"), f"{__name__}:ANOTHER")
    assert tools_of(Another()) is ANOTHER
    with pytest.raises(GraphPruneError, match="Another") as error:
        step(Another())
    assert error.value.code == "GP103"


def test_what_is_written_knows_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = ir.from_proto(two_layers())
    assert ONNX.origin(model) is None
    files.save(model, path)
    loaded = files.load(path)
    analysis = analyze_program(ONNX.read(loaded))
    keep = {group.dim: np.arange(2) for group in analysis.groups}
    assert ONNX.origin(loaded) == ONNX.origin(ONNX.write(analysis, keep)) == str(path)


BRANCHES = """
branches (int64 which, float[batch, length] x) => (float[batch, length] y)
<int64 two = {2}, bool[1] unused = {1}>
{
    chosen = Equal(which, two)
    kept = Where(chosen, x, x)
    y = Relu(kept)
}"""


def test_cases_come_in_batches_from_small_sizes_to_large() -> None:
    model = ir.from_proto(seeded(BRANCHES))
    batches = list(ONNX.cases(model, 0, {}, 2))
    assert [batch[0]["x"].shape for batch in batches] == [(1, size) for size in DYNAMIC_SIZES]
    assert all(len(batch) == 3 for batch in batches)
    first, second, other = batches[0]
    assert other["which"] == 2 and first["which"] != 2  # the other side of the conditional
    assert np.array_equal(first["x"], other["x"]) and not np.array_equal(first["x"], second["x"])
    given = next(iter(ONNX.cases(model, 0, {"batch": 4, "length": 3}, 1)))
    assert [case["x"].shape for case in given] == [(4, 3)] * 2
    assert all(
        np.array_equal(a["x"], b["x"]) for a, b in zip(batches[0], next(ONNX.cases(model, 0, {}, 2)), strict=True)
    )


def test_signatures_are_equal_for_equal_interfaces_alone() -> None:
    model = ir.from_proto(two_layers())
    assert ONNX.signature(model) == ONNX.signature(model.clone())
    other = model.clone()
    other.graph.outputs[0].name = "z"
    assert ONNX.signature(model) != ONNX.signature(other)


CASTS = """
casts (float[batch, 3] x) => (float[batch, 4] y)
<float[3, 4] "weight">
{{
    a = Cast <to = {to}> (x)
    b = Cast <to = 1> (a)
    y = MatMul(b, "weight")
}}"""


@pytest.mark.parametrize(("to", "expected"), [(1, set()), (11, set()), (10, {"float16"}), (16, {"bfloat16"})])
def test_short_types_are_those_of_casts(to: int, expected: set[str]) -> None:
    assert ONNX.short_types(ONNX.read(ir.from_proto(seeded(CASTS.format(to=to))))) == expected


def test_short_types_are_those_of_stored_tensors_and_values() -> None:
    for place in range(3):
        program = ONNX.read(ir.from_proto(two_layers()))
        assert ONNX.short_types(program) == set()
        (program.stored[0], program.main.inputs[0], program.main.nodes[1].outputs[0])[place].dtype = "float16"
        assert ONNX.short_types(program) == {"float16"}
