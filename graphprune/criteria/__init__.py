"""How important each entry of a group is. One criterion a file; how scores of elements become scores of groups is
written once, in :mod:`graphprune.criteria.transfer`."""

from graphprune.registry import Registry

CRITERIA = Registry(
    "graphprune.criteria",
    {
        "l1": "graphprune.criteria.l1:L1",
        "l2": "graphprune.criteria.l2:L2",
        "random": "graphprune.criteria.random_:Random",
    },
)
