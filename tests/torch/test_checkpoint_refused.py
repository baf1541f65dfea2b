"""Checkpoints that are damaged or hostile, models that files cannot hold, and folders that stay as they were."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from torch import nn
from torch.nn.utils import parametrizations

from graphprune.errors import GraphPruneError
from graphprune.torch import checkpoint
from graphprune.torch.checkpoint import load, save
from graphprune.torch.masks import mask
from tests.torch.small import CUTS, Net, holding, prune_


@pytest.fixture
def small(tmp_path: Path) -> Path:
    save(prune_(Net()), tmp_path / "small")
    return tmp_path / "small"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, the unfinished ones of a failed write too."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


def refused(code: str, act: Callable[[], object]) -> GraphPruneError:
    with pytest.raises(GraphPruneError) as caught:
        act()
    assert caught.value.code == code, str(caught.value)
    return caught.value


# ------------------------------------------------------------------ the wrong constructor
class Deeper(Net):
    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Linear(2, 2)


class Wider(Net):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 9, 3, padding=1)


class Renamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()


class Settled(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.SyncBatchNorm(8)
        del self.norm.num_features


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.LazyLinear(4)


@pytest.mark.parametrize(
    ("constructor", "code", "message"),
    [
        (lambda: Net(5), "GP506", r"the constructor builds \[5\], which cannot have become \[4\]"),
        (Wider, "GP506", r"builds \[9\], but the network that was pruned had \[8\]"),
        (Deeper, "GP506", "the checkpoint lacks 2 tensors: 'third.bias', 'third.weight'"),
        (
            Renamed,
            "GP506",
            r"model lacks \d+ tensors: 'first.bias', 'first.weight', 'head.bias', \.\.\.",
        ),
        (lambda: prune_(Net()), "GP506", r"builds \[5\], but the network that was pruned had \[8\]"),
        (Settled, "GP506", "the SyncBatchNorm has no attribute 'num_features'"),
        (Lazy, "GP506", "the constructed tensor has no shape yet"),
        (Net(), "GP107", "a Net is not something that builds the dense model"),
        ("Net", "GP107", "a str is not something that builds the dense model"),
        (lambda: Net().state_dict(), "GP107", "the constructor returned a OrderedDict, not a torch.nn.Module"),
    ],
)
def test_the_wrong_constructor_is_told(constructor: Any, code: str, message: str, small: Path) -> None:
    error = refused(code, lambda: load(constructor, small))
    assert re.search(message, error.what)


# ------------------------------------------------------------------ damage
def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Damage that changes fields of graphprune.json."""

    def damage(folder: Path) -> None:
        fields = json.loads((folder / "graphprune.json").read_text())
        change(fields)
        (folder / "graphprune.json").write_text(json.dumps(fields))

    return damage


def truncated(name: str, keep: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep]) and None


def reweighted(change: Callable[[dict[str, Any]], object], name: str = "model") -> Callable[[Path], None]:
    """Damage that changes the tensors of a file."""

    def damage(folder: Path) -> None:
        tensors = safetensors.load_file(folder / f"{name}.safetensors")
        change(tensors)
        safetensors.save_file(tensors, folder / f"{name}.safetensors")

    return damage


