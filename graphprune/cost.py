"""What a model costs, as polynomials over its dimensions: multiply-accumulates, parameters, bytes, peak activations.

Everything is read off the declarations of the rules. Dynamic sizes count as 1 unless they are given by name, so ratios
are those per sample and step. What a sum of products costs under a cut is worked out exactly, with everything that the
cut changes around it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from graphprune.analysis import Analysis
from graphprune.dims import Axis, Dim, Keep, Prod, Sum, find, indices, is_cut
from graphprune.program import Block, Stored, Value
from graphprune.sizes import Extent, evaluate

Widths = Mapping[Dim, int]
# An axis ready to be evaluated: a number, a dimension, or a sum ("+") or product ("*") of such.
Compiled = int | Dim | tuple[str, tuple["Compiled", ...]]

_BITS = {"float": 32, "double": 64, "bool": 8, "string": 64, "": 32}


@dataclass(frozen=True)
class Cost:
    """Absolute costs. ``parameters`` and ``nonzeros`` count numbers in weights (not in shapes or masks), ``bytes`` is
    their storage, ``macs`` counts multiply-accumulates, ``peak_activation_bytes`` what is alive at the worst moment."""

    parameters: int
    nonzeros: int
    bytes: int
    macs: int
    peak_activation_bytes: int

    def to_dict(self) -> dict[str, int]:
        """The same as plain numbers by name."""
        return asdict(self)


class Costing:
    """The costs of one analysed model as functions of the widths of its free dimensions (dense where not given)."""

    def __init__(self, analysis: Analysis, sizes: Mapping[str, int] | None = None):
        self.analysis = analysis
        self.sizes: dict[Hashable, int] = dict(sizes or {})
        self.mac_terms = [
            tuple(self._factor(part) for part in contraction.macs) for contraction in analysis.contractions
        ]
        self.weight_terms = [
            (tuple(self._axis(axis) for axis in axes), _bits(stored.dtype)) for stored, axes in _weights(analysis)
        ]

    def macs(self, widths: Widths) -> int:
        """Multiply-accumulates of all contractions."""
        return sum(_product(term, widths) for term in self.mac_terms)

    def parameters(self, widths: Widths) -> int:
        """Numbers in stored weights."""
        return sum(_product(term, widths) for term, _ in self.weight_terms)

    def bytes(self, widths: Widths) -> int:
        """Storage of the weights, packed types counted by their bits."""
        return sum(-(-_product(term, widths) * bits // 8) for term, bits in self.weight_terms)

    def peak_activations(self, widths: Widths) -> int:
        """Bytes of all values alive at the worst moment, when nodes run in file order and a value dies after its last
        reader; bodies of control flow count with the values they read from outside."""
        last: dict[Value, int] = {}
        nodes = self.analysis.program.main.nodes
        for place, node in enumerate(nodes):
            for value in [*node.inputs, *(v for block in node.blocks.values() for v in _reads(block))]:
                if value is not None and value.stored is None:
                    last[value] = place
        for output in self.analysis.program.main.outputs:
            if output is not None:
                last[output] = len(nodes)
        alive = sum(self._value_bytes(value, widths) for value in self.analysis.program.main.inputs)
        peak = alive
        ends: dict[int, list[Value]] = {}
        for value, place in last.items():
            ends.setdefault(place, []).append(value)
        for place, node in enumerate(nodes):
            alive += sum(self._value_bytes(value, widths) for value in node.outputs if value in last)
            peak = max(peak, alive)
            alive -= sum(self._value_bytes(value, widths) for value in ends.get(place, []))
        return peak

    def share_of_macs(self, dim: Dim) -> float:
        """The share of all multiply-accumulates that runs through a dimension."""
        total = sum(_product(term, {}) for term in self.mac_terms)
        through = sum(_product(term, {}) for term in self.mac_terms if any(_mentions(part, dim) for part in term))
        return through / max(1, total)

    def _value_bytes(self, value: Value, widths: Widths) -> int:
        typed = self.analysis.trace.types.get(value)
        if value.stored is not None or typed is None or typed.axes is None:
            return 0
        elements = _product(tuple(self._axis(axis) for axis in typed.axes), widths)
        return -(-elements * _bits(value.dtype) // 8)

    def _factor(self, part: Axis | Extent) -> Compiled:
        return self._axis(part) if isinstance(part, Dim | Sum | Prod) else evaluate(part, self.sizes)

    def _axis(self, axis: Axis) -> Compiled:
        axis = find(axis)
        if isinstance(axis, Dim):
            return axis if axis.pin is None else evaluate(axis.size, self.sizes)
        return ("*" if isinstance(axis, Prod) else "+", tuple(self._axis(part) for part in axis.parts))


def _weights(analysis: Analysis) -> list[tuple[Stored, list[Axis]]]:
    """Stored tensors that hold weights, each once: floating point, or integers of up to 32 bits (quantised)."""
    found: dict[Stored, list[Axis]] = {}
    for stored, _, _, axes in analysis.stored_axes():
        if stored not in found and stored.dtype not in {"int64", "uint64", "bool", "string"}:
            found[stored] = axes
    return list(found.items())


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = "".join(c if c.isdigit() else " " for c in dtype.split("e")[0]).split()
    return int(digits[0]) if digits else 32


def _evaluated(part: Compiled, widths: Widths) -> int:
    if isinstance(part, int):
        return part
    if isinstance(part, Dim):
        width = widths.get(part, part.size)
        assert isinstance(width, int)
        return width
    op, parts = part
    return _product(parts, widths) if op == "*" else sum(_evaluated(p, widths) for p in parts)


def _product(parts: tuple[Compiled, ...], widths: Widths) -> int:
    total = 1
    for part in parts:
        total *= _evaluated(part, widths)
    return total


def _mentions(part: Compiled, dim: Dim) -> bool:
    return part is dim or (isinstance(part, tuple) and any(_mentions(p, dim) for p in part[1]))


def _reads(block: Block) -> list[Value]:
    found = [value for node in block.nodes for value in node.inputs if value is not None]
    return [*found, *(v for node in block.nodes for inner in node.blocks.values() for v in _reads(inner))]


def measure(
    analysis: Analysis,
    keep: Keep | None = None,
    sizes: Mapping[str, int] | None = None,
    *,
    count_nonzeros: bool = True,
) -> Cost:
    """The cost of a model under a keep-set; ``count_nonzeros=False`` spares reading the weights."""
    keep = keep or {}
    costing = Costing(analysis, sizes)
    widths = {dim: len(kept) for dim, kept in keep.items()}
    parameters = costing.parameters(widths)
    nonzeros = sum(_nonzeros(s, axes, keep) for s, axes in _weights(analysis)) if count_nonzeros else parameters
    return Cost(
        parameters, nonzeros, costing.bytes(widths), costing.macs(widths), costing.peak_activations(widths)
    )


def _nonzeros(stored: Stored, axes: list[Axis], keep: Keep) -> int:
    array = stored.read()
    for place, axis in enumerate(axes):
        if is_cut(axis, keep):
            array = np.take(array, indices(axis, keep), axis=place)
    return int(np.count_nonzero(array))
