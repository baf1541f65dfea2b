"""What a network costs, as a function of the widths of its free dimensions: exact, and fast enough to search with.

Every cost is a sum of terms, and every term a number times the sizes of axes, which are polynomials over free
dimensions. Evaluating all terms costs about a millisecond for ResNet-50; the change that one dimension makes touches
only the terms it stands in. Integers throughout: nothing is rounded, nothing overflows. Knows the algebra and the
program, no framework.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from graphprune.analysis import Analysis
from graphprune.dims import Axis, Dim, Keep, Prod, Sum, is_cut
from graphprune.kept import extent, indices
from graphprune.program import Array, Block, Stored, Use, Value
from graphprune.run_sizes import run_sizes
from graphprune.sizes import Extent, Size

MEASURES = ("macs", "parameters", "bytes")
"""The costs that are counted, and that a budget can be given in."""

LATENCY = "latency"
"""Beside them, a cost that is measured: picoseconds, where a costing was given a :class:`Measured`."""

_BITS = {"float": 32, "double": 64, "bool": 8, "string": 0, "complex64": 64, "complex128": 128}
_BITS_OF_UNKNOWN_TYPES = 32


@dataclass(frozen=True)
class Cost:
    """What a network costs. Axes whose size is only known at run time count as 1 unless their size is given, by
    the caller or by the program.

    parameters: elements of the stored tensors that are weights: floating point, complex or integers of at most 8 bits,
                or read by a contraction (int32 biases); shape constants, positions and masks are not
    nonzeros:   those of them that are not zero
    bytes:      bytes of all stored tensors that some node reads, shape constants included
    macs:       multiply-accumulates of all contractions for one run; the body of a loop counts once
    peak_activation_bytes: the most bytes of inputs and intermediate results that are needed at the same time when the
                nodes run in file order and each result is freed after its last reader. Results of views (Reshape)
                count as copies; inner blocks count with their own peak, on top of what lives where they are called.
    """

    parameters: int
    nonzeros: int
    bytes: int
    macs: int
    peak_activation_bytes: int


class Measured(Protocol):
    """A cost that is no sum of products of sizes: what :mod:`graphprune.latency` makes of a table."""

    def cost(self, widths: Mapping[Dim, int]) -> int:
        """The cost at these widths."""

    def change(self, dim: Dim, width: int, widths: Mapping[Dim, int]) -> int:
        """What it changes by when one dimension goes from its width in ``widths`` to ``width``."""


@dataclass(frozen=True)
class _Term:
    """``factor * product(values of axes) / 2**shift``, rounded up; ``axes`` are indices into the table of axes."""

    factor: int
    axes: tuple[int, ...]
    shift: int = 0


class Costing:
    """The costs of one analysis, compiled.

    sizes: numbers for dynamic axes by name; what is not named counts as the program says, else as 1, and what is
        computed from them as :mod:`graphprune.run_sizes` finds
    latency: the cost that is called so, once it is known
    The widths that the methods take map free dimensions to their new sizes; absent ones are uncut.

    >>> from graphprune.program import Block, Program
    >>> from graphprune.rules.trace import Trace
    >>> empty = Analysis(Program("none", Block([], [], []), []), Trace(lambda value: False), {})
    >>> Costing(empty, {}).macs({})
    0
    """

    def __init__(self, analysis: Analysis, sizes: Mapping[str, int]):
        self.analysis = analysis
        self.latency: Measured | None = None
        self.sizes = run_sizes(analysis, sizes)
        self._places: dict[Extent, int] = {}
        self._polynomials: list[tuple[tuple[int, tuple[Dim, ...]], ...]] = []
        self._terms: dict[str, list[_Term]] = {measure: [] for measure in MEASURES}
        for contraction in analysis.contractions:
            self._add("macs", contraction.macs)
        for stored, axes in self.stored():
            self._add("bytes", axes, bits_of(stored.dtype), shift=3)
            if stored in self.weights:
                self._add("parameters", axes)
        self._users = {measure: self._index(terms) for measure, terms in self._terms.items()}

    # ---------------------------------------------------------------- compiling
    def stored(self) -> Iterator[tuple[Stored, list[Axis]]]:
        """The stored tensors that some node reads, each once, with their axes. A small vector that several nodes share
        counts once, with the axes of its first reader."""
        seen: set[Stored] = set()
        for stored, _, _, axes in self.analysis.stored_axes():
            if stored not in seen:
                seen.add(stored)
                yield stored, axes

    @property
    def weights(self) -> set[Stored]:
        """The stored tensors that count as parameters."""
        if not hasattr(self, "_weights"):
            self._weights = {stored for stored, _ in self.stored() if _is_weight(stored.dtype)}
            self._weights |= set(_read_by_contractions(self.analysis))
        return self._weights

    def _add(self, measure: str, axes: Iterable[Axis | Extent], factor: int = 1, shift: int = 0) -> None:
        places = []
        for axis in axes:
            place = self._place(_polynomial(axis))
            constant = self._constant(place)
            if constant is None:
                places.append(place)
            else:
                factor *= constant
        self._terms[measure].append(_Term(factor, tuple(sorted(places)), shift))

    def count(self, measure: str, products: Iterable[Iterable[Axis | Extent]]) -> None:
        """A further measure by name: a sum of products of sizes."""
        self._terms[measure] = []
        for axes in products:
            self._add(measure, axes)
        self._users[measure] = self._index(self._terms[measure])

    def _place(self, size: Extent) -> int:
        if size not in self._places:
            self._places[size] = len(self._polynomials)
            self._polynomials.append(tuple(self._compiled(size)))
        return self._places[size]

    def _compiled(self, size: Extent) -> Iterator[tuple[int, tuple[Dim, ...]]]:
        """The monomials of a size, with run-time symbols replaced by their numbers."""
        for monomial, factor in (size.terms if isinstance(size, Size) else {(): size}).items():
            dims = tuple(item for item in monomial if isinstance(item, Dim))
            for item in monomial:
                if not isinstance(item, Dim):
                    factor *= self.sizes.get(item, 1)
            yield factor, dims

    def _constant(self, place: int) -> int | None:
        monomials = self._polynomials[place]
        return sum(factor for factor, _ in monomials) if not any(dims for _, dims in monomials) else None

    def _index(self, terms: list[_Term]) -> dict[Dim, list[_Term]]:
        found: dict[Dim, list[_Term]] = {}
        for term in terms:
            for dim in {dim for place in term.axes for _, dims in self._polynomials[place] for dim in dims}:
                found.setdefault(dim, []).append(term)
        return found

    # ---------------------------------------------------------------- evaluating
    def cost(self, measure: str, widths: Mapping[Dim, int]) -> int:
        """One of :data:`MEASURES`, or :data:`LATENCY`, at these widths."""
        if measure == LATENCY and self.latency is not None:
            return self.latency.cost(widths)
        return self._sum(self._terms[measure], widths)

    def macs(self, widths: Mapping[Dim, int]) -> int:
        """Multiply-accumulates at these widths."""
        return self.cost("macs", widths)

    def parameters(self, widths: Mapping[Dim, int]) -> int:
        """Elements of weights at these widths."""
        return self.cost("parameters", widths)

    def bytes(self, widths: Mapping[Dim, int]) -> int:
        """Bytes of stored tensors at these widths."""
        return self.cost("bytes", widths)

    def change(self, measure: str, dim: Dim, width: int, widths: Mapping[Dim, int]) -> int:
        """What the cost changes by when one dimension goes from its width in ``widths`` to ``width``."""
        if measure == LATENCY and self.latency is not None:
            return self.latency.change(dim, width, widths)
        terms = self._users[measure].get(dim, [])
        return self._sum(terms, {**widths, dim: width}) - self._sum(terms, widths)

    def marginal(self, measure: str, dim: Dim, widths: Mapping[Dim, int]) -> int:
        """What the removal of one more entry of a dimension saves, exactly; a positive number."""
        return -self.change(measure, dim, self._width(dim, widths) - 1, widths)

    def _sum(self, terms: Iterable[_Term], widths: Mapping[Dim, int]) -> int:
        known: dict[int, int] = {}
        total = 0
        for term in terms:
            amount = term.factor
            for place in term.axes:
                if place not in known:
                    known[place] = self._value(place, widths)
                amount *= known[place]
            total += -(-amount >> term.shift)
        return total

    def _value(self, place: int, widths: Mapping[Dim, int]) -> int:
        total = 0
        for factor, dims in self._polynomials[place]:
            for dim in dims:
                factor *= self._width(dim, widths)
            total += factor
        return total

    @staticmethod
    def _width(dim: Dim, widths: Mapping[Dim, int]) -> int:
        width = widths.get(dim, dim.size)
        assert isinstance(width, int), "free dimensions have sizes"
        return width

    def product(self, axes: Iterable[Axis | Extent], widths: Mapping[Dim, int]) -> int:
        """The product of the sizes of some axes, such as the ``macs`` of one contraction."""
        return self.multiplied(self.factors(axes), widths)

    def factors(self, axes: Iterable[Axis | Extent]) -> tuple[int, ...]:
        """Some axes, compiled, where their product is asked for more than once."""
        return tuple(self._place(_polynomial(axis)) for axis in axes)

    def multiplied(self, factors: Iterable[int], widths: Mapping[Dim, int]) -> int:
        """The product of the sizes of axes that were compiled."""
        return math.prod(self._value(place, widths) for place in factors)

    def polynomial(self, measure: str, places: Mapping[Dim, int]) -> dict[tuple[int, ...], float]:
        """A measure as the factors of products of widths, for a search with millions of steps.

        A product is the ``places`` of its dimensions, ascending, once for each power; dimensions without a place keep
        their full size. Packed bits are not rounded up, so it may be less than the cost by one for each tensor.
        """
        found: dict[tuple[int, ...], float] = {}
        for term in self._terms[measure]:
            product: dict[tuple[int, ...], float] = {(): term.factor / 2**term.shift}
            for place in term.axes:
                axis = self._placed(place, places)
                multiplied: dict[tuple[int, ...], float] = {}
                for left, a in product.items():
                    for right, b in axis:
                        both = tuple(sorted(left + right))
                        multiplied[both] = multiplied.get(both, 0.0) + a * b
                product = multiplied
            for dims, factor in product.items():
                found[dims] = found.get(dims, 0.0) + factor
        return found

    def _placed(self, place: int, places: Mapping[Dim, int]) -> list[tuple[tuple[int, ...], float]]:
        found = []
        for factor, dims in self._polynomials[place]:
            for dim in dims:
                factor *= self._width(dim, {}) if dim not in places else 1
            found.append((tuple(places[dim] for dim in dims if dim in places), float(factor)))
        return found

    # ---------------------------------------------------------------- activations
    def peak_activation_bytes(self, widths: Mapping[Dim, int]) -> int:
        """See :class:`Cost`."""
        return self._peak(self.analysis.program.main, widths)

    def _peak(self, block: Block, widths: Mapping[Dim, int]) -> int:
        last = _last_readers(block)
        made: dict[Value, int] = {value: self._bytes_of(value, widths) for value in block.inputs}
        live = peak = sum(made.values())
        for place, node in enumerate(block.nodes):
            for value in node.outputs:
                made[value] = self._bytes_of(value, widths)
                live += made[value]
            inner = max((self._peak(body, widths) for body in node.blocks.values()), default=0)
            peak = max(peak, live + inner)
            for value in {value for value in (*_reads(node.inputs, node.blocks), *node.outputs) if value in made}:
                if last.get(value, -1) <= place:
                    live -= made.pop(value)
        return peak

    def _bytes_of(self, value: Value, widths: Mapping[Dim, int]) -> int:
        typed = self.analysis.trace.types.get(value)
        if value.stored is not None or typed is None or typed.axes is None:
            return 0
        return -(-self.product(typed.axes, widths) * bits_of(value.dtype) >> 3)


def measure(
    analysis: Analysis, keep: Keep, sizes: Mapping[str, int] | None = None, *, count_nonzeros: bool = False
) -> Cost:
    """All costs under a keep-set. ``nonzeros`` reads the weights, and is given as ``parameters`` unless asked for."""
    return measures(analysis, [keep], sizes, count_nonzeros=count_nonzeros)[0]


def measures(
    analysis: Analysis,
    keeps: Sequence[Keep],
    sizes: Mapping[str, int] | None = None,
    *,
    count_nonzeros: bool = False,
) -> list[Cost]:
    """The same for several keep-sets; weights are read once."""
    costing = Costing(analysis, sizes or {})
    widths = [{dim: len(kept) for dim, kept in keep.items()} for keep in keeps]
    parameters = [costing.parameters(each) for each in widths]
    nonzeros = _nonzeros(costing, keeps) if count_nonzeros else parameters
    return [
        Cost(count, left, costing.bytes(each), costing.macs(each), costing.peak_activation_bytes(each))
        for each, count, left in zip(widths, parameters, nonzeros, strict=True)
    ]


def _nonzeros(costing: Costing, keeps: Sequence[Keep]) -> list[int]:
    total = np.zeros(len(keeps), np.int64)
    for stored, axes in costing.stored():
        if stored in costing.weights:
            filled = np.ones((), np.bool_) if stored.empty else stored.read() != 0
            shape = stored.shape if stored.empty else filled.shape
            total += [_count(filled, shape, axes, keep) for keep in keeps]
    return [int(each) for each in total]


def _count(filled: Array, shape: tuple[int, ...], axes: list[Axis], keep: Keep) -> int:
    """How many of the entries that are kept are ``filled``: a truth value for each, or one for all."""
    if filled.all():
        return math.prod(
            len(indices(axis, keep)) if is_cut(axis, keep) else size for axis, size in zip(axes, shape, strict=True)
        )
    for place, axis in enumerate(axes):
        if is_cut(axis, keep):
            filled = np.take(filled, indices(axis, keep), place)
    return int(np.count_nonzero(filled))


def bits_of(dtype: str) -> int:
    """Bits of one element of a type by its name; 32 for types that are not known.

    >>> bits_of("float"), bits_of("bfloat16"), bits_of("float8e4m3fn"), bits_of("uint4")
    (32, 16, 8, 4)
    """
    if dtype in _BITS:
        return _BITS[dtype]
    found = re.search(r"\d+", dtype)
    return int(found.group()) if found else _BITS_OF_UNKNOWN_TYPES


def _polynomial(axis: Axis | Extent) -> Extent:
    return extent(axis) if isinstance(axis, Dim | Sum | Prod) else axis


def _is_weight(dtype: str) -> bool:
    return "float" in dtype or "complex" in dtype or dtype == "double" or ("int" in dtype and bits_of(dtype) <= 8)


def _read_by_contractions(analysis: Analysis) -> Iterator[Stored]:
    for contraction in analysis.contractions:
        for use in (contraction.weight, contraction.bias, contraction.scale, contraction.zero_point):
            value = _operand(use)
            if value is not None and value.stored is not None:
                yield value.stored


def _operand(use: Use | None) -> Value | None:
    return None if use is None else use.node.inputs[use.index]


def _reads(inputs: Iterable[Value | None], blocks: Mapping[str, Block]) -> Iterator[Value]:
    """What a node reads: its operands, and what its inner blocks capture."""
    yield from (value for value in inputs if value is not None)
    for block in blocks.values():
        yield from (value for value in block.outputs if value is not None)
        for node in block.nodes:
            yield from _reads(node.inputs, node.blocks)


def _last_readers(block: Block) -> dict[Value, int]:
    """The place of the last node that reads each value; results of the block are read after all."""
    last: dict[Value, int] = {}
    for place, node in enumerate(block.nodes):
        for value in _reads(node.inputs, node.blocks):
            last[value] = place
    last.update((value, len(block.nodes)) for value in block.outputs if value is not None)
    return last
