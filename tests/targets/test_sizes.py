"""One network at several sizes: what is built, which artifact a call takes, and where inputs may be filled up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("tvm")

import graphprune as gp
from graphprune.cli import main
from graphprune.errors import GraphPruneError
from graphprune.runtime import Sized, load, load_sizes
from graphprune.runtime.artifact import Tensor
from graphprune.runtime.seal import sealed
from graphprune.runtime.sizes import Sizes, read
from graphprune.targets.sizes import followed, several, tried
from tests import execution

WIDTH = 6


def saved(place: Path, axis: int) -> Path:
    """A product, and a softmax over the samples (axis 0) or over the numbers of each (axis 1)."""
    weights = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=axis),
        helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
    ][: 2 if axis else 3]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])]
    outputs += [] if axis else [helper.make_tensor_value_info("total", TensorProto.FLOAT, [])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weights, "w")])
    path = place / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return saved(tmp_path, 1)


def built(model: Path, **options: Any) -> Sized:
    gp.build(model, model.with_suffix(".gp"), sizes={"batch": [8, 2]}, variants=["v1"], **options)
    return load_sizes(model.with_suffix(".gp"))


def test_a_call_takes_the_smallest_that_holds_it(samples: Path) -> None:
    network = built(samples)
    assert network.about.built == ({"batch": 2}, {"batch": 8}) and network.about.filled == ("batch",)
    session = execution.session(onnx.load(samples))
    for size, number in ((1, 0), (2, 0), (3, 1), (8, 1)):
        x = np.random.default_rng(size).standard_normal((size, WIDTH)).astype(np.float32)
        (wanted,) = session.run(["y"], {"x": x})
        assert network.about.choose({"batch": size}) == number
        for found in (network(x), network(x=x), network.run({"x": x})):
            assert found["y"].shape == wanted.shape
            assert np.abs(found["y"] - wanted).max() < 1e-6
    with pytest.raises(GraphPruneError, match="GP512 no artifact was built for batch 9") as caught:
        network(np.zeros((9, WIDTH), np.float32))
    assert "it was built for batch 2; batch 8; smaller inputs are possible in batch" in str(caught.value)


def test_inputs_in_order_are_in_that_of_the_model(tmp_path: Path) -> None:
    names = ("z", "a")
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in names]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])
    graph = helper.make_graph([helper.make_node("Sub", names, ["y"])], "g", inputs, [output])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    network = built(path)
    ones, zeros = np.ones((2, WIDTH), np.float32), np.zeros((2, WIDTH), np.float32)
    assert (network(ones, zeros)["y"] == 1).all() and (network(ones, a=zeros)["y"] == 1).all()
    assert [each.name for each in network.inputs] == [*names]


def test_where_samples_reach_each_other_nothing_is_filled_up(tmp_path: Path) -> None:
    network = built(saved(tmp_path, 0))
    assert network.about.filled == ()
    found = network(np.zeros((2, WIDTH), np.float32))
    assert found["y"].shape == (2, WIDTH) and isinstance(found["total"], np.ndarray)
    with pytest.raises(GraphPruneError, match="'x' is missing") as missing:
        network()
    assert "x: float32[2, 6]" in str(missing.value)
    with pytest.raises(GraphPruneError, match="GP512 no artifact was built for batch 3"):
        network(np.zeros((3, WIDTH), np.float32))


def test_a_size_and_a_shape_that_disagree(samples: Path) -> None:
    with pytest.raises(GraphPruneError, match="GP107 the input 'x' cannot have the shape 3,6: the size of batch is 2"):
        gp.build(samples, sizes={"batch": 2}, shapes={"x": (3, WIDTH)})
    gp.build(samples, sizes={"batch": 2}, shapes={"x": (2, WIDTH)}, variants=["v1"], tune=0, verify=False)


def test_without_a_trial_nothing_is_filled_up(samples: Path) -> None:
    assert built(samples, verify=False).about.filled == ()


class Closed:
    """A tensor that will not be read, as those of PyTorch that need gradients."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("it needs a gradient")

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("it needs a gradient")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros((2, WIDTH)), "GP512 'x' has the data type float64"),
        (np.zeros((2, WIDTH + 1), np.float32), "GP512 'x' has the shape"),
        (np.zeros((1, WIDTH + 1), np.float32), "GP512 'x' has the shape"),
        (np.zeros(WIDTH, np.float32), "GP512 'x' has 1 axes, not 2"),
        ([[0.0] * WIDTH], "GP512 'x' is a list, not an array"),
        (np.zeros((1, WIDTH)), "GP512 'x' has the data type float64"),
        (Closed((1, WIDTH)), "GP512 the Closed for 'x' cannot be read: it needs a gradient"),
    ],
)
def test_wrong_inputs(samples: Path, x: np.ndarray, text: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        built(samples)(x)
    assert str(caught.value).startswith(text)


def test_the_folder_moves_is_replaced_and_is_told_from_others(samples: Path, tmp_path: Path) -> None:
    place = built(samples).path
    with pytest.raises(GraphPruneError, match="GP107 it holds artifacts of several sizes"):
        load(place)
    moved = place.rename(tmp_path / "elsewhere.gp")
    assert load_sizes(moved)(np.ones((1, WIDTH), np.float32))["y"].shape == (1, WIDTH)
    with pytest.raises(GraphPruneError, match="GP105 cannot write: it exists"):
        gp.build(samples, moved, variants=["v1"], sizes={"batch": 3})
    gp.build(samples, moved, variants=["v1"], sizes={"batch": 3}, force=True)
    assert load(moved).inputs[0].shape == (3, WIDTH)
    with pytest.raises(GraphPruneError, match="GP107 it holds an artifact of one size") as caught:
        load_sizes(moved)
    assert "graphprune.runtime.load(path)" in str(caught.value)
    with pytest.raises(GraphPruneError, match="GP101"):
        load_sizes(tmp_path / "nothing.gp")


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "another"}, {"built": []}, {"built": [{"batch": 2}, {"other": 2}]}, {"filled": ["width"]},
        {"inputs": {"x": ["width", None]}}, {"inputs": 3}, {"built": [{"batch": 0}]}, {"version": 99},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_list_of_sizes_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    good = Sizes({"x": ("batch", None)}, {"y": ("batch", None)}, ("batch",), ({"batch": 2},)).to_json()
    (tmp_path / "sizes.json").write_text(good)
    assert read(tmp_path).filled == ("batch",)
    (tmp_path / "sizes.json").write_text(sealed({**json.loads(good), **change}))
    with pytest.raises(GraphPruneError, match=r"GP5(09|10)"):
        read(tmp_path)
    (tmp_path / "sizes.json").write_text(good.replace("batch", "patch"))
    with pytest.raises(GraphPruneError, match=r"GP509 .*other contents"):
        read(tmp_path)


