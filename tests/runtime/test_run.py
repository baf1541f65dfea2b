"""Loaded networks: right answers, no needless copies, clear refusals, any number of threads."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphprune.errors import GraphPruneError
from graphprune.runtime import Executable, load
from graphprune.runtime.arrays import aligned
from tests.runtime import handmade

ROOT = Path(__file__).parent.parent.parent
TENSOR = handmade.Tensor("x", "float32", (handmade.ROWS, handmade.COLUMNS))


def numbers(seed: int = 0) -> np.ndarray:
    x = aligned(TENSOR)
    x[:] = np.random.default_rng(seed).standard_normal(x.shape)
    return x


@pytest.fixture
def network(made: Path) -> Executable:
    return load(made)


def refused(network: Executable, *given: object, out: dict[str, object] | None = None, **by_name: object) -> str:
    with pytest.raises(GraphPruneError) as caught:
        network(*given, out=out, **by_name)
    return str(caught.value)


def test_it_computes_what_it_should(network: Executable) -> None:
    x = numbers()
    for result in (network(x), network(x=x), network.session().run({"x": x}), network.session()(x)):
        assert set(result) == {"y", "calls"}
        assert np.array_equal(result["y"], handmade.expected(x))
    assert result["y"].dtype == np.float32 and result["calls"].dtype == np.int32


@pytest.mark.parametrize("variant", ["v1", "v3"])
def test_every_variant_runs(made: Path, variant: str) -> None:
    found = load(made, variant=variant)
    assert found.variant == variant
    assert np.array_equal(found(numbers())["y"], handmade.expected(numbers()))


def test_inputs_that_lie_askew_are_copied_and_right(network: Executable) -> None:
    x = numbers()
    memory = np.zeros(x.nbytes + 128, np.uint8)
    first = -memory.ctypes.data % 64 + 4
    shifted = memory[first : first + x.nbytes].view(np.float32).reshape(x.shape)
    shifted[:] = x
    wide = np.zeros((4, 12), np.float32)
    wide[:, ::2] = x
    for each in (shifted, wide[:, ::2], np.asfortranarray(x), x[::-1][::-1]):
        assert np.array_equal(network(each)["y"], handmade.expected(x))


def test_dlpack_is_taken(network: Executable) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(numbers())
    assert np.array_equal(network(x)["y"], handmade.expected(numbers()))
    assert "cannot be read" in refused(network, x.clone().requires_grad_())


def test_outputs_of_the_caller_are_written(network: Executable) -> None:
    x = numbers()
    y = aligned(TENSOR)
    result = network(x, out={"y": y})
    assert result["y"] is y and np.array_equal(y, handmade.expected(x))
    askew = np.zeros((4, 12), np.float32)[:, ::2]
    assert network(x, out={"y": askew})["y"] is askew
    assert np.array_equal(askew, handmade.expected(x))


def test_an_output_may_be_the_input(network: Executable) -> None:
    x = numbers()
    want = handmade.expected(x)
    assert np.array_equal(network(x, out={"y": x})["y"], want) and np.array_equal(x, want)


def test_results_of_earlier_calls_stay(network: Executable) -> None:
    session = network.session()
    first = session(numbers(1))["y"]
    session(numbers(2))
    assert np.array_equal(first, handmade.expected(numbers(1)))


def test_scratch_is_zero_at_first_and_of_one_session(network: Executable) -> None:
    one, two = network.session(), network.session()
    assert [int(one(numbers())["calls"][0]) for _ in range(3)] == [1, 2, 3]
    assert int(two(numbers())["calls"][0]) == 1


def test_wrong_inputs_are_refused(network: Executable) -> None:
    x = numbers()
    assert "there is no input 'z'" in refused(network, z=x)
    assert "the input 'x' is missing" in refused(network)
    assert "2 inputs were given, and there are 1" in refused(network, x, x)
    assert "'x' was given twice" in refused(network, x, x=x)
    assert "has the data type float64, not float32" in refused(network, x.astype(np.float64))
    assert "has the shape [4, 7], not [4, 6]" in refused(network, np.zeros((4, 7), np.float32))
    assert "is a list, not an array" in refused(network, x.tolist())
    assert "has the data type >f4" in refused(network, x.astype(">f4"))
    assert "there is no output 'z'" in refused(network, x, out={"z": x})
    frozen = aligned(TENSOR)
    frozen.flags.writeable = False
    assert "is read-only" in refused(network, x, out={"y": frozen})
    message = refused(network, x.astype(np.float64)).splitlines()
    assert message[0].startswith("GP512 ") and "x: float32[4, 6]" in message[1] and "astype" in message[2]
    assert np.array_equal(network(x)["y"], handmade.expected(x))


def test_threads_share_a_network(network: Executable) -> None:
    def many(seed: int) -> bool:
        x = numbers(seed)
        return all(np.array_equal(network(x)["y"], handmade.expected(x)) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(many, range(4)))


def test_a_session_serves_one_thread_at_a_time(network: Executable) -> None:
    session = network.session()
    session._busy.acquire()  # as a call of another thread does
    answers = []

    def call() -> None:
        try:
            session(numbers())
        except GraphPruneError as error:
            answers.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    session._busy.release()
    assert answers[0].startswith("GP513 this session is in use by another thread")
    assert np.array_equal(session(numbers())["y"], handmade.expected(numbers()))


# Fallbacks


@pytest.fixture
def stepping(compiler: None, tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    return handmade.artifact(tmp_path / "stepping.gp", handmade.network("v1", kind="stepping"))


def test_a_step_may_be_left_to_onnxruntime(stepping: Path) -> None:
    x = numbers()
    assert np.array_equal(load(stepping)(x)["y"], handmade.expected(2 * x))


def test_two_networks_with_one_id_keep_their_fallbacks(stepping: Path, tmp_path: Path) -> None:
    broken = replace(handmade.network("v1", kind="stepping"), fallbacks=(handmade.double(rows=3),))
    one, other = load(stepping), load(handmade.artifact(tmp_path / "other.gp", broken))
    x = numbers()
    for _ in range(2):
        with pytest.raises(GraphPruneError) as caught:
            other(x)
        assert caught.value.code == "GP513" and "a step that onnxruntime runs failed" in str(caught.value)
        assert np.array_equal(one(x)["y"], handmade.expected(2 * x))


def test_a_fallback_that_is_not_there_is_told(stepping: Path, tmp_path: Path) -> None:
    lost = handmade.artifact(tmp_path / "l.gp", replace(handmade.network("v1", kind="stepping"), fallbacks=()))
    with pytest.raises(GraphPruneError):
        load(lost)(numbers())


# What it takes to run


def test_loading_and_running_needs_no_compiler(made: Path) -> None:
    code = f"""
