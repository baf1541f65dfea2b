"""What a compiler hands over to be written as an artifact: a network as libraries, one a kind of processor.

Each library is a shared library exported by TVM with one function

    main(constants: uint8[C], arena: uint8[A], *inputs, *outputs)

Tensors are row-major without gaps and begin at multiples of ALIGNMENT bytes. `constants` is a file that is mapped, and
is only read. `arena` is scratch that belongs to one call at a time, and is zero before the first. A step without kernel
calls the packed function FALLBACK with (`"<id of the network>/<index>"`, its inputs, its outputs), and the runtime runs
the ONNX model of that index.

Needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

ENTRY = "main"
FALLBACK = "graphprune.fallback"
ALIGNMENT = 64

DTYPES = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4, "uint32": 4, "float32": 4,
    "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip
"""The data types that inputs and outputs can have, with the bytes of a number; all are types of numpy."""


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a network: its name in the model, data type (a key of DTYPES) and static shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How many bytes its numbers take."""
        return DTYPES[self.dtype] * prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Layer:
    """One step of the compiled network, as reports show it.

    name:         the node of the model, or the first of those that were fused
    operators:    what was fused into it, such as `Conv, Relu`
    kernel:       what runs it, such as `contract 4x3`; `onnxruntime` for a fallback
    format:       how its weights are stored, such as `dense`, `unstructured`, `block 8x1`; empty where it has none
    density:      share of its weights that are stored, from 0 to 1; None where it has none
    microseconds: one run as it was measured when choosing; None where it was not
    dense_microseconds: one run of the dense alternative, measured beside it
    fallback:     whether no kernel of ours runs it
    reason:       why this kernel or format was taken, or why no other could be, in a sentence
    """

    name: str
    operators: str
    kernel: str
    format: str = ""
    density: float | None = None
    microseconds: float | None = None
    dense_microseconds: float | None = None
    fallback: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Variant:
    """The network for one kind of processor.

    name:      the row of the target, such as `v4`
    features:  what the processor must have, by the names in /proc/cpuinfo (see `graphprune.runtime.cpu.LEVELS`)
    library:   the shared library: its bytes, or where it is
    constants: the packed weights: their bytes (anything with the buffer interface), or where they are
    arena:     how many bytes of scratch one call needs
    layers:    one row for each step, in order
    rounding:  the shortest type that values are rounded to on the way: `float32`, `bfloat16` or `float16`
    """

    name: str
    features: tuple[str, ...]
    library: bytes | Path
    constants: bytes | bytearray | memoryview | Path
    arena: int
    layers: tuple[Layer, ...] = ()
    rounding: str = "float32"


@dataclass(frozen=True)
class Network:
    """A compiled network.

    id:        what its libraries call it in the keys of fallbacks: 8 to 64 hexadecimal digits, lower case
    variants:  the best first: the first that a processor can run is taken
    fallbacks: ONNX models, serialised, by index; inputs and outputs in the order in which the libraries pass them
    threads:   how many threads the libraries divide their work for
    versions:  of the packages that made it, such as `{"tvm": "0.27.0"}`
    notes:     sentences for the report, such as what was left out
    """

    id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    variants: tuple[Variant, ...]
    fallbacks: tuple[bytes, ...] = ()
    threads: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
