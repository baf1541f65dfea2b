"""Masks for the weights of a network: the format says what may be zero, the importance which, the scope how much where.

Deciding changes no weight; :func:`applied` makes the model with the zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Model
from graphprune.errors import BudgetNotMet, GraphPruneError, did_you_mean
from graphprune.formats import parse
from graphprune.formats.format import Array, Format
from graphprune.layers import Layer
from graphprune.sparsity.candidates import LeftDense, candidates
from graphprune.sparsity.importance import Importance, importance

Scope = Literal["uniform", "global"]
SCOPES = ("uniform", "global")


@dataclass(frozen=True, eq=False)
class LayerMask:
    """What is kept of the weights of one layer, ``[groups, outputs, taps, channels]``; each group has the format."""

    layer: Layer
    format: Format
    kept: Array

    @property
    def tensor(self) -> str:
        """The name of the stored tensor."""
        assert self.layer.stored is not None
        return self.layer.stored.name

    def mask(self) -> Array:
        """The same in the shape of the stored tensor."""
        return self.layer.from_cubes(self.kept)

    def weights(self) -> Array:
        """The stored tensor with positive zeros where the mask removes something, everything else bit by bit."""
        assert self.layer.stored is not None
        dense = self.layer.stored.read()
        return np.where(self.mask(), dense, np.zeros((), dense.dtype))


@dataclass(frozen=True, eq=False)
class Choice:
    """Masks for layers in running order, and the weights that are left dense with the reasons."""

    layers: tuple[LayerMask, ...]
    left: tuple[LeftDense, ...]


def choose(
    analysis: Analysis,
    format: str | Format,
    sparsity: float | None = None,
    *,
    criterion: Any = "l2",
    scope: str = "uniform",
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    seed: int = 0,
    calibration: Calibration | None = None,
) -> Choice:
    """Choose zeros; the arguments are those of :func:`graphprune.sparsity.run.sparsify`.

    Raises GraphPruneError: GP106 and GP107 for options, GP704 for the criterion, GP701 to GP703 for the data;
    BudgetNotMet GP302 where there is no layer that could have the format.
    """
    form = parse(format) if isinstance(format, str) else format
    _check(form, sparsity, scope)
    chosen, left = candidates(analysis, form, only, ignore)
    if not chosen:
        reasons = list(dict.fromkeys(f"{each.name}: {each.code} {each.reason}" for each in left))
        where = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
        raise BudgetNotMet("GP302", f"no layer can have the format {form}", where, "name layers with only, or another")
    worth = importance(analysis, chosen, criterion, calibration, seed)
    shares = _global(form, sparsity or 0.0, chosen, worth) if scope == "global" else {}
    found = []
    for layer in chosen:
        saliency = worth.of(layer)
        parts = [form.project(each, shares.get((layer, k), sparsity)) for k, each in enumerate(saliency)]
        found.append(LayerMask(layer, form, np.stack(parts)))
    return Choice(tuple(found), tuple(left))


def applied(analysis: Analysis, choice: Choice) -> Model:
    """A new model in which these weights are zero."""
    arrays = {each.tensor: each.weights() for each in choice.layers}
    return tools_of(analysis.program.native).with_stored(analysis.program, arrays)


def _check(form: Format, sparsity: float | None, scope: str) -> None:
    if scope not in SCOPES:
        raise GraphPruneError("GP106", f"there is no scope {scope!r}", "option scope", did_you_mean(scope, SCOPES))
    form.project(np.zeros((1, 16, 1)), sparsity)  # refuses a sparsity that the format cannot have
    if scope == "global" and form.gains(np.zeros((1, 16, 1))) is None:
        what = f"the format {form} has the same sparsity in every layer"
        raise GraphPruneError("GP107", what, "option scope", "take scope uniform, or another format")


def _global(
    form: Format, sparsity: float, chosen: Sequence[Layer], worth: Importance
) -> dict[tuple[Layer, int], float]:
    """The sparsity of each group of each layer with which the blocks (or what the format counts) of least importance
    for each of their entries go, wherever they are. Something is left of every layer."""
    items = [(layer, group) for layer in chosen for group in range(layer.shape[0])]
    gains: list[Array] = []
    sizes: list[float] = []
    for layer in chosen:
        for saliency in worth.of(layer):
            each = form.gains(saliency)
            assert each is not None, "the format was checked"
            size = saliency.size / len(each)
            gains.append((each / size).astype(np.float32))
            sizes.append(size)
    ranked = np.concatenate(gains)
    owner = np.repeat(np.arange(len(items)), [len(each) for each in gains])
    order = np.argsort(-ranked, kind="stable")
    entries = np.asarray(sizes)[owner[order]].cumsum()
    kept = order[entries <= (1 - sparsity) * entries[-1] + 0.5]
    counts = np.maximum(1, np.bincount(owner[kept], minlength=len(items)))
    return {item: 1 - count / len(each) for item, count, each in zip(items, counts.tolist(), gains, strict=True)}
