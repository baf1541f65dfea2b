"""graphprune beside other tools for structural pruning: onnxsim (ONNX to ONNX) and Torch-Pruning (torch modules).

    python benchmarks/peers.py FOLDER [--environments FOLDER] [--rounds N] [--json PATH]

Each peer is installed by pip into a virtual environment of its own and runs as a process of its own; a peer that cannot
be installed is left out with a message. FOLDER holds ONNX files. See README.md for what the columns mean.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import onnx_ir as ir
from analysis import analysis_times
from measure import interleaved, machine, milliseconds, note, spread, table, write_json
from planted import compared, plant

import graphprune as gp
from graphprune.cost import measure
from graphprune.errors import GraphPruneError

HERE = Path(__file__).parent
PEERS = {
    "onnxsim": ("onnxsim", "onnxruntime"),
    "torch-pruning": ("torch==2.13.0", "torch-pruning", "onnx", "onnxscript"),
}
SHARES = (0.5, 0.9)
GOAL = 0.6


def environment(folder: Path, peer: str) -> Path | None:
    """The Python of a peer's environment, made where it does not exist; None where the peer cannot be installed."""
    place = folder / peer
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        note(f"installing {peer}")
        venv.create(place, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", *PEERS[peer]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        note(f"{peer} cannot be installed and is left out: {last}")
        return None
    return python


def asked(command: list[str]) -> dict[str, Any]:
    """What a peer's script answers in its last line of output; ``ok`` is false where it crashed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except subprocess.TimeoutExpired:
        return {"ok": False, "note": "still running after 10 minutes"}
    if done.returncode:
        return {"ok": False, "note": f"exit code {done.returncode}: {done.stderr.strip()[-200:]}"}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def macs_of(model: Any) -> int:
    """Multiply-accumulates by our count, for the results of all tools."""
    return measure(gp.analyze(model), {}).macs


def peer_pruned(python: Path, source: Path, folder: Path, share: float) -> tuple[Any, Any, str]:
    """What onnxsim makes of a file, the simplified and the pruned model, or None twice and why not."""
    simplified, pruned = folder / f"{source.stem}.simplified.onnx", folder / f"{source.stem}.{share}.onnx"
    script = str(HERE / "peer_onnxsim.py")
    answer = asked([str(python), script, str(source), str(simplified), str(pruned), str(share)])
    return (gp.load(simplified), gp.load(pruned), "") if answer["ok"] else (None, None, answer["note"])


def peer_row(python: Path, source: Path, planted: Path, folder: Path) -> dict[str, Any]:
    """Shares of the MACs that onnxsim leaves, and what the planted channels say of its result."""
    found: dict[str, Any] = {}
    for share in SHARES:
        simplified, pruned, why = peer_pruned(python, source, folder, share)
        try:
            found[str(share)] = why or macs_of(pruned) / macs_of(simplified)
        except GraphPruneError as error:
            found[str(share)] = f"cannot be read: {error.code}"
    _, pruned, why = peer_pruned(python, planted, folder, SHARES[0])
    if found[str(SHARES[0])] == 1:
        found["planted"] = "nothing cut"
    else:
        found["planted"] = why or compared(gp.load(planted), pruned)
    lowest = found[str(SHARES[-1])]
    found["goal"] = isinstance(lowest, float) and lowest <= GOAL
    return found


def our_row(source: Path, planted: Path, inexact: list[str]) -> dict[str, Any]:
    """The same for graphprune, and whether its own oracles hold for the network pruned to the goal."""
    found: dict[str, Any] = {}
    analysis = gp.analyze(gp.load(source))
    dense = measure(analysis, {}).macs
    for share in SHARES:
        found[str(share)] = _left(analysis, dense, share)
    found["planted"] = _planted(planted, "l2", inexact)
    found["control"] = _planted(planted, "random", inexact)
    try:
        result = gp.prune(gp.load(source), macs=GOAL)
        found["goal"], found["oracles"] = macs_of(result.model) <= GOAL * dense, bool(result.verification.ok)
    except GraphPruneError as error:
        found["goal"], found["oracles"] = False, error.code
    return found


def _planted(path: Path, criterion: str, inexact: list[str]) -> str:
    model = gp.load(path)
    try:
        options = {"ratio": SHARES[0], "allocate": "uniform", "criterion": criterion, "ignore": inexact}
        result = gp.prune(model, verify=False, **options)
    except GraphPruneError as error:
        return error.code
    return compared(model, result.model)


def _left(analysis: Any, dense: int, share: float) -> float | str:
    try:
        return macs_of(gp.apply(analysis, gp.plan(analysis, ratio=share, allocate="uniform"))) / dense
    except GraphPruneError as error:
        return error.code


def against_onnxsim(python: Path, sources: list[Path], folder: Path) -> dict[str, Any]:
    results = {}
    for source in sources:
        note(source.name)
        model, inexact = plant(str(source))
        planted = folder / f"{source.stem}.planted.onnx"
        ir.save(model, planted)
        peer, ours = peer_row(python, source, planted, folder), our_row(source, planted, inexact)
        results[source.stem] = {"statistics": bool(inexact), "onnxsim": peer, "graphprune": ours}
    return results


def onnxsim_table(results: dict[str, Any]) -> str:
    head = ["file"]
    head += [f"{tool} {share:.0%}" for share in SHARES for tool in ("onnxsim", "ours")]
    head += [f"{what} {tool}" for what in (f"to {GOAL:.0%}", "planted") for tool in ("onnxsim", "ours")]
    head += ["control", "oracles"]
    rows = []
    for name, row in results.items():
        peer, ours = row["onnxsim"], row["graphprune"]
        cells: list[object] = [name + (" *" if row["statistics"] else "")]
        cells += [_share(tool[str(share)]) for share in SHARES for tool in (peer, ours)]
        cells += ["yes" if tool["goal"] else "no" for tool in (peer, ours)]
        cells += [
            peer["planted"],
            ours["planted"],
            ours["control"],
            "ok" if ours["oracles"] is True else ours["oracles"],
        ]
        rows.append(cells)
    return table(head, rows)


def _share(left: float | str) -> str:
    return f"{left:.0%}" if isinstance(left, float) else left[:24]


def against_torch_pruning(python: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Times of the dependency graph and of our analysis for the same modules, ours from the exported files."""
    script = str(HERE / "peer_torch_pruning.py")
    peer = asked([str(python), "-W", "ignore", script, str(folder), str(rounds)])
    if peer.get("ok") is False:
        note(f"torch-pruning is left out: {peer['note']}")
        return {}
    results = {}
    for name, theirs in peer.items():
        model = gp.load(folder / f"{name}.onnx")
        ours = interleaved({name: functools.partial(analysis_times, model)}, rounds)[name]
        together = [build + groups for build, groups in zip(theirs["build"], theirs["groups"], strict=True)]
        results[name] = {
            "torch-pruning": {"graph and groups": spread(together), "build": spread(theirs["build"])},
            "peer groups": theirs["count"],
            "peer at half": theirs["pruned"],
            "graphprune": ours,
            "our groups": len(gp.analyze(model).groups),
        }
    return results


def torch_table(results: dict[str, Any]) -> str:
    head = (
        "module",
        "build",
        "build and list",
        "noise",
        "groups",
        "half",
        "convert",
        "ours",
        "noise",
        "groups",
        "ratio",
    )
    rows = []
    for name, row in results.items():
        peer, ours = row["torch-pruning"]["graph and groups"], row["graphprune"]
        total = ours["convert"].median + ours["analysis"].median
        cells: list[object] = [name, milliseconds(row["torch-pruning"]["build"].median), milliseconds(peer.median)]
        cells += [f"{peer.noise:.0%}", row["peer groups"], row["peer at half"], milliseconds(ours["convert"].median)]
        cells += [milliseconds(ours["analysis"].median), f"{ours['analysis'].noise:.0%}", row["our groups"]]
        rows.append([*cells, f"{peer.median / total:.1f}"])
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare with other tools.")
    parser.add_argument("folder", type=Path, help="a folder of ONNX files")
    parser.add_argument("--environments", type=Path, help="where the peers are installed, and stay; else nothing stays")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environments = given.environments or folder / "environments"
        if (python := environment(environments, "onnxsim")) is not None:
            results["onnxsim"] = against_onnxsim(python, sorted(given.folder.glob("*.onnx")), folder)
            print(onnxsim_table(results["onnxsim"]), end="\n\n")
        if (python := environment(environments, "torch-pruning")) is not None:
            results["torch-pruning"] = against_torch_pruning(python, folder, given.rounds)
            print(torch_table(results["torch-pruning"]))
    write_json(given.json, "peers", results)


if __name__ == "__main__":
    main()