def indexed(weight_map: Any) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map})) and None
    )


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (shutil.rmtree, "GP101", "there is no such folder"),
        (lambda folder: shutil.rmtree(folder) or folder.write_text("x"), "GP101", "this is a file"),
        (lambda folder: (folder / "graphprune.json").unlink(), "GP101", "the folder has no graphprune.json"),
        (lambda folder: (folder / "plan.json").unlink(), "GP101", "the plan cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "GP505", "the file model.safetensors is missing"),
        (lambda folder: (folder / "buffers.safetensors").unlink(), "GP505", "lacks 'table', which was cut"),
        (lambda folder: (folder / "graphprune.json").write_bytes(b"\xff\xfe\x00"), "GP505", "is not text"),
        (truncated("graphprune.json", 100), "GP505", "not JSON"),
        (truncated("model.safetensors", 4), "GP505", "the file cannot be read"),
        (truncated("model.safetensors", -8), "GP505", "the file cannot be read"),
        (truncated("plan.json", 30), "GP502", "not JSON"),
        (edited(lambda f: f.update(version=2)), "GP503", "the checkpoint is of version 2, versions up to 1"),
        (edited(lambda f: f.update(version=True)), "GP505", "the version True"),
        (edited(lambda f: f.pop("schema")), "GP505", "there is no schema"),
        (edited(lambda f: f.pop("tied")), "GP505", "tied is not an object"),
        (edited(lambda f: f.update(tide={})), "GP505", "no field 'tide'"),
        (edited(lambda f: f.update(kind="pickle")), "GP505", "'pickle' is neither module nor graph"),
        (edited(lambda f: f.update(training=1)), "GP505", "1 is neither true nor false"),
        (edited(lambda f: f.update(frozen="all")), "GP505", "frozen is not a list of texts"),
        (edited(lambda f: f.update(reason=[])), "GP505", "reason is not a text"),
        (edited(lambda f: f["tied"].update(a=1)), "GP505", "tied is not an object of texts"),
        (edited(lambda f: f["tied"].update({"head.bias": "nowhere"})), "GP505", "the same as 'nowhere'"),
        (edited(lambda f: f["shapes"].update(a=[-1])), "GP505", "not a list of sizes"),
        (edited(lambda f: f["edits"].update(head=3)), "GP505", "the edits of a module are not an object"),
        (edited(lambda f: f["edits"].update(head={"__class__": "x"})), "GP506", "no attribute '__class__'"),
        (edited(lambda f: f["edits"].update(head={"forward": "x"})), "GP506", "the attribute is a method"),
        (edited(lambda f: f["edits"].update(head={"weight": 0})), "GP506", "the attribute is a Parameter"),
        (edited(lambda f: f["edits"].update({"third.a": {"x": 1}})), "GP506", "the Net has no attribute 'third'"),
        (edited(lambda f: f["buffers"].update(table="load")), "GP505", "there is no type 'load'"),
        (edited(lambda f: f["cuts"].update({"head.bias": {"0": 99}})), "GP505", "no axis and number of a list"),
        (edited(lambda f: f["cuts"].update({"head.bias": {"9" * 5000: 0}})), "GP505", "no axis and number of a list"),
        (edited(lambda f: f["cuts"].update({"head.bias": [0]})), "GP505", "the cut of a tensor is not an object"),
        (edited(lambda f: f["cuts"].update({"head.bias": {"7": 0}})), "GP506", "cannot have become"),
        (edited(lambda f: f["kept"].__setitem__(0, [[0, 10**12]])), "GP505", "does not ascend, or is too much"),
        (edited(lambda f: f["kept"].__setitem__(0, [3, 2])), "GP505", "2 does not ascend"),
        (edited(lambda f: f["kept"].__setitem__(0, ["a"])), "GP505", "a is neither a position nor a range"),
        (edited(lambda f: f["kept"].__setitem__(0, 3)), "GP505", "not a list of positions"),
        (edited(lambda f: f.update(kept=3)), "GP505", "kept is not a list"),
        (reweighted(lambda tensors: tensors.pop("head.bias")), "GP506", "the checkpoint lacks 1 tensors: 'head.bias'"),
        (reweighted(lambda tensors: tensors.update(extra=torch.ones(1))), "GP506", "lacks 1 tensors: 'extra'"),
        (
            reweighted(lambda tensors: tensors.update({"head.bias": torch.ones(3)})),
            "GP506",
            r"builds \[4\], which cannot have become \[3\]",
        ),
        (
            reweighted(lambda tensors: tensors.update({"first.weight": torch.ones(5, 3, 3)})),
            "GP506",
            r"builds \[8, 3, 3, 3\], which cannot have become \[5, 3, 3\]",
        ),
        (
            reweighted(lambda tensors: tensors.update({"head.bias": torch.ones(4, dtype=torch.int64)})),
            "GP505",
            "a parameter of torch.int64 cannot be trained",
        ),
        (indexed({"head.bias": "../other/model.safetensors"}), "GP109", "no file of its folder"),
        (indexed({"head.bias": 3}), "GP109", "no file of its folder"),
        (indexed({"head.bias": "model.safetensors"}), "GP505", "the index and the file differ about"),
        (indexed({"head.bias": "model-00001-of-00001.safetensors"}), "GP505", "is missing"),
        (indexed({}), "GP505", "the index has no weight_map"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), "GP505", "the index cannot be read"),
    ],
)
def test_damage_is_told_and_nothing_is_built(damage: Any, code: str, message: str, small: Path) -> None:
    damage(small)
    error = refused(code, lambda: load(Net, small))
    assert re.search(message, f"{error.what} {error.where}")


