"""Files are written whole or not at all, nothing that was read is overwritten, and damaged files get a clear answer."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune import api
from graphprune.dialects.onnx import files
from graphprune.errors import GraphPruneError
from graphprune.output import UNFINISHED, Outputs, write_text

EXAMPLE = Path(__file__).parent.parent / "examples" / "super_resolution.onnx"


def model(width: int = 64, value: float = 1.0) -> onnx.ModelProto:
    """y = Relu(x W), with a W of `width` times `width` numbers, all `value`."""
    weight = numpy_helper.from_array(np.full((width, width), value, np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width])
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save_external(path: Path, made: onnx.ModelProto) -> Path:
    onnx.save(made, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return path


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    made = model(4)
    change(made)
    return made


def refusal(path: Path) -> GraphPruneError:
    with pytest.raises(GraphPruneError) as caught:
        api.load(path)
    return caught.value


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(UNFINISHED)]


# Writing


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "a folder with spaces" / "out.onnx"
    out.parent.mkdir()
    assert files.save(api.load(EXAMPLE), out) == [out]
    assert [t.raw_data for t in onnx.load(out).graph.initializer] == [
        t.raw_data for t in onnx.load(EXAMPLE).graph.initializer
    ]
    assert os.listdir(out.parent) == ["out.onnx"]


def test_external_data_stays_external(tmp_path: Path) -> None:
    source = save_external(tmp_path / "in.onnx", model(value=3.0))
    written = api.save(api.load(source), tmp_path / "out.onnx")
    assert [path.name for path in written] == ["out.onnx.data", "out.onnx"]
    assert (numpy_helper.to_array(onnx.load(tmp_path / "out.onnx").graph.initializer[0]) == 3.0).all()
    assert leftovers(tmp_path) == []


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        api.save(api.load(EXAMPLE), tmp_path / name / "out.onnx")
    assert (tmp_path / "a" / "out.onnx").read_bytes() == (tmp_path / "b" / "out.onnx").read_bytes()


@pytest.mark.parametrize("link", [False, True])
def test_the_input_is_not_overwritten_unless_asked(tmp_path: Path, link: bool) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(model(), source)
    before = source.read_bytes()
    target = source
    if link:
        target = tmp_path / "link.onnx"
        target.symlink_to(source)
    with pytest.raises(GraphPruneError, match=r"GP104 writing 'in\.onnx' would overwrite a file of the input model"):
        api.save(api.load(source), target)
    assert source.read_bytes() == before
    assert api.save(api.load(source), target, overwrite=True) == [source]


def test_the_weights_of_the_input_are_not_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(model(), source, save_as_external_data=True, location="out.onnx.data", size_threshold=0)
    before = (tmp_path / "out.onnx.data").read_bytes()
    with pytest.raises(GraphPruneError, match="GP104"):
        api.save(api.load(source), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/out.onnx", "cannot write: its folder does not exist"),
        (".", "cannot write: it is a folder"),
        ("pipe", "cannot write: it is a device or a pipe"),
    ],
)
def test_where_nothing_can_be_written(tmp_path: Path, name: str, message: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GraphPruneError, match=f"GP105 {message}"):
        api.save(api.load(EXAMPLE), tmp_path / name)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # the super-user may write everywhere
    with pytest.raises(GraphPruneError, match="GP105 cannot write: permission denied"):
        api.save(api.load(EXAMPLE), tmp_path / "out.onnx")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The operating system refuses to let files grow beyond `size` bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("external", [False, True])
def test_no_room_leaves_the_older_file(tmp_path: Path, external: bool) -> None:
    source = tmp_path / "in.onnx"
    if external:
        save_external(source, model(256))
    else:
        onnx.save(model(256), source)
    out = tmp_path / "out"
    out.mkdir()
    (out / "out.onnx").write_text("older")
    loaded = api.load(source)
    with largest_file(100_000), pytest.raises(GraphPruneError, match="GP105 cannot write: file too large"):
        api.save(loaded, out / "out.onnx")
    assert os.listdir(out) == ["out.onnx"]
    assert (out / "out.onnx").read_text() == "older"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_leaving_early_leaves_nothing(tmp_path: Path, stop: type[BaseException]) -> None:
    def leave() -> None:
        with Outputs(tmp_path / "out.onnx") as outputs:
            outputs.path("out.onnx").write_text("half")
            raise stop

    with pytest.raises(stop):
        leave()
    assert os.listdir(tmp_path) == []


def test_a_failing_move_puts_the_older_files_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.data", "a.onnx"]
    for name in names:
        (tmp_path / name).write_text("older")
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if source.name == "a.onnx" and UNFINISHED in str(source.parent):
            raise OSError(28, "No space left on device")
        replace(source, target)

    def write() -> None:
        with Outputs(tmp_path / "a.onnx") as outputs:
            for name in names:
                outputs.path(name).write_text("newer")
            monkeypatch.setattr(os, "replace", fail)
            outputs.commit(names)

    with pytest.raises(GraphPruneError, match="GP105 cannot write: no space left on device"):
        write()
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == dict.fromkeys(names, "older")


_WRITER = """
import sys
from graphprune import api
models = [api.load(path) for path in sys.argv[2:]]
print("ready", flush=True)
while True:
    for model in models:
        api.save(model, sys.argv[1])
