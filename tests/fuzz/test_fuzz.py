"""300 broken models through the library in this process, 20 through the command line; see tests/fuzz/__init__.py."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphprune import api

from .harness import TooSlow, answer, limit_memory, listing, place, time_limit
from .mutations import BYTES, MESSAGE, Broken, Sources, mutated

SEED = 20261121
SOURCES = Sources()


@pytest.mark.parametrize("number", range(300))
def test_a_broken_model_gets_an_answer(number: int, tmp_path: Path) -> None:
    text = answer(tmp_path, SOURCES.case(number, SEED))
    assert not text.startswith("defect"), f"{text}\npython -m tests.fuzz --seed {SEED} --first {number} --count 1"


COMMANDS = (
    ("prune", "--ratio", "0.4"),
    ("prune", "--macs", "0.7", "--json"),
    ("clean",),
    ("inspect", "--json"),
)


@pytest.mark.parametrize("number", range(20))
def test_the_command_line(number: int, tmp_path: Path) -> None:
    """Exit code 0, 1 or 2, no traceback, no hang, no file but the output, and that whole or not at all."""
    case = SOURCES.case(1000 + number, SEED)
    path = place(tmp_path, case)
    before = listing(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    name, *options = COMMANDS[number % len(COMMANDS)]
    targets = [] if name == "inspect" else [str(out / "small.onnx")]
    command = [sys.executable, "-m", "graphprune", name, str(path), *targets, *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=out, check=False, preexec_fn=_limited
    )
    assert done.returncode in {0, 1, 2}, f"{case.name}: {done.returncode} {done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr, case.name
    assert done.returncode == 0 or done.stderr.startswith("GP"), done.stderr
    assert all(line.isprintable() for line in (done.stdout + done.stderr).splitlines()), case.name
    kept = [] if name == "inspect" or done.returncode else ["out/small.onnx", "out/small.plan.json"]
    assert [name for name in listing(tmp_path) if name not in before and name != "out"] == kept
    assert (tmp_path / "secret").read_bytes() == b"secret" * 1000


def _limited() -> None:
    limit_memory(16 * 2**30)
    os.environ["OMP_NUM_THREADS"] = "1"


# The fuzzer itself


@pytest.mark.parametrize("kind", sorted(MESSAGE))
def test_every_mutation_changes_some_model(kind: str) -> None:
    rng = random.Random(kind)
    sources = rng.sample(SOURCES.models, len(SOURCES.models))
    assert any(mutated(rng, name, data, [kind]).content != data for name, data in sources)


@pytest.mark.parametrize("kind", sorted(BYTES))
def test_every_mutation_of_bytes_changes_some_model(kind: str) -> None:
    data = SOURCES.models[0][1]
    assert BYTES[kind](random.Random(kind), data, SOURCES.models[1][1]) != data


def test_a_number_and_a_seed_are_always_the_same_case() -> None:
    script = (
        "from tests.fuzz.mutations import Sources; import hashlib; s = Sources();"
        "print(hashlib.sha256(b''.join(s.case(k, 1).content for k in range(40))).hexdigest())"
    )
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("error", [KeyError, RecursionError, MemoryError, TypeError, AttributeError, TooSlow])
def test_what_escapes_is_a_defect(error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> object:
        raise error("on purpose")

    monkeypatch.setattr(api, "load", fail)
    assert answer(tmp_path, Broken("any", b"any")).startswith(f"defect {error.__name__}: ")


def test_files_left_behind_are_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def litter(path: Path) -> object:
        path.with_suffix(".tmp").touch()
        return load(path)

    load = api.load
    monkeypatch.setattr(api, "load", litter)
    assert answer(tmp_path, Broken("any", b"any")).startswith("defect files: ['model/model.tmp'] after GP102")


def test_the_time_limit_is_one() -> None:
    with pytest.raises(TooSlow), time_limit(0.05):
        for _ in range(10**9):
            pass


def test_waiting_for_the_machine_is_not_counted() -> None:
    begun = time.monotonic()
    with time_limit(0.05):
        time.sleep(0.2)
    assert time.monotonic() - begun >= 0.2
