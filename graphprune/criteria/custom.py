"""Criteria that are given, not named: an object of a kind that :mod:`graphprune.criteria` describes, or a function.

The function is given, for every weight that a group runs through, the numbers of each entry, ``[entries, numbers]`` in
float64; it returns a score for each entry, and the lowest go first.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphprune.criteria import (
    CRITERIA,
    AnalysisCriterion,
    BlockCriterion,
    DataCriterion,
    FilterCriterion,
    GradientCriterion,
    GroupCriterion,
    JointCriterion,
    WeightCriterion,
)
from graphprune.errors import GraphPruneError
from graphprune.registry import LOADING_FAILS

if TYPE_CHECKING:
    from graphprune.program import Array

KINDS = (
    AnalysisCriterion, BlockCriterion, DataCriterion, FilterCriterion, GradientCriterion, GroupCriterion,
    JointCriterion, WeightCriterion,
)  # fmt: skip


@dataclass(frozen=True)
class Custom:
    """A function as a criterion.

    >>> import numpy as np
    >>> Custom(lambda rows: rows.max(axis=1), "greatest").filters(np.array([[1.0, 3.0], [2.0, -5.0]])).tolist()
    [3.0, 2.0]
    """

    function: Callable[[Array], Array]
    name: str
    outputs: bool = False

    def filters(self, rows: Array) -> Array:
        """What the function returns. Raises GraphPruneError GP107 where it fails, or not all is one finite score."""
        import numpy as np

        try:
            scores: Array = np.asarray(self.function(rows), np.float64)
        except LOADING_FAILS as error:
            what = f"the criterion failed: {type(error).__name__}: {error}"
            remedy = f"it is given an array of NumPy, here {rows.shape}, and returns one finite score for each row"
            raise GraphPruneError("GP107", what, self.name, remedy) from error
        if scores.shape != (len(rows),) or not np.isfinite(scores).all():
            what = f"it returned an array of {scores.shape} for {len(rows)} entries, or numbers that are not finite"
            raise GraphPruneError("GP107", what, self.name, "return one finite score for each row")
        return scores


def criterion_of(chosen: Any) -> Any:
    """A criterion by its name, by its place (``"module:function"``), or as it is: an object, its class or a function.

    Raises GraphPruneError: GP106 where there is none of the name, GP111 where it cannot be imported.

    >>> criterion_of("l1")
    L1()
    """
    found = chosen
    if isinstance(chosen, str):
        found = _imported(chosen) if ":" in chosen else CRITERIA.load(chosen)
    if isinstance(found, type):
        found = found()
    if not isinstance(found, KINDS) and callable(found):
        return Custom(found, name_of(chosen))
    return found


def _imported(place: str) -> Any:
    try:
        return pkgutil.resolve_name(place)
    except LOADING_FAILS as error:
        what = f"the criterion {place!r} cannot be imported: {type(error).__name__}: {error}"
        raise GraphPruneError("GP111", what, "option criterion", "write it as module:function") from error


def name_of(chosen: Any) -> str:
    """What a plan says it was made with.

    >>> name_of("l1"), name_of(name_of), name_of(criterion_of("l1"))
    ('l1', 'graphprune.criteria.custom:name_of', 'L1()')
    """
    if isinstance(chosen, str):
        return chosen
    if hasattr(chosen, "__qualname__"):
        return f"{chosen.__module__}:{chosen.__qualname__}"
    return repr(chosen)
