"""Scores, cost and a budget -> what to keep.

A ranking puts groups into classes that compete (:data:`RANKINGS`). Within a class entries go in the order of their
scores, and all classes lose the same share at the same time, so a ranking is a family of nested cuts with one
parameter, the share; :mod:`graphprune.allocate.budget` finds the smallest share that meets a budget.
:mod:`graphprune.allocate.bounds` says how far each group may go.
"""

from __future__ import annotations

from graphprune.registry import Registry

RANKINGS = Registry(
    "graphprune.rankings",
    {
        "global": "graphprune.allocate.global_:classes",
        "isomorphic": "graphprune.allocate.isomorphic:classes",
        "uniform": "graphprune.allocate.uniform:classes",
    },
)
"""Name to a function that gives each group a hashable class; groups of one class compete."""