"""


def test_a_kill_at_any_moment_leaves_whole_files(tmp_path: Path) -> None:
    """Two models with external data are written over each other until the process is killed."""
    sources = [save_external(tmp_path / f"{v}.onnx", model(128, float(v))) for v in (1, 2)]
    out = tmp_path / "out" / "out.onnx"
    out.parent.mkdir()
    delays = random.Random(0)
    for _ in range(8):
        command = [sys.executable, "-c", _WRITER, str(out), *map(str, sources)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(delays.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert {name for name in os.listdir(out.parent) if UNFINISHED not in name} <= {"out.onnx", "out.onnx.data"}
        if out.exists():
            numbers = numpy_helper.to_array(onnx.load(out).graph.initializer[0])
            assert numbers.shape == (128, 128)
            assert (numbers == numbers[0, 0]).all() and numbers[0, 0] in (1.0, 2.0)


def test_text_is_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "{}")
    write_text(tmp_path / "a.json", "[]")
    assert (tmp_path / "a.json").read_text() == "[]"
    assert os.listdir(tmp_path) == ["a.json"]


# Reading what is not a model


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.onnx", None, "GP101 there is no such file"),
        ("folder.onnx", "folder", "GP101 it is a folder, not a model file"),
        ("empty.onnx", b"", "GP102 the file is empty"),
        ("text.onnx", b"not a model, but text", "GP102 it is not an ONNX file, or is cut off or damaged"),
        ("cut.onnx", EXAMPLE.read_bytes()[:5000], "GP102 it is not an ONNX file, or is cut off or damaged"),
        ("model.pt", b"x", "GP103 .pt files are pickles: reading one could run any code, so graphprune never does"),
        ("model.safetensors", b"x", "GP103 a file with the suffix .safetensors is not a model that can be read"),
        ("model", b"x", "GP103 a file with the suffix (none) is not a model that can be read"),
    ],
)
def test_what_is_not_a_model(tmp_path: Path, name: str, content: bytes | str | None, expected: str) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    error = refusal(path)
    assert str(error).splitlines()[:2] == [expected, f"  at  {path}"]


def test_a_misspelt_file_gets_a_suggestion(tmp_path: Path) -> None:
    onnx.save(model(4), tmp_path / "resnet.onnx")
    assert refusal(tmp_path / "resnt.onnx").remedy == f"did you mean {str(tmp_path / 'resnet.onnx')!r}?"


_BROKEN: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "missing value": (lambda m: m.graph.initializer.pop(), "GP102 nothing produces 'w'"),
    "cycle": (lambda m: m.graph.node[0].input.__setitem__(0, "y"), "GP102 nodes depend on each other in a circle"),
    "negative size": (
        lambda m: m.graph.initializer[0].dims.__setitem__(0, -4),
        "GP102 a tensor has the negative size -4",
    ),
    "absurd size": (
        lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**50),
        "GP102 its shape asks for 18014398509481984 bytes and it holds 64",
    ),
    "short data": (
        lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234"),
        "GP102 its shape asks for 64 bytes and it holds 4",
    ),
    "unknown type": (
        lambda m: setattr(m.graph.initializer[0], "data_type", 99),
        "GP102 a tensor has the unknown data type 99",
    ),
    "name twice": (
        lambda m: m.graph.initializer.append(m.graph.initializer[0]),
        "GP102 two initializers are called 'w'",
    ),
    "output twice": (lambda m: m.graph.node[1].output.__setitem__(0, "m"), "GP102 two outputs of nodes are called 'm'"),
    "no opset": (lambda m: m.ClearField("opset_import"), "GP102 it does not say which opset it uses"),
    "opset of the future": (lambda m: setattr(m.opset_import[0], "version", 999), "GP103 its opset 999 is newer"),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "GP103 it holds sparse initializers"),
    "training": (lambda m: m.training_info.add(), "GP103 it holds training information"),
    "no graph": (lambda m: m.ClearField("graph"), "GP102 it holds no graph"),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_what_breaks_the_format(tmp_path: Path, case: str) -> None:
    change, expected = _BROKEN[case]
    onnx.save(changed(change), tmp_path / "m.onnx")
    error = refusal(tmp_path / "m.onnx")
    assert str(error).startswith(expected)
    assert error.where.startswith(str(tmp_path / "m.onnx"))


def test_nodes_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    made = model(4)
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(reversed(nodes))
    onnx.save(made, tmp_path / "m.onnx")
    assert [node.op_type for node in api.load(tmp_path / "m.onnx").graph] == ["MatMul", "Relu"]


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    made = model(4)
    body = helper.make_function("local", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="local")], [])
    made.functions.append(body)
    made.opset_import.append(helper.make_opsetid("local", 1))
    onnx.save(made, tmp_path / "m.onnx")
    assert str(refusal(tmp_path / "m.onnx")).startswith("GP102 the function local:F calls itself")


def test_functions_that_stand_for_too_many_nodes(tmp_path: Path) -> None:
    """Each function calls the next one ten times, ten deep: ten thousand million nodes in a file of a few kilobytes."""
    made = model(4)
    imports = [helper.make_opsetid("local", 1), helper.make_opsetid("", 17)]
    for level in range(10):
        kind, domain = (f"F{level + 1}", "local") if level < 9 else ("Relu", "")
        names = ["a", *(f"t{k}" for k in range(9)), "b"]
        calls = [helper.make_node(kind, [names[k]], [names[k + 1]], domain=domain) for k in range(10)]
        made.functions.append(helper.make_function("local", f"F{level}", ["a"], ["b"], calls, imports))
    made.graph.node[1].CopyFrom(helper.make_node("F0", ["m"], ["y"], domain="local"))
    made.opset_import.append(helper.make_opsetid("local", 1))
    onnx.save(made, tmp_path / "m.onnx")
    assert str(refusal(tmp_path / "m.onnx")).startswith("GP109 its function calls stand for")


# External data that is not beside the model


def external(folder: Path, location: str, **entries: str) -> Path:
    made = model(4)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("location", "entries", "expected"),
    [
        ("../secret", {}, "GP109 its external data '../secret' is outside the folder of the model"),
        ("/etc/passwd", {}, "GP109 its external data '/etc/passwd' is outside the folder of the model"),
        ("sub/../../secret", {}, "GP109 its external data 'sub/../../secret' is outside the folder of the model"),
        ("link", {}, "GP109 its external data 'link' is outside the folder of the model"),
        ("hard", {}, "GP109 its external data 'hard' has several hard links"),
        ("sub", {}, "GP109 its external data 'sub' is not a file"),
        ("nowhere", {}, "GP101 external data 'nowhere': no such file or directory"),
        ("", {}, "GP102 external data without a file name"),
        ("short", {}, "GP102 external data 'short' ends at byte 5, the tensor at 64"),
        ("short", {"offset": "-1"}, "GP102 its shape asks for 64 bytes of external data, from -1 on there are 64"),
        ("short", {"length": "5"}, "GP102 its shape asks for 64 bytes of external data, from 0 on there are 5"),
        ("short", {"offset": "many"}, "GP102 the offset or length of its external data is not a number"),
    ],
)
def test_external_data(tmp_path: Path, location: str, entries: dict[str, str], expected: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(64))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "short").write_bytes(b"12345")
    (tmp_path / "twice").write_bytes(bytes(64))
    os.link(tmp_path / "twice", folder / "hard")
    assert str(refusal(external(folder, location, **entries))).splitlines()[0] == expected


def test_damaged_files_get_a_clear_answer_or_a_model(tmp_path: Path) -> None:
    """Bytes flipped, inserted, deleted, and files cut off: nothing but GraphPruneError comes out of reading one."""
    rng = random.Random(20261121)
    content = EXAMPLE.read_bytes()
    answers = set()
    for _ in range(150):
        data = bytearray(content)
        kind = rng.randrange(4)
        place = rng.randrange(1500)  # the graph comes first and the weights, where damage does not show, after it
        if kind == 0:
            del data[rng.randrange(len(data)) :]
        elif kind == 1:
            data[place] = rng.randrange(256)
        elif kind == 2:
            data[place:place] = rng.randbytes(rng.randrange(1, 64))
        else:
            del data[place : place + rng.randrange(1, 64)]
        (tmp_path / "m.onnx").write_bytes(data)
        try:
            api.save(api.load(tmp_path / "m.onnx"), tmp_path / "out.onnx")
            answers.add("read")
        except GraphPruneError as error:
            answers.add(error.code)
    assert {"read", "GP102"} <= answers <= {"read", "GP102", "GP103", "GP109"}