# ------------------------------------------------------------------ models that files cannot hold
def with_extra_state(model: Any) -> None:
    model.head.__class__ = type("Extra", (nn.Linear,), {"get_extra_state": lambda self: {"steps": 3}})


def overlapping(model: Any) -> None:
    model.register_buffer("view", model.head.weight.data[1:])


def transposed(model: Any) -> None:
    model.extra = nn.Parameter(torch.empty(0))
    model.extra.data = model.head.weight.data.t()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: mask(model, CUTS), "the model is masked, not pruned"),
        (lambda model: model.to("meta"), "the tensor has no data: it is on the meta device"),
        (lambda model: setattr(model, "head", nn.LazyLinear(3)), "the tensor has no shape yet"),
        (lambda model: model.register_buffer("odd", torch.ones(2, dtype=torch.complex128)), "cannot hold torch.comp"),
        (lambda model: model.register_buffer("odd", torch.eye(2).to_sparse()), "with the layout torch.sparse_coo"),
        (with_extra_state, "differ about 'head._extra_state'"),
        (overlapping, "'head.weight' and 'view' share a part of their memory"),
        (transposed, "share a part of their memory"),
    ],
)
def test_models_that_files_cannot_hold_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    model = Net()
    change(model)
    error = refused("GP103", lambda: save(model, tmp_path / "small"))
    assert message in error.what
    assert contents(tmp_path) == {}


def test_parametrized_modules_are_saved_as_they_are(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return parametrizations.weight_norm(nn.Linear(3, 3))

    model = make()
    save(model, tmp_path / "model")
    assert torch.equal(load(make, tmp_path / "model").weight, model.weight)  # type: ignore[arg-type]


def test_a_value_that_json_lacks_is_refused(tmp_path: Path) -> None:
    model = Net()
    pruned = prune_(model)._graphprune
    pruned.edits["head"]["in_features"] = {1, 2}  # type: ignore[union-attr,index]
    try:
        refused("GP103", lambda: save(model, tmp_path / "small"))
    finally:
        pruned.edits["head"]["in_features"] = 3  # type: ignore[union-attr,index]
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ folders
def test_a_checkpoint_is_replaced_as_a_whole(small: Path) -> None:
    save(prune_(Net()), small, most_bytes=300)
    assert not (small / "model.safetensors").exists()
    save(holding(nn.Parameter(torch.ones(2))), small)
    assert sorted(contents(small)) == ["graphprune.json", "model.safetensors", "plan.json"]
    assert sorted(each.name for each in small.parent.iterdir()) == ["small"]


def test_an_empty_folder_is_filled_and_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save(Net(), tmp_path / "empty")
    for name, file in (("foreign", "notes.txt"), ("mixed", "graphprune.json")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / file).write_text("mine")
        (folder / "more.txt").write_text("mine too")
        before = contents(tmp_path)
        error = refused("GP104", lambda folder=folder: save(Net(), folder))  # type: ignore[misc]
        assert "other files" in error.what
        assert contents(tmp_path) == before
    (tmp_path / "file").write_text("mine")
    refused("GP105", lambda: save(Net(), tmp_path / "file"))
    refused("GP105", lambda: save(Net(), tmp_path / "nowhere" / "small"))


@pytest.mark.parametrize("moment", ["write", "flush", "move"])
def test_a_failure_leaves_what_was_there(moment: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(small.parent)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    replace = os.replace

    def torn(source: Any, target: Any) -> None:
        if Path(source).name == "new":
            raise OSError(28, "No space left on device")
        replace(source, target)

    if moment == "write":
        monkeypatch.setattr(checkpoint, "write", full)
    else:
        monkeypatch.setattr(os, "fsync" if moment == "flush" else "replace", full if moment == "flush" else torn)
    error = refused("GP105", lambda: save(Net(), small))
    assert error.what == "cannot write: no space left on device"
    assert contents(small.parent) == before
    assert sorted(each.name for each in small.parent.iterdir()) == ["small"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(Net(), tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_links_are_followed_and_permissions_are_the_usual(small: Path) -> None:
    link = small.parent / "link"
    link.symlink_to(small, target_is_directory=True)
    save(Net(), link)
    assert link.is_symlink()
    assert type(load(Net, link)) is Net
    (small.parent / "usual").mkdir()
    assert small.stat().st_mode == (small.parent / "usual").stat().st_mode
