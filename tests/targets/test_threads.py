"""The helpers of a call work: time on the processor is theirs too, whatever TVM takes for the number of processors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tvm")

import graphprune as gp
from tests.targets.network.net import Net

ROOT = Path(__file__).parents[2]
RUN = """
import os, sys, time
import numpy as np
from graphprune.runtime import load
network = load(sys.argv[1], threads=int(sys.argv[2]))
x = np.ones((1, 256, 256), np.float32)
while time.process_time() < 2.5:
    network(x)
tasks = [open(f"/proc/self/task/{each}/stat").read() for each in os.listdir("/proc/self/task")]
fields = [each.rpartition(")")[2].split() for each in tasks]
ticks = [int(each[11]) + int(each[12]) for each in fields]
print(sum(ticks) - max(ticks))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir() or (os.cpu_count() or 1) < 2, reason="reads times from /proc")
def test_helpers_work(tmp_path: Path) -> None:
    net = Net()
    x = net.input(1, 256, 256)
    y = net.op("MatMul", net.op("Relu", net.op("MatMul", x, net.weight(256, 1024))), net.weight(1024, 256))
    built = gp.build(net.model(y), tmp_path / "model.gp", threads=2, variants=["v1"], verify=False)

    def helped(threads: int, **environment: str) -> int:
        """Ticks of a hundredth of a second that all threads but the busiest worked."""
        left = {name: value for name, value in os.environ.items() if name != "TVM_NUM_THREADS"}
        command = [sys.executable, "-c", RUN, str(built.path), str(threads)]
        settings = {**left, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "TVM_THREAD_POOL_SPIN_COUNT": "0"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**settings, **environment})
        return int(done.stdout)

    assert helped(2) >= 20
    assert helped(2, TVM_NUM_THREADS="1") < 20
