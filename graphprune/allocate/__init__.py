"""Scores and costs and a budget make keep-sets.

A *ranking* is a row: in which order entries go. Every ranking gives a family of nested cuts, and the budget picks the
first of them that meets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphprune.analysis import Group
from graphprune.program import Array

Scores = Sequence[Array]
Ranking = Callable[[Sequence[Group], Scores], list[Array]]


def _rank(scores: Array) -> Array:
    """0 for the lowest score; equal scores in order of their entries."""
    rank = np.empty(len(scores), np.int64)
    rank[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return rank


def overall(groups: Sequence[Group], scores: Scores) -> list[Array]:
    """All entries of all groups compete with their scores."""
    return [each.copy() for each in scores]


def uniform(groups: Sequence[Group], scores: Scores) -> list[Array]:
    """Each group by itself: all lose the same share."""
    return [(_rank(each) + 1) / len(each) for each in scores]


def isomorphic(groups: Sequence[Group], scores: Scores) -> list[Array]:
    """Groups of one structure compete with each other, and every structure loses the same share (Fang et al. 2024,
    "Isomorphic Pruning for Vision Models"). Structure: how many tensors of which rank make and read the entries."""
    classes: dict[object, list[int]] = {}
    for place, group in enumerate(groups):
        shape = (group.kind, tuple(sorted((m.role, m.axis, len(m.path)) for m in group.members)))
        classes.setdefault(shape, []).append(place)
    keys: list[Array] = [np.empty(0)] * len(groups)
    for places in classes.values():
        together = np.concatenate([scores[place] for place in places])
        shares = np.split((_rank(together) + 1) / len(together), np.cumsum([len(scores[p]) for p in places])[:-1])
        for place, share in zip(places, shares, strict=True):
            keys[place] = share
    return keys


RANKINGS: dict[str, Ranking] = {"global": overall, "uniform": uniform, "isomorphic": isomorphic}
