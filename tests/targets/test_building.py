"""`gp.build` around a compiler: what it is given, how its result is checked, what is written and what is not.

The compiler here hands over networks that were made by hand.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

import graphprune as gp
from graphprune.errors import GraphPruneError
from graphprune.runtime import load
from graphprune.runtime.arrays import random_inputs
from graphprune.runtime.artifact import Network
from graphprune.targets.checking import apart
from graphprune.targets.pace import SLOWER, in_turns, ratio
from tests.runtime import handmade
from tests.runtime.conftest import compiler  # noqa: F401  # a fixture

pytestmark = pytest.mark.usefixtures("compiler")
Compiler = Callable[..., Network]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the compiler was given; `network` is what it hands over, by the names of variants."""
    seen: dict[str, Any] = {"network": lambda *names: handmade.network(*names, kind="plain")}

    def build(model: Path, shapes: Any, variants: Any, threads: int, tune: float) -> Network:
        seen.update(content=model.read_bytes(), shapes=shapes, variants=variants, threads=threads, tune=tune)
        made: Network = seen["network"](*(each.name for each in variants))
        return made

    module = ModuleType("a_compiler")
    module.build = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_compiler", module)
    monkeypatch.setattr("graphprune.targets.x86.target._COMPILER", "a_compiler")
    return seen


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(handmade.model(), path)
    return path


