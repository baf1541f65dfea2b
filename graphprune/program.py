"""What a dialect reads a model into: values, stored tensors, nodes and blocks, with no framework in sight.

A :class:`Program` is what the analysis walks; the dialect keeps whatever it needs to write the model back in the
``native`` fields, which nothing else looks into. Imports nothing but the algebra and its errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphprune.dims import Axis
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.sizes import Extent

Array = NDArray[Any]


@dataclass(eq=False)
class Stored:
    """A tensor that the file carries (initializer, parameter, buffer, constant); read only when its numbers matter.

    ``empty`` where there are none to read: a model may be planned before it has weights.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    read: Callable[[], Array] = field(repr=False)
    native: Any = field(default=None, repr=False)
    empty: bool = False

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(eq=False)
class Value:
    """One tensor of the program. ``shape`` is what the file declares: sizes, names of dynamic sizes, or ``None``."""

    name: str
    shape: tuple[int | str | None, ...] | None = None
    dtype: str = ""
    stored: Stored | None = None
    producer: Node | None = field(default=None, repr=False)
    readers: int = 0
    native: Any = field(default=None, repr=False)


@dataclass(eq=False)
class Block:
    """A body of nodes with formal inputs and outputs: the main graph, a branch, a loop body, a function body."""

    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value | None]


@dataclass(eq=False)
class Node:
    """One operator call. ``op`` is the dialect's name of the operator, ``place`` how a user finds it, ``version``
    the operator set it is taken from. The numbers of a ``frozen`` node, shared by
    several calls, cannot be changed."""

    place: str
    op: str
    inputs: list[Value | None]
    outputs: list[Value]
    attributes: dict[str, Any] = field(default_factory=dict, repr=False)
    blocks: dict[str, Block] = field(default_factory=dict, repr=False)
    native: Any = field(default=None, repr=False)
    version: int = 1
    frozen: bool = False

    def __str__(self) -> str:
        return f"{self.op} {self.place}"


@dataclass(frozen=True)
class Use:
    """One reading of a value: input ``index`` of ``node``."""

    node: Node
    index: int


@dataclass(frozen=True)
class Slot:
    """Where a number stands that the rewrite may change: an attribute (``key`` is its name) or an entry of a stored
    operand (``key`` is the input index); ``index`` is the position within it, ``None`` for a lone attribute."""

    node: Node
    key: str | int
    index: int | None


@dataclass(eq=False)
class Program:
    """A whole model as the analysis sees it. ``sizes`` are default numbers for dynamic axes by name, such as those of
    the inputs that a model was traced with; what a caller gives comes first. ``rules`` are rows in axis notation for
    operators that have none, by name: whoever reads a form of the same model anew reads it with them."""

    name: str
    main: Block
    stored: list[Stored]
    native: Any = field(default=None, repr=False)
    dialect: Any = field(default=None, repr=False)
    sizes: dict[str, int] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)

    def nodes(self) -> Iterator[Node]:
        """Every node, inner blocks after the node that owns them."""
        stack = list(reversed(self.main.nodes))
        while stack:
            node = stack.pop()
            yield node
            for block in reversed(list(node.blocks.values())):
                stack.extend(reversed(block.nodes))

    def check_sizes(self, sizes: Mapping[str, int] | None) -> None:
        """Raises GraphPruneError GP106 for a name that no dynamic size has: it would be a number that nobody reads."""
        if not sizes:
            return
        asked = {size: None for value in self.main.inputs for size in value.shape or () if isinstance(size, str)}
        made = {size for node in self.nodes() for value in node.outputs for size in value.shape or ()}
        for name in sizes:
            if name not in asked and name not in made and name not in self.sizes:
                what = f"no axis has the dynamic size {name!r}"
                raise GraphPruneError("GP106", what, "sizes", did_you_mean(name, asked))


@dataclass(frozen=True)
class Sweep:
    """How the window of a kernel moves over an activation: a number for each of its axes. ``pads`` are those before
    all axes, then those after; or ``same_upper`` and ``same_lower``, for as much as keeps the number of positions.
    ``transposed`` where the kernel is applied once per input position."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | str
    transposed: bool = False


Letters = tuple[tuple[str, ...], ...]
"""For each axis of a tensor the letters it is the product of, outermost first, as in Einstein notation."""


@dataclass(frozen=True)
class Terms:
    """A contraction in Einstein notation: ``data, weight -> result``. ``axes`` says what the letters of the weight are.

    Of a convolution, ``k0, k1, ...`` are the axes of the kernel, ``s0, ...`` positions in the data, and ``p0, ...``
    positions in the result.
    """

    weight: Letters
    data: Letters
    result: Letters
    axes: Mapping[str, Axis]


@dataclass(eq=False)
class Contraction:
    """A sum of products over ``reduced`` axes: the one declaration that importance, cost, masks and sparsity read.

    ``weight`` is the operand that holds constants (``None`` where two activations meet, as queries and keys do), and
    ``weight_axes`` are the axes of its value, in layout order. ``macs`` multiplied together is the number of
    multiply-accumulates. ``masks`` names, for each reduced axis, one operand position where zeroing an entry removes
    it from the sum: ``(use, position, axis)``. ``stationary`` axes are those both operands carry (groups, heads);
    the last ``window`` axes of the weight are those of a kernel, which moves as ``sweep`` says. ``terms`` are the same
    in letters, where there are two operands and no more. ``bits`` is how many each number has where several share the
    bytes along the last axis of the weight, else 0.
    """

    node: Node
    weight: Use | None
    weight_axes: tuple[Axis, ...]
    out: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    stationary: tuple[Axis, ...]
    macs: tuple[Axis | Extent, ...]
    masks: tuple[tuple[Use, int, Axis], ...]
    activation: Use | None = None
    bias: Use | None = None
    scale: Use | None = None
    zero_point: Use | None = None
    window: int = 0
    sweep: Sweep | None = None
    terms: Terms | None = None
    bits: int = 0


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """``(data - mean) / sqrt(variance + epsilon) * scale + shift`` with stored statistics, a number for each entry of
    axis 1 of the data."""

    node: Node
    data: Use
    scale: Use | None
    shift: Use | None
    mean: Use
    variance: Use
    epsilon: float


@dataclass(frozen=True, eq=False)
class Dequantised:
    """``(codes - zero point) * scale``, with one scale for all, or one for each entry of ``axis``."""

    node: Node
    codes: Use
    scale: Use
    zero_point: Use | None
    axis: int


@dataclass(frozen=True, eq=False)
class Addition:
    """``a + b``, broadcast against each other: a residual connection, or a bias of its own."""

    node: Node
    operands: tuple[Use, Use]
