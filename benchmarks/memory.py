"""Peak memory of pruning a model whose weights (4.4 GB) lie in external data, relative to the size of the weights.

    python benchmarks/memory.py [--layers 8] [--macs 0.6] [--json PATH]

Each criterion runs in a process of its own, `python -m graphprune prune ... --no-verify`; its peak is what the kernel
counted for the child (`ru_maxrss`), which includes pages of mapped files while they are in memory. `private` is the
most that was not backed by a file, sampled every 20 ms: what the process needs when memory is short. The model and
the results are written to a temporary folder (10 GB at the defaults) and deleted afterwards.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import models
from measure import machine, note, table, write_json

GOAL = 1.3
_SAMPLE_SECONDS = 0.02
_ROOM = 2.5
"""Free disk needed, as a multiple of the weights."""


def private_bytes(process: int) -> int:
    """Resident memory of a process that no file backs; 0 where the system does not tell (only Linux does)."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def run(source: Path, target: Path, criterion: str, macs: float) -> dict[str, float]:
    """Prune in a child process: seconds, peak resident bytes and peak private bytes."""
    command = [sys.executable, "-m", "graphprune", "prune", str(source), str(target), "--macs", str(macs)]
    command += ["--criterion", criterion, "--no-verify", "--quiet"]
    start, private = time.perf_counter(), 0
    child = subprocess.Popen(command)
    while True:
        done, status, usage = os.wait4(child.pid, os.WNOHANG)
        if done:
            break
        private = max(private, private_bytes(child.pid))
        time.sleep(_SAMPLE_SECONDS)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"graphprune ended with exit code {child.returncode}")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": time.perf_counter() - start, "peak": usage.ru_maxrss * unit, "private": private}


def pruned_bytes(target: Path) -> int:
    return sum(path.stat().st_size for path in target.parent.glob(f"{target.name}*"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the peak memory of pruning a large model.")
    parser.add_argument("--layers", type=int, default=8, help="of 537 MB each")
    parser.add_argument("--macs", type=float, default=0.6)
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    rows, results = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = given.layers * 2 * 4 * 4096 * 4096 * 4
        if shutil.disk_usage(folder).free < _ROOM * expected:
            raise SystemExit(f"the temporary folder has less than {_ROOM * expected / 1e9:.0f} GB free (TMPDIR)")
        source = folder / "wide.onnx"
        weights = models.write_wide(source, given.layers)
        note(f"wrote {weights / 1e9:.2f} GB")
        for criterion in ("l2", "random"):
            target = folder / "out" / "small.onnx"
            target.parent.mkdir()
            found = run(source, target, criterion, given.macs)
            ratio, private = found["peak"] / weights, found["private"] / weights
            output = pruned_bytes(target) / weights
            rows.append((criterion, f"{weights / 1e9:.2f}", f"{found['peak'] / 1e9:.2f}", f"{ratio:.2f}"))
            rows[-1] += (f"{private:.2f}", f"{output:.2f}", f"{found['seconds']:.0f}")
            results[criterion] = {**found, "weights": weights, "ratio": ratio, "output": output}
            shutil.rmtree(target.parent)
    head = ("criterion", "weights GB", "peak GB", "peak / weights", "private / weights", "output / weights", "seconds")
    print(table(head, rows))
    worst = max(found["ratio"] for found in results.values())
    print(f"\nthe goal of {GOAL} times the weights is {'met' if worst < GOAL else 'NOT met'}")
    write_json(given.json, "memory", results)


if __name__ == "__main__":
    main()
