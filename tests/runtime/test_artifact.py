"""Artifacts: written whole or not at all; what is damaged, foreign or made for others is never loaded."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphprune.errors import GraphPruneError
from graphprune.runtime import executable, ffi, folder, load, manifest
from graphprune.runtime.artifact import Network, Tensor, Variant
from graphprune.runtime.seal import holds, sealed
from tests.runtime import handmade


@pytest.fixture(autouse=True)
def no_compiler_needed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests never get as far as code, except where they ask for `made`."""
    if "made" not in request.fixturenames:
        monkeypatch.setattr(ffi, "Library", forbidden)


def forbidden(*_: object) -> None:
    raise AssertionError("a library was loaded")


def plain() -> Network:
    """A network whose libraries are not even libraries."""
    row = Variant("v1", (), b"no library", b"constants of it", 64)
    best = Variant("v9", ("telepathy",), b"no library either", b"constants of it", 64)
    outputs = (Tensor("y", "float32", (2,)),)
    return Network(
        "0123456789abcdef", (Tensor("x", "float32", (2,)),), outputs, (best, row), versions={"tvm": "0.27.0"}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return handmade.artifact(tmp_path / "model.gp", plain())


def refusal(path: Path, **options: Any) -> GraphPruneError:
    with pytest.raises(GraphPruneError) as caught:
        load(path, **options)
    return caught.value


# Writing


def test_what_is_in_it(path: Path) -> None:
    names = sorted(each.name for each in path.iterdir())
    assert [name.split("-")[0] for name in names] == ["manifest.json", "v1", "v9", "v9.constants"]
    data = json.loads((path / "manifest.json").read_text())
    assert (data["schema"], data["version"], data["target"]) == ("graphprune.artifact", 1, "x86")
    assert data["variants"][0]["constants"] == data["variants"][1]["constants"]  # stored once
    assert data["versions"] == {"graphprune": "test", "tvm": "0.27.0"}
    assert manifest.read(path).to_json() == (path / "manifest.json").read_text()
    assert str(path.parent) not in (path / "manifest.json").read_text()


def test_equal_networks_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    other = handmade.artifact(tmp_path / "other.gp", plain())
    assert {each.name: each.read_bytes() for each in path.iterdir()} == {
        each.name: each.read_bytes() for each in other.iterdir()
    }


def test_nothing_is_left_of_an_interrupted_build(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), folder.staged(tmp_path / "model.gp") as place:
        folder.write(place, plain(), handmade.ABOUT)
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_an_artifact_is_replaced_only_if_asked(path: Path) -> None:
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(GraphPruneError, match="GP105 cannot write: it exists"):
        handmade.artifact(path, replace(plain(), threads=2))
    assert (path / "manifest.json").read_bytes() == before
    handmade.artifact(path, replace(plain(), threads=2), force=True)
    assert manifest.read(path).threads == 2
    assert [each.name for each in path.parent.iterdir()] == ["model.gp"]


def test_a_failed_move_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (path / "manifest.json").read_bytes()
    really = os.rename

    def fail(source: Any, target: Any) -> None:
        if Path(source).name == "artifact":
            raise OSError(28, "No space left on device")
        really(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(GraphPruneError, match="GP105 cannot write: no space left"):
        handmade.artifact(path, replace(plain(), threads=2), force=True)
    assert (path / "manifest.json").read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["model.gp"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_artifact_is_never_replaced(tmp_path: Path, force: bool) -> None:
    holder = tmp_path / "photos"
    holder.mkdir()
    (holder / "one.jpg").write_text("precious")
    with pytest.raises(GraphPruneError, match="something is there that is no artifact"):
        handmade.artifact(holder, plain(), force=force)
    (holder / "manifest.json").write_text("{}")  # of a browser extension, perhaps
    with pytest.raises(GraphPruneError, match="something is there that is no artifact"):
        handmade.artifact(holder, plain(), force=force)
    link = tmp_path / "link.gp"
    link.symlink_to(holder)
    with pytest.raises(GraphPruneError, match="GP105"):
        handmade.artifact(link, plain(), force=force)
    assert (holder / "one.jpg").read_text() == "precious"


def test_its_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(GraphPruneError, match="GP105 cannot write: its folder does not exist"):
        handmade.artifact(tmp_path / "no" / "model.gp", plain())


# Reading


def test_it_may_be_moved(made: Path) -> None:
    moved = made.rename(made.with_name("elsewhere"))
    assert np.array_equal(load(moved)(np.ones((4, 6), np.float32))["y"], handmade.expected(np.ones((4, 6), np.float32)))


def test_one_in_the_place_of_another_is_not_mistaken_for_it(made: Path) -> None:
    """The loader of the system knows libraries by their path."""
    pytest.importorskip("onnxruntime")
    x = np.ones((4, 6), np.float32)
    first = load(made)
    handmade.artifact(made, handmade.network("v3", kind="stepping"), force=True)
    second = load(made)
    assert np.array_equal(first(x)["y"], handmade.expected(x))
    assert np.array_equal(second(x)["y"], handmade.expected(2 * x))


@pytest.mark.parametrize("name", ["library", "constants"])
def test_one_flipped_bit_is_found(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = path / manifest.read(path).variants[1].__dict__[name].file
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    error = refusal(path)
    assert error.code == "GP509" and f"{file.name!r} has other contents" in error.what
    monkeypatch.setattr(executable, "check_runtime", lambda *_: None)  # TVM need not be installed
    if name == "constants":
        with pytest.raises(AssertionError, match="a library was loaded"):
            load(path, quick=True)
    else:
        assert refusal(path, quick=True).code == "GP509"


@pytest.mark.parametrize("name", ["library", "constants"])
@pytest.mark.parametrize("quick", [False, True])
def test_missing_cut_off_and_linked_files(path: Path, name: str, quick: bool) -> None:
    file = path / manifest.read(path).variants[1].__dict__[name].file
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert f"has {len(content) - 1} bytes instead of {len(content)}" in refusal(path, quick=quick).what
    file.unlink()
    assert "is missing" in refusal(path, quick=quick).what
    (path.parent / "outside").write_bytes(content)
    file.symlink_to(path.parent / "outside")
    assert "is a link" in refusal(path, quick=quick).what


def test_files_of_other_variants_are_not_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable, "check_runtime", lambda *_: None)  # TVM need not be installed
    (path / manifest.read(path).variants[0].library.file).unlink()
    with pytest.raises(AssertionError, match="a library was loaded"):
        load(path)


def test_what_is_no_artifact(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.gp").code == "GP101"
    (tmp_path / "file.gp").write_text("x")
    assert refusal(tmp_path / "file.gp").code == "GP509"
    (tmp_path / "empty.gp").mkdir()
    assert "it has no manifest.json" in refusal(tmp_path / "empty.gp").what


def of_schema_9(data: dict[str, Any]) -> None:
    data["version"] = 9


def of_another_tvm(data: dict[str, Any]) -> None:
    data["versions"]["tvm"] = "0.24.0"


def for_another_machine(data: dict[str, Any]) -> None:
    data["machine"] = "riscv64"


def for_another_processor(data: dict[str, Any]) -> None:
    data["variants"] = data["variants"][:1]


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (of_schema_9, "GP510", "version 9 of its schema"),
        (of_another_tvm, "GP510", "it was built for TVM 0.24.0"),
        (for_another_machine, "GP511", "it was built for riscv64"),
        (for_another_processor, "GP511", "v9 needs telepathy"),
    ],
)
def test_what_was_made_for_others(path: Path, change: Callable[[dict[str, Any]], None], code: str, text: str) -> None:
    pytest.importorskip("tvm")
    edit(path, change)
    error = refusal(path)
    assert error.code == code and text in error.what


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads((path / "manifest.json").read_text())
    change(data)
    (path / "manifest.json").write_text(sealed(data))


def test_a_manifest_holds_its_hash(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    data = json.loads(text)
    assert sealed(data) == text and holds(data)
    (path / "manifest.json").write_text(text.replace('"threads": 1', '"threads": 2'))
    assert "other contents than when it was written" in refusal(path).what
    del data["sha256"]
    assert not holds(data)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert not holds({"a": deep})


def test_a_variant_can_be_chosen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(path, variant="v9").code == "GP511"
    assert refusal(path, variant="v7").code == "GP106"
    for_anyone = replace(plain().variants[1], name="v4", features=("avx512f",))
    both = replace(plain(), variants=(for_anyone, plain().variants[1]))
    handmade.artifact(path, both, force=True)
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v3")
    assert refusal(path, variant="v4").what.startswith("v4 needs avx512f, which ")


WRONG: dict[str, Callable[[dict[str, Any]], None]] = {
    "path upwards": lambda data: data["variants"][1]["library"].update(file="../outside.so"),
    "absolute path": lambda data: data["variants"][1]["library"].update(file="/lib/x.so"),
    "hidden file": lambda data: data["variants"][1]["library"].update(file=".hidden"),
    "the manifest as library": lambda data: data["variants"][1]["library"].update(file="manifest.json"),
    "other schema": lambda data: data.update(schema="something.else"),
    "no schema": lambda data: data.pop("schema"),
    "version that is a text": lambda data: data.update(version="1"),
    "version that is true": lambda data: data.update(version=True),
    "no variants": lambda data: data.update(variants=[]),
    "no outputs": lambda data: data.update(outputs=[]),
    "variants twice": lambda data: data["variants"].append(data["variants"][0]),
    "inputs twice": lambda data: data["inputs"].append(data["inputs"][0]),
    "negative size": lambda data: data["inputs"][0].update(shape=[-1]),
    "size that is no number": lambda data: data["inputs"][0].update(shape=["n"]),
    "size beyond memory": lambda data: data["inputs"][0].update(shape=[1 << 30] * 9),
    "unknown type": lambda data: data["inputs"][0].update(dtype="object"),
    "short hash": lambda data: data["variants"][1]["library"].update(sha256="00"),
    "huge arena": lambda data: data["variants"][1].update(arena=1 << 62),
    "no arena": lambda data: data["variants"][1].pop("arena"),
    "threads": lambda data: data.update(threads=0),
    "id": lambda data: data.update(id="../../etc"),
    "a list for an object": lambda data: data["variants"][1].update(library=[]),
    "layer": lambda data: data["variants"][1].update(layers=[{"name": 1}]),
    "layer without a kernel": lambda data: data["variants"][1].update(layers=[{"name": "a", "operators": "b"}]),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_a_manifest_is_not_trusted(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit(path, change)
    assert refusal(path).code == "GP509"


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"schema": "graphprune.artifact"}', "\udcff"])
def test_a_manifest_that_is_none(path: Path, text: str) -> None:
    (path / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    assert refusal(path).code == "GP509"


def test_any_part_of_a_manifest_may_be_anything(path: Path) -> None:
    """Every value of it is replaced by values of other kinds: it is read, or refused, and nothing else."""
    data = json.loads((path / "manifest.json").read_text())
    seen = set()
    for place, _ in places(data):
        for wrong in (None, -1, 1.5, "", [], {}, [[]], [None], {"": 0}, True):
            changed = json.loads(json.dumps(data))
            at = changed
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = wrong
            try:
                manifest.parsed(sealed(changed).encode(), "here")
                seen.add("read")
            except GraphPruneError as error:
                seen.add(error.code)
    assert seen == {"read", "GP509"}


def places(data: Any, place: tuple[Any, ...] = ()) -> Any:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield (*place, key), value
        yield from places(value, (*place, key))


def test_a_library_that_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tvm")
    monkeypatch.undo()
    assert refusal(path).what.startswith("'v1-")


def test_a_copy_that_stopped_half_way(path: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.gp"
    part.mkdir()
    shutil.copy(path / "manifest.json", part)
    assert "is missing" in refusal(part).what
