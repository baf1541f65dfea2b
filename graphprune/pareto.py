"""A sweep as a picture: what is left of the multiply-accumulates, and what outputs lose; the lower left is better."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import numpy as np

from graphprune.errors import GraphPruneError
from graphprune.output import Outputs
from graphprune.sweep_text import Mean, Sweep

_CONTROLS = frozenset({"random", "l1"})
_STYLES = ("-", "--", ":", "-.")


def check_drawing(path: str | os.PathLike[str]) -> None:
    """Find out early what would go wrong. Raises GraphPruneError: GP107 for the name, GP108 without matplotlib."""
    if not os.fspath(path).lower().endswith(".png"):
        raise GraphPruneError("GP107", "the picture of a sweep is a .png", os.fspath(path), "name it so")
    if find_spec("matplotlib") is None:
        raise GraphPruneError("GP108", "drawing needs matplotlib", "", "pip install 'graphprune[report]'")


def draw(sweep: Sweep, path: str | os.PathLike[str]) -> None:
    """Draw all means of a sweep, with the spread over seeds; controls are grey. Raises GraphPruneError GP105, and as
    :func:`check_drawing` does."""
    check_drawing(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[tuple[str, str], list[Mean]] = {}
    for each in sweep.means():
        if not each.failure and np.isfinite(each.error) and each.error > 0:
            lines.setdefault((each.criterion, each.recover), []).append(each)
    ways = list(dict.fromkeys(recover for _, recover in lines))
    names = [name for name in dict.fromkeys(name for name, _ in lines) if name not in _CONTROLS]
    for (name, recover), means in sorted(lines.items()):
        means = sorted(means, key=lambda each: each.macs)
        grey = "0.35" if name == "l1" else "0.65"
        _line(axes, means, {
            "label": name if recover == "none" else f"{name}, {recover}",
            "color": grey if name in _CONTROLS else f"C{names.index(name) % 10}",
            "linestyle": _STYLES[ways.index(recover) % len(_STYLES)],
        })  # fmt: skip
    axes.set(yscale="log", xlabel="multiply-accumulates left", ylabel="relative mean squared error of the outputs")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize="small")
    with Outputs(path) as outputs:
        figure.savefig(outputs.path(outputs.destination.name), dpi=150, format="png")
        outputs.commit([outputs.destination.name])


def _line(axes: Any, means: list[Mean], style: dict[str, Any]) -> None:
    macs, errors = np.array([each.macs for each in means]), np.array([each.error for each in means])
    spread = np.nan_to_num([each.spread for each in means])
    axes.plot(macs, errors, marker="o", markersize=3, **style)
    if spread.any():
        axes.fill_between(
            macs, np.maximum(errors - spread, errors / 10), errors + spread, color=style["color"], alpha=0.15
        )