def test_a_file_becomes_an_artifact(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    built = gp.build(model, tmp_path / "model.gp", threads=2)
    assert given["content"] == model.read_bytes()
    assert given["shapes"] == {"x": (4, 6)} and given["threads"] == 2
    assert [each.name for each in given["variants"]] == ["v4", "v3", "v1"]
    manifest = load(built.path).about
    assert manifest == built.manifest
    assert (manifest.target, manifest.machine, manifest.source["name"]) == ("x86", "x86_64", "model.onnx")
    assert manifest.versions == {"graphprune": gp.__version__, "tvm": "0.27.0"}
    assert str(tmp_path) not in manifest.to_json()
    x = random_inputs(manifest.inputs, np.random.default_rng(1))["x"]
    assert np.array_equal(built.load()(x)["y"], handmade.expected(x))


def test_bfloat16_is_one_variant_more(model: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v4")
    gp.build(model, precision="bfloat16", verify=False)
    assert [each.name for each in given["variants"]] == ["v4-bf16", "v4", "v3", "v1"]
    gp.build(model, variants=["v4-bf16"], verify=False)
    assert [(each.name, each.rounding) for each in given["variants"]] == [("v4-bf16", "bfloat16")]


def test_it_is_timed_beside_onnxruntime(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    built = gp.build(model, tmp_path / "model.gp", variants=["v1"])
    assert set(built.manifest.pace) == {"graphprune", "onnxruntime"}
    assert ratio(built.manifest.pace) == built.manifest.pace["onnxruntime"] / built.manifest.pace["graphprune"] > 0
    assert not gp.build(model, variants=["v1"], verify=False).manifest.pace


def test_turns_tell_the_slow_from_the_fast() -> None:
    found = in_turns({"graphprune": lambda: time.sleep(0.004), "onnxruntime": lambda: time.sleep(0.001)})
    speed = ratio(found)
    assert speed is not None and speed < SLOWER
    assert ratio({}) is None


def test_every_variant_that_runs_here_is_compared(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    rows = gp.build(model, tmp_path / "model.gp", variants=["v3", "v1"]).manifest.verification
    assert [(row["variant"], row["output"], row["ok"], row["note"]) for row in rows] == [
        ("v3", "y", True, ""),
        ("v1", "y", True, ""),
    ]
    assert all(0 <= row["error"] <= row["tolerance"] < 1e-4 for row in rows)


def test_a_variant_that_cannot_run_here_is_said_not_to_be_compared(
    model: Path, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v1")
    rows = gp.build(model, tmp_path / "model.gp", variants=["v3", "v1"]).manifest.verification
    assert rows[0]["ok"] is None and rows[0]["note"].startswith("not run: this machine has no abm, avx, avx2")
    assert rows[1]["ok"] is True


@pytest.mark.parametrize(
    ("bias", "says"),
    [
        (handmade.BIAS * (1 + 1e-4), "off by "),
        (np.full_like(handmade.BIAS, np.inf), "not finite"),
    ],
)
def test_a_build_that_differs_is_not_written(
    model: Path, given: dict[str, Any], tmp_path: Path, bias: np.ndarray, says: str
) -> None:
    given["network"] = lambda *names: handmade.network(*names, kind="plain", bias=bias.astype(np.float32))
    with pytest.raises(GraphPruneError) as caught:
        gp.build(model, tmp_path / "model.gp", variants=["v1"])
    assert caught.value.code == "GP403" and says in caught.value.what
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert not gp.build(model, tmp_path / "model.gp", variants=["v1"], verify=False).manifest.verification


def test_outputs_that_are_not_those_of_the_model(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    given["network"] = handmade.network
    with pytest.raises(GraphPruneError, match="GP403 its outputs are y, calls, not y"):
        gp.build(model, tmp_path / "model.gp", variants=["v1"])
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_an_interrupt_leaves_nothing(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    def interrupted(*_: str) -> Network:
        raise KeyboardInterrupt

    given["network"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        gp.build(model, tmp_path / "model.gp")
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_what_is_there_stays_unless_forced(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "model.gp"
    gp.build(model, place, variants=["v1"])
    given.pop("threads")
    with pytest.raises(GraphPruneError, match="GP105 cannot write: it exists"):
        gp.build(model, place, variants=["v1"])
    assert "threads" not in given  # told before the work
    assert gp.build(model, place, variants=["v1"], threads=3, force=True).manifest.id == handmade.ID


def test_without_a_place_it_lives_as_long_as_the_result(model: Path, given: dict[str, Any]) -> None:
    built = gp.build(model, variants=["v1"])
    path = built.path
    assert path.is_dir()
    del built
    assert not path.exists()


@pytest.mark.parametrize("kind", ["proto", "ir"])
def test_models_in_memory(given: dict[str, Any], kind: str, tmp_path: Path, model: Path) -> None:
    source = handmade.model() if kind == "proto" else gp.load(model)
    built = gp.build(source, tmp_path / "model.gp", variants=["v1"])
    assert built.manifest.verification[0]["ok"]
    assert onnx.load_from_string(given["content"]).graph.node[0].op_type == "Add"


def test_modules(given: dict[str, Any], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.from_numpy(handmade.BIAS.copy()))

        def forward(self, x: Any) -> Any:
            return torch.relu(x + self.bias)

    def network(*names: str) -> Network:
        from dataclasses import replace

        graph = onnx.load_from_string(given["content"]).graph
        made = handmade.network(*names, kind="plain")
        outputs = (replace(made.outputs[0], name=graph.output[0].name),)
        return replace(made, inputs=(replace(made.inputs[0], name=graph.input[0].name),), outputs=outputs)

    given["network"] = network
    module = Module().eval()
    built = gp.build(module, tmp_path / "model.gp", example_inputs=torch.zeros(4, 6), variants=["v1"])
    x = np.ones((4, 6), np.float32)
    (y,) = built.load()(x).values()
    assert np.array_equal(y, module(torch.from_numpy(x)).detach().numpy())
    with pytest.raises(GraphPruneError, match="GP107 a module is exported by running it"):
        gp.build(module, tmp_path / "other.gp")


@pytest.fixture
def open_model(tmp_path: Path) -> Path:
    path = tmp_path / "open.onnx"
    onnx.save(handmade.model("batch"), path)
    return path


@pytest.mark.parametrize("options", [{"shapes": {"x": (4, 6)}}, {"sizes": {"batch": 4}}])
def test_open_axes_get_sizes(open_model: Path, given: dict[str, Any], tmp_path: Path, options: Any) -> None:
    built = gp.build(open_model, tmp_path / "model.gp", variants=["v1"], **options)
    assert given["shapes"] == {"x": (4, 6)} and built.manifest.notes == ()


def test_an_open_first_axis_is_one_and_said_to_be(open_model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    built = gp.build(open_model, tmp_path / "model.gp", variants=["v1"], verify=False)
    assert given["shapes"] == {"x": (1, 6)}
    assert built.manifest.notes == ("the first axis of 'x' was open and is 1: --shape chooses another",)


def test_sizes_of_minus_one_are_open(open_model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    """As some exporters write them."""
    model = onnx.load(open_model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, open_model)
    gp.build(open_model, tmp_path / "model.gp", variants=["v1"], shapes={"x": (4, 6)})
    assert given["shapes"] == {"x": (4, 6)}
    assert gp.build(open_model, variants=["v1"], verify=False).manifest.notes


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shapes": {"z": (4, 6)}}, "GP106 the model has no input 'z'"),
        ({"shapes": {"x": (4, 7)}}, "GP107 the input 'x' cannot have the shape 4,7: the model says batch,6"),
        ({"shapes": {"x": (6,)}}, "GP107 the input 'x' cannot have the shape 6"),
        ({"sizes": {"batsch": 4}}, "GP106 no input has an axis called 'batsch'"),
        ({"target": "x68"}, "GP106 no 'x68' in graphprune.targets"),
        ({"variants": ["v9"]}, "GP106 the target x86 has no variant 'v9'"),
        ({"precision": "bfloat"}, "GP106 'bfloat' is no precision"),
        ({"threads": 0}, "GP107 0 is no number of threads"),
    ],
)
def test_wrong_options(open_model: Path, given: dict[str, Any], tmp_path: Path, options: Any, text: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        gp.build(open_model, tmp_path / "model.gp", **options)
    assert str(caught.value).startswith(text)
    assert "threads" not in given and os.listdir(tmp_path) == ["open.onnx"]


def test_an_open_axis_that_is_not_the_first_needs_a_size(given: dict[str, Any], tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", "length")) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "open", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "open.onnx")
    with pytest.raises(GraphPruneError) as caught:
        gp.build(tmp_path / "open.onnx", tmp_path / "model.gp")
    assert str(caught.value).startswith("GP107 axis 1 of the input 'x' has no size (length)")
    assert "add --shape x=128,128" in str(caught.value)


# The compiler of the target


@pytest.mark.parametrize("threads", [1, 2])
def test_the_compiler_of_x86_on_every_level(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    built = gp.build(model, tmp_path / "model.gp", threads=threads)
    assert built.manifest.threads == threads
    x = random_inputs(built.manifest.inputs, np.random.default_rng(1))["x"]
    for level, each in (("v1", "v1"), ("v2", "v1"), ("v3", "v3")):
        monkeypatch.setenv("GRAPHPRUNE_CPU", level)
        network = load(built.path)
        assert network.variant == each
        assert np.allclose(network(x)["y"], handmade.expected(x), rtol=1e-6, atol=1e-6)


def test_outputs_of_zeros_are_compared_as_they_are() -> None:
    zeros, small, wrong = np.zeros(3, np.float32), np.full(3, 1e-30, np.float32), np.full(3, 0.5, np.float32)
    assert apart(zeros, zeros) == 0 and apart(zeros, small) == pytest.approx(1e-30)
    assert apart(zeros, wrong) == 0.5
    assert apart(zeros, np.array([0, np.nan, 0], np.float32)) == float("inf")
    assert apart(small, zeros) == 1.0
