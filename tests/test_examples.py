"""The examples run as the page beside them says, on tiny made-up data, and without a network."""

import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import graphprune as gp

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

# How an example is run: as a script, by a Python in which no connection can be made and torch uses one core. Builds of
# torchvision that cannot be imported would take transformers down with them, so these get its operators first.
DRIVER = """
import importlib.util, runpy, socket, sys
def refuse(*_): raise OSError("examples must not use the network")
socket.socket.connect = socket.socket.connect_ex = refuse
import torch
torch.set_num_threads(1)
for name in {missing!r}: sys.modules[name] = None
if importlib.util.find_spec("torchvision"):
    sys.path.insert(0, {root!r})
    from tests.zoo import vision_operators
    vision_operators.load()
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0], sys.path[0] = script, {examples!r}
runpy.run_path(script, run_name="__main__")
"""


def run(name: str, *arguments: object, missing: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run an example; modules in `missing` cannot be imported."""
    code = DRIVER.format(missing=missing, root=str(ROOT), examples=str(EXAMPLES))
    command = [sys.executable, "-c", code, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def example(name: str) -> ModuleType:
    """A module of the examples, imported as the scripts beside it do."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


def test_the_network_is_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text("import socket; socket.create_connection(('127.0.0.1', 9))")
    done = run(str(tmp_path / "calls.py"))
    assert "examples must not use the network" in done.stderr


# ------------------------------------------------------------------ data
Arrays = tuple[Any, Any]


def made_up(count: int, seed: int) -> Arrays:
    """Images uint8 [n, 3, 32, 32] of ten kinds that differ in brightness, and their labels."""
    source = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = source.integers(0, 40, (count, 3, 32, 32)) + 20 * labels[:, None, None, None]
    return images.astype(np.uint8), labels.astype(np.uint8)


def write_binary(folder: Path, name: str, images: Any, labels: Any) -> None:
    rows = np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1)
    (folder / f"{name}.bin").write_bytes(rows.astype(np.uint8).tobytes())


