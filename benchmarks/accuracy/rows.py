"""Rows of options, run on one module and measured: what the tables of encoders and decoders share.

A cut is a share of the MACs that stays ("0.8"), so many residual blocks that go ("depth 2"), or a format with its
sparsity ("2:4", "unstructured 0.5"); a row is a set of options of `gp.prune` or `gp.sparsify`. Rows that draw at random
are run with three seeds. With a path, results are written as they come, and rows that the file already has are not run
again.
"""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measure import Stopwatch, note, table, write_json
from torch import Tensor, nn

import graphprune as gp
from graphprune.calibrate import Calibration

SEEDS = (0, 1, 2)
Options = Mapping[str, Any]


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("graphprune", "numpy", "torch")}}


def is_share(cut: str) -> bool:
    """Whether a cut is of whole structures: a share of the MACs.

    >>> is_share("0.8"), is_share("2:4")
    (True, False)
    """
    return cut.replace(".", "", 1).isdigit()


@dataclass
class Bench:
    """A network, what it is calibrated with, and how it is judged.

    judge: numbers by name; better: whether more of the first of them is better
    fixed: options of every cut of structures
    facts: what a reader of the numbers has to know: hashes of data, the recipe of the training
    """

    dense: nn.Module
    example: Tensor
    calibration: Calibration
    judge: Callable[[nn.Module], dict[str, float]]
    fixed: Options = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    path: str | None = None
    done: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.facts |= {"versions": versions(), "calibration": self.calibration.source}
        if self.path and Path(self.path).exists():
            self.done = json.loads(Path(self.path).read_text(encoding="utf-8"))["results"]["runs"]

    def run(self, name: str, cuts: Iterable[str], rows: Mapping[str, Options]) -> None:
        """Every row at every cut, with every seed."""
        for cut in cuts:
            for row, options in rows.items():
                if ":" in cut and "format" in options:
                    continue  # another format than that of the cut, and N:M is one already
                for seed in SEEDS if "random" in options.values() else SEEDS[:1]:
                    if not any((each["cut"], each["row"], each["seed"]) == (cut, row, seed) for each in self.done):
                        self.done.append({"cut": cut, "row": row, "seed": seed, **self.one(cut, options, seed)})
                        found = {key: value for key, value in self.done[-1].items() if key != "notes"}
                        note(" ".join(f"{key} {value}" for key, value in found.items()))
                        write_json(self.path, name, {**self.facts, "runs": self.done})

    def one(self, cut: str, options: Options, seed: int) -> dict[str, Any]:
        """One network, cut and judged."""
        watch, shared = Stopwatch(), {"calibration": self.calibration, "seed": seed}
        form, *share = cut.split()
        if is_share(cut) or form == "depth":
            how = {**self.fixed, "macs": float(cut)} if is_share(cut) else {"depth": int(share[0])}
            with watch("prune"):
                result = gp.prune(self.dense, self.example, **how, **options, **shared)
            dense, small = result.report.dense, result.report.pruned
            left = {"macs": small.macs / dense.macs, "parameters": small.parameters / dense.parameters}
        else:
            chosen = {"format": form, **options, **shared}
            sparsity = float(share[0]) if share else None
            with watch("prune"):
                result = gp.sparsify(self.dense, self.example, sparsity=sparsity, masks=False, **chosen)
            left = {"zeros": result.report.sparsity}
        with watch("judge"):
            found = self.judge(result.model)
        return {**left, **found, "seconds": watch.phases, "notes": list(result.report.notes)}

    def table(self, cuts: list[str], rows: Iterable[str], number: str, show: str = "{:.2f}") -> str:
        """A line for each row, columns for each cut: the mean of a number, of several seeds with the lowest and the
        highest."""
        lines = []
        for row in rows:
            cells = []
            for cut in cuts:
                here = [each[number] for each in self.done if (each["cut"], each["row"]) == (cut, row)]
                spread = f" ({show} to {show})".format(min(here), max(here)) if len(here) > 1 else ""
                cells.append(show.format(statistics.mean(here)) + spread if here else "")
            if any(cells):
                seconds = [each["seconds"]["prune"] for each in self.done if each["row"] == row and each["cut"] in cuts]
                lines.append((row, *cells, f"{statistics.median(seconds):.0f}"))
        heads = [f"{float(cut):.0%} of MACs" if is_share(cut) else cut for cut in cuts]
        return table(("criterion + recovery", *heads, "seconds"), lines)


def stream(model: nn.Module, example: Tensor) -> str:
    """The name of the residual stream: the group that most tensors belong to."""
    return max(gp.analyze(model, example).groups, key=lambda group: len(group.members)).name
