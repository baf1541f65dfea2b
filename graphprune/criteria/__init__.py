"""How important is a channel: one criterion a file, registered here by name.

A criterion is a frozen dataclass with a ``name``, of one of two kinds. A :class:`WeightCriterion` says what each number
of a weight is worth, and how a sum of such worths becomes a score; :mod:`graphprune.criteria.transfer` does the rest
(which numbers belong to which entry of which group). A :class:`GroupCriterion` scores the entries of a group without
looking at weights. Another package adds its own under the entry-point group ``graphprune.criteria``.

    >>> CRITERIA.names()
    ('l1', 'l2', 'random')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from graphprune.registry import Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

CRITERIA = Registry(
    "graphprune.criteria",
    {
        "l1": "graphprune.criteria.l1:L1",
        "l2": "graphprune.criteria.l2:L2",
        "random": "graphprune.criteria.random_:Random",
    },
)


@runtime_checkable
class WeightCriterion(Protocol):
    """A score that is a sum over the weights of an entry."""

    @property
    def name(self) -> str:
        """The registered name."""

    def elements(self, weight: NDArray[Any]) -> NDArray[Any]:
        """What each number of a weight is worth (same shape, not negative)."""

    def finish(self, sums: NDArray[Any]) -> NDArray[Any]:
        """The scores of entries from the sums of the worths of their weights."""


@runtime_checkable
class GroupCriterion(Protocol):
    """A score that needs no weights."""

    @property
    def name(self) -> str:
        """The registered name."""

    def group(self, name: str, size: int, seed: int) -> NDArray[Any]:
        """Scores for the entries of a group (shape ``[size]``), from its name and the seed of the plan alone."""
