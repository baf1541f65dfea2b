"""Masks for the weights of a network: the format says what may be zero, the importance which, the allocation how much
where.

Deciding changes no weight; :func:`applied` makes the model with the zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Model
from graphprune.errors import BudgetNotMet
from graphprune.formats import parse
from graphprune.formats.format import Array, Format
from graphprune.layers import Layer
from graphprune.sparsity import allocate as allocation
from graphprune.sparsity.candidates import LeftDense, candidates
from graphprune.sparsity.importance import Importance, importance


@dataclass(frozen=True, eq=False)
class LayerMask:
    """What is kept of the weights of one layer, ``[groups, outputs, taps, channels]``; each group has the format.

    numbers: new weights, in the shape of the stored tensor; None where they are the dense ones
    shares:  the sparsity that each group was asked to have; None where the format fixes it
    """

    layer: Layer
    format: Format
    kept: Array
    numbers: Array | None = None
    shares: tuple[float | None, ...] = ()

    @property
    def tensor(self) -> str:
        """The name of the stored tensor."""
        assert self.layer.stored is not None
        return self.layer.stored.name

    def mask(self) -> Array:
        """The same in the shape of the stored tensor."""
        return self.layer.from_cubes(self.kept)

    def weights(self) -> Array:
        """The stored tensor, or the new numbers, bit by bit, with positive zeros where the mask removes something."""
        assert self.layer.stored is not None
        full = self.layer.stored.read() if self.numbers is None else self.numbers
        return np.where(self.mask(), full, np.zeros((), full.dtype))


@dataclass(frozen=True, eq=False)
class Choice:
    """Masks for layers in running order, and the weights that are left dense with the reasons.

    search: whether what recovers the weights may choose the zeros anew as it goes
    others: new numbers for other stored tensors, by name
    notes:  what to tell about the numbers
    """

    layers: tuple[LayerMask, ...]
    left: tuple[LeftDense, ...]
    search: bool = False
    others: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def choose(
    analysis: Analysis,
    format: str | Format,
    sparsity: float | None = None,
    *,
    criterion: Any = "l2",
    allocate: str = "uniform",
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    seed: int = 0,
    calibration: Calibration | None = None,
) -> Choice:
    """Choose zeros; the arguments are those of :func:`graphprune.sparsity.run.sparsify`.

    Raises GraphPruneError: GP106 and GP107 for options, GP704 for the criterion, GP701 to GP703 for the data;
    BudgetNotMet GP302 where there is no layer that could have the format.
    """
    asked = {"criterion": criterion, "allocate": allocate, "only": only, "ignore": ignore}
    scored = score(analysis, format, sparsity, **asked, seed=seed, calibration=calibration)
    found = [
        LayerMask(layer, scored.format, np.stack(scored.masks(layer)), shares=scored.shares_of(layer))
        for layer in scored.layers
    ]
    return Choice(tuple(found), scored.left, search=scored.worth.name == "obs")


@dataclass(frozen=True, eq=False)
class Scored:
    """What masks are chosen from: the layers that get zeros, what their weights are worth, and the sparsity of each of
    their groups where the format does not fix it."""

    format: Format
    layers: tuple[Layer, ...]
    left: tuple[LeftDense, ...]
    worth: Importance
    shares: allocation.Shares

    def shares_of(self, layer: Layer) -> tuple[float | None, ...]:
        """The sparsity of each group of a layer."""
        return tuple(self.shares.get((layer, group)) for group in range(layer.shape[0]))

    def masks(self, layer: Layer, worth: Array | None = None) -> list[Array]:
        """For each group of a layer the mask that keeps the most of what its weights (or these) are worth."""
        cubes = self.worth.of(layer) if worth is None else worth
        return [self.format.project(each, share) for each, share in zip(cubes, self.shares_of(layer), strict=True)]


def score(
    analysis: Analysis,
    format: str | Format,
    sparsity: float | None = None,
    *,
    criterion: Any = "l2",
    allocate: str = "uniform",
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    seed: int = 0,
    calibration: Calibration | None = None,
) -> Scored:
    """What :func:`choose` chooses from; the same arguments and errors."""
    form = parse(format) if isinstance(format, str) else format
    allocation.check(allocate, form, sparsity)
    chosen, left = candidates(analysis, form, only, ignore)
    if not chosen:
        reasons = list(dict.fromkeys(f"{each.name}: {each.code} {each.reason}" for each in left))
        where = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
        where = where or "no operator that is known multiplies by stored weights"
        remedy = "choose another format, or other layers" if left else "graphprune inspect lists what is kept, and why"
        raise BudgetNotMet("GP302", f"no layer can have the format {form}", where, remedy)
    worth = importance(analysis, chosen, criterion, calibration, seed, form.needs.inputs)
    shares = {} if sparsity is None else allocation.shares(allocate, form, sparsity, chosen, worth)
    return Scored(form, tuple(chosen), tuple(left), worth, shares)


def applied(analysis: Analysis, choice: Choice) -> Model:
    """A new model in which these weights are zero, and others are what the choice says."""
    arrays = {**choice.others, **{each.tensor: each.weights() for each in choice.layers}}
    return tools_of(analysis.program.native).with_stored(analysis.program, arrays)