import sys
import numpy as np
from graphprune.runtime import load
network = load({str(made)!r})
assert network(np.ones((4, 6), np.float32))["y"].shape == (4, 6)
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    heavy = {"onnx", "onnx_ir", "onnxruntime", "torch", "tvm", "tvm_ffi", "networkx", "typer", "rich", "ml_dtypes"}
    assert set(done.stdout.split()) & (heavy | {"numpy"}) == {"numpy"}


def test_threads_are_those_that_were_asked_for(made: Path) -> None:
    code = f"""
import os, threading
import numpy as np
from graphprune.runtime import ffi, load
before = os.sched_getaffinity(0)
network = load({str(made)!r}, threads=3)
x = np.ones((4, 6), np.float32)
want = network(x)["y"]
print(len(os.listdir("/proc/self/task")), ffi.use_threads(3), ffi.use_threads(2), ffi.use_threads(3))
def elsewhere():
    assert np.array_equal(network(x)["y"], want)
    print(ffi.use_threads(3))
thread = threading.Thread(target=elsewhere); thread.start(); thread.join()
print(os.sched_getaffinity(0) == before, int(os.environ["TVM_NUM_THREADS"]) >= 2)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("counts threads in /proc")
    quick = {"TVM_THREAD_POOL_SPIN_COUNT": "0", "OPENBLAS_NUM_THREADS": "1"}  # NumPy has threads of its own
    assert python(code, **quick).stdout.split() == ["3", "3", "2", "3", "3", "True", "True"]
    limited = python(code, TVM_NUM_THREADS="2", **quick)
    assert limited.stdout.split() == ["2", "2", "2", "2", "2", "True", "True"], limited.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")
def test_a_forked_process_has_no_helpers(made: Path) -> None:
    """TVM would wait for ever for helpers that are only in the parent."""
    code = f"""
import os, sys, threading
import numpy as np
from graphprune.errors import GraphPruneError
from graphprune.runtime import load
network, x = load({str(made)!r}, threads=2), np.ones((4, 6), np.float32)
want = network(x)["y"]
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
for again in range(2):
    try:
        network(x)
    except GraphPruneError as error:
        print(error.code, flush=True)
    print(np.array_equal(load({str(made)!r}, threads=1)(x)["y"], want), flush=True)
thread = threading.Thread(target=lambda: print(np.array_equal(network(x)["y"], want), flush=True))
thread.start(); thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TVM_NUM_THREADS": "2"},
    )
    assert done.stdout.split() == ["GP513", "True"] * 2 + ["True"], done.stderr


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TVM_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
    )
