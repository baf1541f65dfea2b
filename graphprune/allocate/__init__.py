"""Scores, costs and a budget -> how wide every group stays.

An allocator is a function of a :class:`graphprune.allocate.problem.Problem` that returns a width for every group, one
that the group's bound allows; together they meet all budgets of the problem. It is only asked where that is possible.
Which entries stay is not its business: those with the highest scores.

``global``, ``uniform``, ``isomorphic``, ``erk`` and ``lamp`` take the same share of everything that competes, and
differ in what competes with what (:mod:`graphprune.allocate.nested`). ``greedy``, ``knapsack`` and ``milp`` weigh what
entries are worth against what their removal saves; they add scores up, so these have to be in one unit: that of the
criterion (``normalize="none"``), or one that a normalisation makes.

Another package adds its own under the entry-point group ``graphprune.allocators``.

    >>> sorted(ALLOCATORS.builtin)
    ['erk', 'global', 'greedy', 'isomorphic', 'knapsack', 'lamp', 'milp', 'uniform']
"""

from __future__ import annotations

from graphprune.registry import Registry

ALLOCATORS = Registry(
    "graphprune.allocators",
    {
        "erk": "graphprune.allocate.erk:allocate",
        "global": "graphprune.allocate.global_:allocate",
        "greedy": "graphprune.allocate.greedy:allocate",
        "isomorphic": "graphprune.allocate.isomorphic:allocate",
        "knapsack": "graphprune.allocate.knapsack:allocate",
        "lamp": "graphprune.allocate.lamp:allocate",
        "milp": "graphprune.allocate.milp:allocate",
        "uniform": "graphprune.allocate.uniform:allocate",
    },
)
"""Name to a function that takes a problem and returns the width of every group."""
