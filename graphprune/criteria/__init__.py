"""How important is a channel: one criterion a file, registered here by name.

A criterion is a frozen dataclass with a ``name``, of one of these kinds:

- a :class:`WeightCriterion` says what each number of a weight is worth, and how a sum of such worths becomes a score;
  :mod:`graphprune.criteria.transfer` does the rest (which numbers belong to which entry of which group);
- a :class:`GradientCriterion` does the same with a derivative of the loss beside the weight;
- a :class:`DataCriterion` scores the inputs of a layer from its weight and a statistic of its activations;
- a :class:`JointCriterion` scores a group from all layers that read it at once;
- a :class:`FilterCriterion` scores the entries of a group from all numbers of one weight at once;
- an :class:`AnalysisCriterion` scores a group from whatever the analysis knows of it;
- a :class:`GroupCriterion` scores the entries of a group without looking at weights;
- a :class:`BlockCriterion` scores residual blocks, for the option ``depth``.

All scores say how important an entry is: the lowest go first. Another package adds its own under the entry-point group
``graphprune.criteria``.

    >>> {"l1", "l2", "obs", "random"} <= set(CRITERIA.names())
    True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from graphprune.registry import Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from graphprune.analysis import Analysis, Group
    from graphprune.calibrate import Statistic
    from graphprune.layers import Layer

CRITERIA = Registry(
    "graphprune.criteria",
    {
        "angular": "graphprune.criteria.angular:Angular",
        "apoz": "graphprune.criteria.apoz:APoZ",
        "block_influence": "graphprune.criteria.block_influence:BlockInfluence",
        "bn_scale": "graphprune.criteria.bn_scale:BatchNormScale",
        "chip": "graphprune.criteria.chip:CHIP",
        "flap": "graphprune.criteria.flap:FLAP",
        "fpgm": "graphprune.criteria.fpgm:FPGM",
        "grasp": "graphprune.criteria.grasp:GraSP",
        "hrank": "graphprune.criteria.hrank:HRank",
        "hutchinson": "graphprune.criteria.hutchinson:Hutchinson",
        "kwon": "graphprune.criteria.kwon:Kwon",
        "kwon_block": "graphprune.criteria.kwon_block:KwonBlock",
        "l1": "graphprune.criteria.l1:L1",
        "l2": "graphprune.criteria.l2:L2",
        "lamp": "graphprune.criteria.lamp:LAMP",
        "linf": "graphprune.criteria.linf:Linf",
        "mag_taylor": "graphprune.criteria.mag_taylor:MagnitudeTaylor",
        "obd": "graphprune.criteria.obd:OBD",
        "obs": "graphprune.criteria.obs:OBS",
        "obspa": "graphprune.criteria.obspa:OBSPA",
        "random": "graphprune.criteria.random_:Random",
        "snip": "graphprune.criteria.snip:SNIP",
        "synflow": "graphprune.criteria.synflow:SynFlow",
        "taylor": "graphprune.criteria.taylor:Taylor",
        "taylor_abs": "graphprune.criteria.taylor_abs:TaylorAbs",
        "thinet": "graphprune.criteria.thinet:ThiNet",
        "variance": "graphprune.criteria.variance:Variance",
        "wanda": "graphprune.criteria.wanda:Wanda",
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
class GradientCriterion(Protocol):
    """A score that is a sum over the weights of an entry and a derivative of the loss by them. With an attribute
    ``reads`` that is true only the weights that read an entry count, not those that compute it, where there are some.
    With ``rearranges`` the entries of a group are judged together once their number is known.
    """

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def derivative(self) -> str:
        """Which one: a name of :data:`DERIVATIVES`."""

    def products(self, weight: NDArray[Any], derivative: NDArray[Any]) -> NDArray[Any]:
        """What each number of a weight contributes (same shape; may be negative)."""

    def finish(self, sums: NDArray[Any]) -> NDArray[Any]:
        """The scores of entries from the sums of the contributions of their weights. Where there is more than one
        derivative (one for each batch), the scores are averaged over them."""


DERIVATIVES = {
    "gradient": "g = dL/dw, averaged over all samples",
    "gradient of each batch": "g of one batch after the other",
    "gradient of each sample": "g of one sample after the other; of each batch, where the batch size is fixed",
    "squared gradient": "the mean of g**2 over batches, each of which counts as a sample",
    "hessian-gradient product": "H g, with the gradient over all samples",
    "hessian diagonal": "diag(H), estimated from products with random signs",
    "synaptic flow": "dR/dw with R the sum of the outputs of the network of |w| for an input of ones",
}
"""What a gradient criterion can ask for; computed by dialects that have gradients."""


@dataclass(frozen=True, eq=False)
class Part:
    """One layer that reads a group.

    matrices:  its weight as ``[groups, outputs, inputs]``
    statistic: what was collected of its inputs
    labels:    for every input ``[groups, inputs]`` the entry of the group that it belongs to, -1 for none
    size:      how many entries the group has
    gain:      the factor of each output ``[groups, outputs]`` in the BatchNorm that alone reads the result; None for 1
    """

    layer: Layer
    matrices: NDArray[Any]
    statistic: Any
    labels: NDArray[Any]
    size: int
    gain: NDArray[Any] | None = None

    @property
    def normalised(self) -> NDArray[Any]:
        """The matrices with the BatchNorm behind them folded in: what an error of an output really is worth."""
        return self.matrices if self.gain is None else self.matrices * self.gain[:, :, None]

    def summed(self, worth: NDArray[Any]) -> NDArray[Any]:
        """Sums of the worths of inputs ``[groups, inputs]`` by entry, ``[size]``."""
        import numpy as np

        inside = self.labels >= 0
        return np.bincount(self.labels[inside], worth[inside], self.size)


@runtime_checkable
class DataCriterion(Protocol):
    """A score of the entries that a layer reads, from its weight and its activations."""

    @property
    def name(self) -> str:
        """The registered name."""

    def statistic(self, layer: Layer) -> Statistic:
        """What to collect of the inputs of this layer."""

    def entries(self, part: Part) -> NDArray[Any]:
        """Scores for the entries of a group as this layer sees them (shape ``[size]``)."""


@runtime_checkable
class JointCriterion(Protocol):
    """A score of a group from all layers that read it."""

    @property
    def name(self) -> str:
        """The registered name."""

    def statistic(self, layer: Layer) -> Statistic:
        """What to collect of the inputs of this layer."""

    def together(self, parts: Sequence[Part]) -> NDArray[Any]:
        """Scores for the entries of the group (shape ``[size]``)."""


@runtime_checkable
class FilterCriterion(Protocol):
    """A score of the entries of a group from all numbers of one weight."""

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def outputs(self) -> bool:
        """Whether only weights of which the entries are outputs count."""

    def filters(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Scores (shape ``[size]``) from what each entry has of a weight, as ``[size, numbers]`` in float64."""


@runtime_checkable
class AnalysisCriterion(Protocol):
    """A score from what the analysis knows."""

    @property
    def name(self) -> str:
        """The registered name."""

    def score(self, analysis: Analysis, group: Group) -> NDArray[Any] | None:
        """Scores for the entries of a group (shape ``[size]``); None where the criterion does not apply to it."""


@runtime_checkable
class GroupCriterion(Protocol):
    """A score that needs no weights."""

    @property
    def name(self) -> str:
        """The registered name."""

    def group(self, name: str, size: int, seed: int) -> NDArray[Any]:
        """Scores for the entries of a group (shape ``[size]``), from its name and the seed of the plan alone."""


@runtime_checkable
class BlockCriterion(Protocol):
    """A score of residual blocks, from what goes in and what comes out."""

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def consecutive(self) -> bool:
        """Whether as many blocks in a row as are to go are scored as one; else each by itself."""

    def distance(self, before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
        """How far the rows before and after are apart (``[vectors]``, from ``[vectors, features]``)."""
