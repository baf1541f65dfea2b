"""Who loses: the drop of each class, or of each group of samples, beside that of all others.

Pruning does not harm all classes alike (Tran et al., "Pruning has a disparate impact on model accuracy", NeurIPS 2022),
and rare ones more than frequent ones (Paganini, "Prune Responsibly", 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphprune.program import Array

Right = NDArray[np.bool_]
"""Whether each sample is answered rightly."""

FEWEST = 10
"""Of fewer samples nothing is concluded."""
_CHANCE = 0.05
"""How often one group or more is said to lose more than the others where none does."""


@dataclass(frozen=True)
class Harm:
    """One group.

    dense, pruned: the share of its samples that is answered rightly
    error:         the standard error of the drop, over samples
    excess:        how much more it loses than all other samples do
    more:          whether that is more than chance
    """

    name: str
    count: int
    dense: float
    pruned: float
    error: float
    excess: float
    more: bool

    @property
    def drop(self) -> float:
        """How much of it is lost."""
        return self.dense - self.pruned


def harms(names: Array, dense: Right, pruned: Right) -> tuple[Harm, ...]:
    """What each group of samples loses, the largest drop first.

    names: of the group of each sample, ``[samples]``

    The drop of a group is held against that of all other samples. Where groups make no difference, they are as good as
    drawn, so that the difference of the two means has the deviation ``s sqrt(1/n + 1/m)``, s being that of all samples.
    Chances are one-sided, taken from the normal distribution, and corrected for the number of groups (Holm, 1979).

    >>> right, wrong = np.ones(40, bool), np.array([True] * 30 + [False] * 10)
    >>> [(each.name, each.drop, each.more) for each in harms(np.array(["a"] * 30 + ["b"] * 10), right, wrong)]
    [('b', 1.0, True), ('a', 0.0, False)]
    """
    loss = dense.astype(np.float64) - pruned
    deviation = float(loss.std())
    found, chances = [], []
    for name in np.unique(names):
        inside = names == name
        count, rest = int(inside.sum()), int((~inside).sum())
        excess = float(loss[inside].mean() - loss[~inside].mean()) if rest else 0.0
        spread = deviation * math.sqrt(1 / count + 1 / rest) if rest else 0.0
        enough = min(count, rest) >= FEWEST and spread > 0
        chances.append(math.erfc(excess / spread / math.sqrt(2)) / 2 if enough else 1.0)
        error = float(loss[inside].std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
        share = (float(dense[inside].mean()), float(pruned[inside].mean()))
        found.append((str(name), count, *share, error, excess))
    told = [Harm(*each, more) for each, more in zip(found, _beyond_chance(chances), strict=True)]
    return tuple(sorted(told, key=lambda each: -each.drop))


def _beyond_chance(chances: Sequence[float]) -> list[bool]:
    """Holm: the smallest chance is held against the limit divided by all, the next by one fewer, until one fails."""
    found = [False] * len(chances)
    for place, k in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        if chances[k] * (len(chances) - place) > _CHANCE:
            break
        found[k] = True
    return found


@dataclass(frozen=True)
class Slope:
    """How much more a class loses that is half as frequent, and the standard error of that."""

    value: float
    error: float


def slope(harms: Sequence[Harm]) -> Slope | None:
    """The regression of drops on the logarithm of sizes, weighted by sizes; None where sizes do not differ by two, or
    for fewer than three groups."""
    sizes = np.array([each.count for each in harms], np.float64)
    if len(sizes) < 3 or sizes.max() < 2 * sizes.min():
        return None
    rarity, drops = -np.log2(sizes), np.array([each.drop for each in harms])
    weights = sizes / sizes.sum()
    centred = rarity - weights @ rarity
    spread = float(weights @ centred**2)
    value = float(weights @ (centred * drops)) / spread
    left = drops - weights @ drops - value * centred
    error = math.sqrt(float(weights @ left**2) / (len(sizes) - 2) / spread)
    return Slope(value, error)