def write_python(folder: Path, name: str, images: Any, labels: Any) -> None:
    batch = {b"data": images.reshape(len(images), -1), b"labels": labels.tolist()}
    (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def write_folder(folder: Path, write: Callable[..., None], count: int = 20) -> Path:
    """A folder with five batches to train with and one to test with."""
    folder.mkdir()
    for k in range(1, 6):
        write(folder, f"data_batch_{k}", *made_up(count, k))
    write(folder, "test_batch", *made_up(count, 0))
    return folder


@pytest.mark.parametrize("write", [write_binary, write_python])
def test_cifar10_is_read(write: Callable[..., None], tmp_path: Path) -> None:
    data = example("cifar10_data")
    folder = write_folder(tmp_path / "data", write)
    images, labels = data.load(folder, "test", 7)
    expected = torch.from_numpy(made_up(20, 0)[0][:7]) / 255
    torch.testing.assert_close(images * data.DEVIATION[:, None, None] + data.MEAN[:, None, None], expected)
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    train, _ = data.load(folder, "train")
    assert train.shape == (100, 3, 32, 32)
    assert not torch.equal(train[0], train[20])


def test_cifar10_in_mosaics_is_read(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    images, labels = made_up(1000, 0)
    mosaic = images.reshape(25, 40, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(800, 1280, 3)
    image.fromarray(mosaic).save(tmp_path / "test_00.webp", lossless=True)
    np.savez(tmp_path / "labels.npz", test=labels)
    data = example("cifar10_data")
    found, kinds = data.load(tmp_path, "test")
    expected = torch.from_numpy(images) / 255
    torch.testing.assert_close(found * data.DEVIATION[:, None, None] + data.MEAN[:, None, None], expected)
    assert kinds.tolist() == labels.tolist()


def test_a_batch_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return exec, ("raise SystemExit('it ran')",)

    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Evil()}, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match="exec does not belong"):
        example("cifar10_data").load(tmp_path, "test")


@pytest.mark.parametrize("arguments", [(), ("--data", "nowhere")])
def test_without_data_it_says_where_to_get_it(arguments: tuple[str, ...]) -> None:
    done = run("cifar10_finetune.py", *arguments)
    assert done.returncode != 0
    assert "cs.toronto.edu/~kriz/cifar.html" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------ the trained network
def with_prefix(model: Any) -> dict[str, Any]:
    return {f"module.{name}": tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("new_format", [False, True])
def test_weights_are_read_without_running_code(new_format: bool, tmp_path: Path) -> None:
    finetune = example("cifar10_finetune")
    model = finetune.ResNet(2)
    path = tmp_path / "weights.th"
    torch.save({"state_dict": with_prefix(model)}, path, _use_new_zipfile_serialization=new_format)
    weights = finetune.read_weights(path)
    assert finetune.blocks_in(weights) == 2
    finetune.ResNet(2).load_state_dict(weights)
    torch.save({"state_dict": Path}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(pickle.UnpicklingError):
        finetune.read_weights(path)


def test_weights_as_safetensors_are_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    finetune = example("cifar10_finetune")
    model = finetune.ResNet(1)
    safetensors.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    weights = finetune.read_weights(tmp_path / "weights.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def pruned_resnet() -> tuple[Any, Any, Any]:
    """A dense ResNet, what pruning at random made of it, and images."""
    torch.manual_seed(0)
    model = example("cifar10_finetune").ResNet(1).eval()
    images = torch.randn(3, 3, 32, 32)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, 0.1, 0.5)
    return model, gp.prune(model, images[:1], macs=0.5, criterion="random"), images


def test_padded_shortcuts_are_pruned() -> None:
    """The zeros before and behind the channels are cut apart from each other, and the class stays what it is."""
    model, result, images = pruned_resnet()
    small = result.model
    assert type(small) is type(model)
    for stage, before in ((small.layer2, small.layer1), (small.layer3, small.layer2)):
        first, last = stage[0].shortcut.padding[-2:]
        assert before[-1].conv2.out_channels + first + last == stage[0].conv2.out_channels
    assert model.layer2[0].shortcut.padding == (0, 0, 0, 0, 8, 8)
    assert small.layer2[0].shortcut.padding != model.layer2[0].shortcut.padding
    gp.mask(model, result.plan, images[:1])
    with torch.no_grad():
        torch.testing.assert_close(small(images), model(images), rtol=1e-4, atol=1e-5)


def test_the_check_of_shortcuts_can_fail() -> None:
    model, result, images = pruned_resnet()
    shortcut = result.model.layer2[0].shortcut
    *rest, first, last = shortcut.padding
    shortcut.padding = (*rest, first - 1, last + 1)
    gp.mask(model, result.plan, images[:1])
    with torch.no_grad(), pytest.raises(AssertionError):
        torch.testing.assert_close(result.model(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_cifar10_finetune_runs(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxscript", "safetensors"):
        pytest.importorskip(name)
    folder, output = write_folder(tmp_path / "data", write_binary), tmp_path / "files"
    done = run("cifar10_finetune.py", "--data", folder, "--blocks", 1, "--batch", 20, "--output", output)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("training from nothing")
    assert lines[1] == "ResNet-8, 100 images to train with, 20 to test with"
    for said in ("dense network:", "after cut 1:", "after fine-tuning 1:", "after cut 2:", "after fine-tuning 2:"):
        assert sum(f"accuracy {said}" in line or f"accuracy of the {said}" in line for line in lines) == 1
    assert "loaded again: the same bits" in done.stdout
    assert "small.onnx in onnxruntime" in done.stdout
    assert {"small", "small.onnx"} <= {path.name for path in output.iterdir()}


# ------------------------------------------------------------------ transformers
@pytest.mark.slow
def test_huggingface_runs() -> None:
    pytest.importorskip("safetensors")
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs transformers")
    done = run("huggingface.py", "--macs", "0.7")
    assert done.returncode == 0, done.stderr
    assert "a LlamaForCausalLM that generates, with its cache and without" in done.stdout
    assert "loaded again, it generates the same" in done.stdout


def test_without_transformers_it_says_so() -> None:
    done = run("huggingface.py", missing=("transformers",))
    assert done.returncode == 1
    assert "pip install transformers" in done.stderr
    assert "Traceback" not in done.stderr
