"""Entries that cannot matter: channels that nobody reads, and channels that are always zero.

An entry of a dimension is dead when every sum that runs over it has nothing to add for it: the weights that read it
are all zero, or what they read is always zero. Removing dead entries is exact, and makes further entries dead. Knows no
framework: operators are evaluated on vectors of channel constants through the dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis
from graphprune.dequantise import factors
from graphprune.dims import Axis, Dim, is_free, leaves
from graphprune.kept import labels
from graphprune.program import Array, Contraction, Node, Use, Value

# What each channel of a value is known to be at all positions; not a number where that is unknown.
Known = dict[Dim, Array]


def dead_entries(analysis: Analysis) -> dict[Dim, Array]:
    """For every group: which entries are dead, as a boolean vector of the group's size."""
    return _dead(analysis, _Constants.of(analysis))


def free_entries(analysis: Analysis) -> dict[Dim, Array]:
    """As :func:`dead_entries`, with those that are dead once constants are folded: what costs nothing to remove. More
    entries may be free when these are gone."""
    known = _Constants.of(analysis)
    found = _dead(analysis, known)
    for fold in _folds(analysis, known):
        constant = np.isfinite(fold.constants)
        found[fold.dim] = found[fold.dim] | constant if fold.dim in found else constant
    return found


def _dead(analysis: Analysis, known: _Constants) -> dict[Dim, Array]:
    dead: dict[Dim, Array] = {}
    candidates = {group.dim for group in analysis.groups if group.exact}
    for contraction in analysis.contractions:
        for use, position, axis in contraction.masks:
            for dim in candidates & set(leaves(axis)):
                nothing = known.adds_nothing(contraction, use, position, axis, dim)
                dead[dim] = dead[dim] & nothing if dim in dead else nothing
    return {dim: entries for dim, entries in dead.items() if entries.any()}


@dataclass(frozen=True, eq=False)
class Fold:
    """Entries of a dimension that are constants at one sum, and can be added to its bias once and for all.
    ``position`` is the reduced axis of the weight, ``constants`` holds a number for each entry that is to be folded."""

    contraction: Contraction
    position: int
    axis: Axis
    dim: Dim
    constants: Array


def folds(analysis: Analysis) -> list[Fold]:
    """Constants to move into biases, such that the entries they come from are dead afterwards everywhere."""
    return _folds(analysis, _Constants.of(analysis))


def _folds(analysis: Analysis, known: _Constants) -> list[Fold]:
    found: list[Fold] = []
    for dim in (group.dim for group in analysis.groups if group.exact):
        reads = [
            (contraction, use, position, axis)
            for contraction in analysis.contractions
            for use, position, axis in contraction.masks
            if dim in set(leaves(axis))
        ]
        silent = [known.adds_nothing(*read, dim) for read in reads]
        constant = [known.foldable(contraction, use, dim) for contraction, use, _, _ in reads]
        if not reads:
            continue
        usable = np.all([quiet | np.isfinite(c) for quiet, c in zip(silent, constant, strict=True)], axis=0)
        for (contraction, _, position, axis), quiet, c in zip(reads, silent, constant, strict=True):
            numbers = np.where(usable & ~quiet, c, np.nan)
            if np.isfinite(numbers).any():
                found.append(Fold(contraction, position, axis, dim, numbers))
    return found


def survivors(dead: Mapping[Dim, Array]) -> dict[Dim, Array]:
    """The keep-set without dead entries; one entry always stays, since no operator takes tensors of width 0."""
    keep = {}
    for dim, entries in dead.items():
        kept = np.flatnonzero(~entries)
        keep[dim] = kept if kept.size else np.zeros(1, np.int64)
    return {dim: kept for dim, kept in keep.items() if len(kept) < len(dead[dim])}