def test_combinations() -> None:
    assert several({}) == [{}]
    assert several({"a": 2, "b": [3, 1]}) == [{"a": 2, "b": 1}, {"a": 2, "b": 3}]
    for sizes in ({"a": []}, {"a": [0, 1]}, {"a": list(range(1, 100))}):
        with pytest.raises(GraphPruneError, match="GP107"):
            several(sizes)


def test_which_axes_of_an_output_follow_the_input() -> None:
    sizes = [{"a": 2, "b": 4}, {"a": 3, "b": 4}, {"a": 2, "b": 5}]
    shapes = [(2, 7, 4, 8), (3, 7, 4, 8), (2, 7, 5, 10)]
    assert followed([Tensor("y", "float32", shape) for shape in shapes], sizes) == ("a", None, "b", None)


def test_the_trial_is_at_a_size_that_was_not_built() -> None:
    about = Sizes({}, {}, (), ({"a": 1, "b": 4}, {"a": 2, "b": 4}, {"a": 1, "b": 8}, {"a": 2, "b": 8}))
    assert tried(about, "a") is None
    assert tried(about, "b") == {"a": 2, "b": 7}


def test_on_the_command_line(samples: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(samples.parent)
    assert main(["build", "model.onnx", "--size", "batch=2,8", "--variants", "v1"]) == 0
    assert "batch may be 2, 8; smaller inputs are filled up with zeros" in capsys.readouterr().out
    np.save("x.npy", np.ones((5, WIDTH), np.float32))
    assert main(["run", "model.gp", "--input", "x.npy"]) == 0
    assert capsys.readouterr().out.startswith("y: float32[5, 6]")
    assert main(["run", "model.gp", "--random"]) == 0
    assert capsys.readouterr().out.startswith("y: float32[2, 6]")
    assert main(["build", "model.onnx", "--size", "batch=2,x"]) == 2
    assert "GP107 'batch=2,x' is not a name and sizes" in capsys.readouterr().err
