"""The same model and options give the same bytes: in every process, with every hash seed, whatever the order of a set.

Sets and dictionaries of objects are iterated in the order of their hashes, which PYTHONHASHSEED changes for texts and
the place in memory for all else. What a run says about itself is therefore compared across processes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "super_resolution.onnx"
NAMES = ("dense_block", "heads_through_reshape", "branches", "fused_qkv_slices", "stacked_bidirectional_lstm")
SEEDS = ("0", "1", "4242")

# Prunes every model it is told of in two ways, and prints a digest of each plan, report and file.
_PRUNE = """
import hashlib, json, sys
import onnx_ir as ir
from pathlib import Path
from graphprune import api
from tests.models import CASES

def told(what, data):
    print(what, hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest())

out, order, *names = sys.argv[1:]
padding = [object() for _ in range(int(order) * 1000)]  # so that objects lie elsewhere in memory
for name in names:
    path = Path(name)
    if path.suffix != ".onnx":
        path = Path(out) / f"{name}.in.onnx"
        path.write_bytes(CASES[name].build().SerializeToString(deterministic=True))
    analysis = api.analyze(api.load(path))
    told(f"{name} groups", repr([(group.name, group.members) for group in analysis.groups]))
    told(f"{name} refusals", repr([(r.tensor, r.axis, r.code, r.where, r.reason) for r in analysis.refusals]))
    for ratio, criterion in ((0.3, "l2"), (0.5, "random")):
        plan = api.plan(analysis, ratio=ratio, criterion=criterion)
        told(f"{name} {criterion} plan", plan.to_json())
        small = Path(out) / f"{path.stem}.{criterion}.onnx"
        api.save(api.apply(analysis, plan), small)
        told(f"{name} {criterion} file", small.read_bytes())
    cost = json.dumps(api.report_of(analysis, plan.keep(analysis)).to_dict(), default=str)
    told(f"{name} report", cost.replace(out, ""))
"""


def run(script: str, *arguments: str, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What each process said; the folders it wrote to have different names."""
    yield [
        run(_PRUNE, str(tmp_path_factory.mktemp("out")), str(place), *NAMES, str(EXAMPLE), hash_seed=seed)
        for place, seed in enumerate(SEEDS)
    ]


def test_every_process_gives_the_same_bytes(runs: list[str]) -> None:
    assert len(runs[0].splitlines()) == 7 * (len(NAMES) + 1)
    first, *others = (dict(line.rsplit(" ", 1) for line in each.splitlines()) for each in runs)
    for other in others:
        assert [what for what in first if first[what] != other[what]] == []


def test_the_order_of_the_models_does_not_matter(runs: list[str], tmp_path: Path) -> None:
    """Nothing is remembered from one model to the next: no counter, no cache that shows."""
    again = run(_PRUNE, str(tmp_path), "0", str(EXAMPLE), *reversed(NAMES), hash_seed="0")
    assert sorted(again.splitlines()) == sorted(runs[0].splitlines())


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """The same walk, taking the groups in the order of the hashes of their names, as a set of names would give them."""
    careless = _PRUNE.replace("in analysis.groups]", "in sorted(analysis.groups, key=lambda group: hash(group.name))]")
    assert careless != _PRUNE
    outcomes = {run(careless, str(tmp_path), "0", "dense_block", hash_seed=seed) for seed in SEEDS}
    assert len(outcomes) > 1


def test_the_random_criterion_depends_on_the_seed_alone() -> None:
    from graphprune import api

    model = api.load(EXAMPLE)
    plans = [api.plan(model, ratio=0.5, criterion="random", seed=seed).to_json() for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


def test_the_command_line_writes_the_same_files(tmp_path: Path) -> None:
    """Also verified: verification must not leave traces in what is written."""
    digests = []
    for seed in SEEDS[:2]:
        folder = tmp_path / seed
        folder.mkdir()
        command = [
            sys.executable,
            "-m",
            "graphprune",
            "prune",
            str(EXAMPLE),
            str(folder / "small.onnx"),
            "--macs",
            "0.6",
        ]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True)
        digests.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
    assert digests[0] == digests[1]
    assert set(digests[0]) == {"small.onnx", "small.plan.json"}