class _Constants:
    """One forward pass that tracks channels which are constant whatever the input is."""

    def __init__(self, analysis: Analysis):
        self.analysis = analysis
        self.dialect = analysis.program.dialect
        self.known: dict[Value, Known] = {}
        self.weights: dict[Use, tuple[Array, ...]] = {}
        self.by_node: dict[Node, list[Contraction]] = {}
        for contraction in analysis.contractions:
            self.by_node.setdefault(contraction.node, []).append(contraction)

    @classmethod
    def of(cls, analysis: Analysis) -> _Constants:
        """What is known after the pass."""
        known = cls(analysis)
        for node in analysis.program.nodes():
            if node.blocks:
                continue
            if node in known.by_node:
                known.contraction(node, known.by_node[node])
            else:
                known.through(node)
        return known

    # ------------------------------------------------------------------ weights
    def weight(self, contraction: Contraction) -> tuple[Array, ...] | None:
        """For each axis of the weight of a contraction, at which positions it holds anything but zero (or its zero
        point). That is all that is kept of a weight: together they can be larger than the memory."""
        use = contraction.weight
        if use is None or (value := use.node.inputs[use.index]) is None:
            return None
        if use not in self.weights:
            array = self.dialect.constant(value)
            if array is None:
                return None
            zero = factors(self.analysis, contraction)[1]
            if contraction.bits or (zero is None and contraction.zero_point is not None):
                return None  # it takes more to say which of its numbers are zero
            differs = array != (array.dtype.type(0) if zero is None else zero)
            axes = range(array.ndim)
            self.weights[use] = tuple(differs.any(axis=tuple(set(axes) - {axis})) for axis in axes)
        return self.weights[use]

    def adds_nothing(self, contraction: Contraction, use: Use, position: int, axis: Axis, dim: Dim) -> Array:
        """Which entries of ``dim`` add nothing to this sum."""
        assert isinstance(dim.size, int)
        nothing = np.zeros(dim.size, bool)
        weight = self.weight(contraction) if use == contraction.weight else None
        if weight is not None:
            nothing |= ~_in_any(weight[position], axis, dim)
        for reader in (contraction.activation, use if use != contraction.weight else None):
            value = None if reader is None else reader.node.inputs[reader.index]
            if value is not None:
                nothing |= self.known.get(value, {}).get(dim, np.full(dim.size, np.nan)) == 0
        return nothing

    def foldable(self, contraction: Contraction, use: Use, dim: Dim) -> Array:
        """The constant that this sum reads for each entry, where its bias can take it over."""
        assert isinstance(dim.size, int)
        reader = contraction.activation
        value = None if reader is None else reader.node.inputs[reader.index]
        if value is None or use != contraction.weight or not self.dialect.can_fold(contraction):
            return np.full(dim.size, np.nan)
        return self.known.get(value, {}).get(dim, np.full(dim.size, np.nan))

    # ------------------------------------------------------------------ forward pass
    def contraction(self, node: Node, contractions: list[Contraction]) -> None:
        """An output channel whose weights are all zero is its bias, whatever comes in."""
        if len(contractions) != 1 or contractions[0].weight is None or not self.dialect.is_affine(node):
            return
        contraction = contractions[0]
        weight = self.weight(contraction)
        if weight is None:
            return
        known: Known = {}
        for axis in (*contraction.out, *contraction.stationary):
            for dim in leaves(axis):
                if dim.pin is None and not contraction.scale:
                    known[dim] = self._constant_rows(contraction, weight, dim)
        self._keep(node, known)

    def _constant_rows(self, contraction: Contraction, weight: tuple[Array, ...], dim: Dim) -> Array:
        assert isinstance(dim.size, int)
        places = [k for k, axis in enumerate(contraction.weight_axes) if dim in set(leaves(axis))]
        if len(places) != 1:
            return np.full(dim.size, np.nan)
        silent = ~_in_any(weight[places[0]], contraction.weight_axes[places[0]], dim)
        bias = contraction.bias
        value = None if bias is None else bias.node.inputs[bias.index]
        constant = np.zeros(dim.size) if value is None else self._stored(value, bias, dim)
        return np.where(silent, constant, np.nan)

    def _stored(self, value: Value, use: Use | None, dim: Dim) -> Array:
        """What a constant operand is at each entry of a dimension, where it is one number there."""
        assert isinstance(dim.size, int)
        array = self.dialect.constant(value)
        if array is None or array.dtype.kind not in "fiu":
            return np.full(dim.size, np.nan)
        axes = self.analysis.trace.typed(value, use or Use(Node("", "", [], []), 0)).axes or []
        places = [k for k, axis in enumerate(axes) if dim in set(leaves(axis))]
        low = high = array.astype(np.float64)
        if len(places) > 1 or array.size == 0:
            return np.full(dim.size, np.nan)
        others = tuple(k for k in range(array.ndim) if k not in places)
        low, high = low.min(axis=others), high.max(axis=others)
        if not places:
            return np.full(dim.size, float(low) if low == high else np.nan)
        least, most = np.full(dim.size, np.inf), np.full(dim.size, -np.inf)
        for label in labels(axes[places[0]], dim):
            inside = label >= 0
            np.minimum.at(least, label[inside], low[inside])
            np.maximum.at(most, label[inside], high[inside])
        return np.where(least == most, least, np.nan)

    def through(self, node: Node) -> None:
        """Entry-wise operators compute on the constants; those that only rearrange hand them on."""
        inputs = [value for value in node.inputs if value is not None]
        dims = {dim for value in inputs for dim in self.known.get(value, {})}
        if not dims:
            return
        known: Known = {}
        for dim in dims:
            vectors = [self._vector(node, k, value, dim) for k, value in enumerate(node.inputs)]
            result: Array | None = self.dialect.on_channels(node, vectors)
            if result is not None:
                known[dim] = result
        self._keep(node, known)

    def _vector(self, node: Node, index: int, value: Value | None, dim: Dim) -> Array | None:
        """What an operand is at each entry; ``None`` where it does not have the dimension at all."""
        if value is None:
            return None
        if value in self.known and dim in self.known[value]:
            return self.known[value][dim]
        if self.dialect.is_constant(value):
            return self._stored(value, Use(node, index), dim)
        typed = self.analysis.trace.types.get(value)
        carries = typed is not None and any(dim in set(leaves(axis)) for axis in typed.axes or [])
        assert isinstance(dim.size, int)
        return np.full(dim.size, np.nan) if carries else None

    def _keep(self, node: Node, known: Known) -> None:
        for output in node.outputs[:1]:
            typed = self.analysis.trace.types.get(output)
            present = {leaf for axis in (typed.axes if typed else None) or [] if is_free(axis) for leaf in leaves(axis)}
            useful = {dim: v for dim, v in known.items() if dim in present and np.isfinite(v).any()}
            if useful:
                self.known[output] = useful


def _in_any(along: Array, axis: Axis, dim: Dim) -> Array:
    """Whether something holds at any of the positions along an axis that belong to an entry."""
    assert isinstance(dim.size, int)
    found = np.zeros(dim.size, bool)
    for label in labels(axis, dim):
        inside = label >= 0
        np.logical_or.at(found, label[inside], along[inside])
    return found
