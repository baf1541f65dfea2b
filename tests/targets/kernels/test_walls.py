"""Nothing is touched outside of the arrays: they lie against memory that ends the process when it is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tvm")

from tests.targets.kernels.walls import BROKEN

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect and signals as Linux has them")


def walls(*names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.targets.kernels.walls", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_every_kernel_keeps_inside() -> None:
    done = walls()
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()[-5:]
    assert done.stdout.splitlines()[-1] == "all kept inside"


@pytest.mark.parametrize("name", BROKEN)
def test_the_walls_are_there(name: str) -> None:
    done = walls(name)
    assert done.returncode in {-signal.SIGSEGV, -signal.SIGBUS}
    where = "at the beginning" if name == "reads one before" else "at the end"
    assert done.stdout.splitlines()[-1].endswith(f"{name} {where}")
