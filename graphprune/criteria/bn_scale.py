"""The scale of a batch norm: what a channel is multiplied with (Liu et al., Learning Efficient Convolutional Networks
through Network Slimming, ICCV 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.dims import leaves
from graphprune.kept import labels
from graphprune.program import Array


@dataclass(frozen=True)
class BatchNormScale:
    """``|gamma|``, the mean where several batch norms follow the same channels; no score for groups without any."""

    name: ClassVar[str] = "bn_scale"

    def score(self, analysis: Analysis, group: Group) -> Array | None:
        """The mean of the absolute scales of each entry."""
        total, count = np.zeros(group.size), np.zeros(group.size)
        for norm in analysis.trace.batch_norms:
            value = None if norm.scale is None else norm.scale.node.inputs[norm.scale.index]
            scale = None if value is None else analysis.program.dialect.constant(value)
            if norm.scale is None or value is None or scale is None:
                continue
            for axis in analysis.trace.typed(value, norm.scale).axes or []:
                if group.dim not in leaves(axis):
                    continue
                for label in labels(axis, group.dim):
                    inside = label >= 0
                    total += np.bincount(label[inside], np.abs(scale.astype(np.float64))[inside], group.size)
                    count += np.bincount(label[inside], minlength=group.size)
        return total / count if count.all() else None
