"""Which positions of which stored tensors survive a cut: a keep-set, in the terms of those who hold the tensors.

Optimizers, state dicts and saved checkpoints know tensors by name and nothing of dimensions. Knows no framework.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphprune.analysis import Analysis
from graphprune.dims import Keep, is_cut
from graphprune.errors import GraphPruneError
from graphprune.kept import indices, whole_size
from graphprune.program import Array

Cuts = Mapping[str, Mapping[int, Array]]
"""Stored tensor name -> axis -> the positions along that axis that are kept (int64, ascending); only axes that lose
entries, and only tensors with such axes."""


def cuts_of(analysis: Analysis, keep: Keep) -> dict[str, dict[int, Array]]:
    """What a keep-set (ascending, as :meth:`graphprune.plan.Plan.keep` makes it) leaves of every stored tensor.

    Raises GraphPruneError GP103 where several readers of one tensor keep different entries of it: such a tensor has no
    one cut, it becomes a copy for each reader.
    """
    found: dict[str, dict[int, Array]] = {}
    for stored, _, _, axes in analysis.stored_axes():
        cut = {place: indices(axis, keep) for place, axis in enumerate(axes) if is_cut(axis, keep)}
        cut = {place: kept for place, kept in cut.items() if len(kept) < whole_size(axes[place])}
        if not _same(found.setdefault(stored.name, cut), cut):
            what = "several operators read this tensor and keep different entries of it"
            raise GraphPruneError("GP103", what, stored.name, "give each of them a tensor of its own")
    return {name: cut for name, cut in found.items() if cut}


def _same(a: Mapping[int, Array], b: Mapping[int, Array]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[place], b[place]) for place in a)
