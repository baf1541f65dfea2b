"""What every kernel generator needs from TVM: functions over plain pointers, vectors of numbers, tasks for the threads.

A kernel is a frozen dataclass of numbers that says all about the code, so that equal kernels are compiled once. Its
function takes, for each array, a pointer to the first number of a storage and the offset where the view begins. Offsets
are arguments, never part of the pointer: code generation takes a pointer for aligned to 64 bytes, and views are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

INT32 = "int32"
CPU = 1  # kDLCPU
SPAN = 1 << 30  # how many numbers an array is declared to have; code does not depend on it


@dataclass(frozen=True)
class Machine:
    """What a kernel must know of the processor: numbers in a vector, vector registers, threads to keep busy, whether
    products of bfloat16 pairs are wanted (see `pairs.py`), whether one instruction multiplies four bytes (see
    `quads.py`), and whether one multiplies tiles of such words (see `tiles.py`)."""

    lanes: int
    registers: int
    threads: int = 1
    pairs: bool = False
    dots: bool = False
    tiles: bool = False


class Kernel(Protocol):
    """Code for one step. `arrays` has the data type of each array, in the order of the function's arguments."""

    @property
    def arrays(self) -> tuple[str, ...]: ...

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        """Emits the statements of the function; called inside a function that is being built."""


@dataclass(frozen=True)
class Array:
    """One array of a kernel: a buffer over its pointer, and the offset of the view."""

    buffer: Any
    offset: Any
    dtype: str

    def __getitem__(self, index: Any) -> Any:
        return self.buffer[self.offset + index]

    def __setitem__(self, index: Any, value: Any) -> None:
        T.buffer_store(self.buffer, value, [self.offset + index])

    def load(self, index: Any, lanes: int, stride: int = 1, mask: Any = None) -> Any:
        """A vector of numbers at `index`, `index + stride`, ...; stride 0 repeats one. Lanes that the mask leaves out
        are not read."""
        if stride == 0:
            return tirx.Broadcast(self[index], lanes)
        if mask is not None:
            where = tirx.Ramp(self.offset + index, stride, lanes)
            return tirx.op.masked_load(wide(self.dtype, lanes), self.buffer, where, mask)
        return self.buffer[tirx.Ramp(self.offset + index, stride, lanes)]

    def store(self, index: Any, value: Any, lanes: int, stride: int = 1, mask: Any = None) -> None:
        where = tirx.Ramp(self.offset + index, stride, lanes)
        if mask is None:
            T.buffer_store(self.buffer, value, [where])
        else:
            T.evaluate(tirx.op.masked_store(self.buffer, value, where, mask))


def function(kernel: Kernel, machine: Machine) -> Any:
    """The kernel as a private function of an IR module: (pointer, offset) for each array, returning 0."""
    with IRBuilder() as builder, T.prim_func(s_tir=True, is_private=True):
        names = [(T.arg(f"a{i}", T.handle(dtype)), T.arg(f"o{i}", T.int32())) for i, dtype in enumerate(kernel.arrays)]
        T.func_ret(tvm.ir.PrimType(INT32))
        T.func_attr({"tirx.noalias": True})
        arrays = [
            Array(T.decl_buffer((SPAN,), dtype, data=pointer), offset, dtype)
            for (pointer, offset), dtype in zip(names, kernel.arrays, strict=True)
        ]
        kernel.body(machine, arrays)
        T.Return(const(0))
    return builder.get()


def const(value: float | int, dtype: str = INT32) -> Any:
    """A number in TIR."""
    return tirx.const(value, dtype)


def splat(value: float | int, lanes: int, dtype: str = "float32") -> Any:
    """A number in every lane."""
    return tirx.const(value, dtype) if lanes == 1 else tirx.Broadcast(tirx.const(value, dtype), lanes)


def wide(dtype: str, lanes: int) -> str:
    """The type of a vector; a vector of one is a number."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


class Register:
    """One vector that changes. A small buffer of its own, which code generation keeps in a register; its scope has to
    be "global", because TVM 0.27 takes every "local" one from the heap where a function has no tensors but pointers."""

    def __init__(self, lanes: int, dtype: str = "float32") -> None:
        self.buffer = T.alloc_buffer((lanes,), dtype, scope="global")
        self.lanes = lanes

    def get(self) -> Any:
        return self.buffer[tirx.Ramp(const(0), 1, self.lanes)]

    def set(self, value: Any) -> None:
        T.buffer_store(self.buffer, value, [tirx.Ramp(const(0), 1, self.lanes)])

    def lane(self, index: Any) -> Any:
        return self.buffer[index]


@contextmanager
def loop(extent: Any, start: Any = 0) -> Iterator[Any]:
    """A serial loop; a loop of one step is no loop."""
    if isinstance(extent, int) and extent == 1:
        yield const(start) if isinstance(start, int) else start
        return
    with T.serial(start, start + extent) as index:
        yield index


@contextmanager
def room(count: int, dtype: str) -> Iterator[Any]:
    """So many numbers for the thread, of which a stack may not hold all: TVM 0.27 takes them from a pool, and has to be
    told the number and the kind of the device."""
    with T.attr(const(0), "device_id", const(0)), T.attr(const(0), "device_type", const(CPU)):
        yield T.alloc_buffer((count,), dtype, scope="global")


@contextmanager
def tasks(count: int, machine: Machine) -> Iterator[Any]:
    """Steps that may run at the same time on the threads of the session."""
    if count == 1:
        yield const(0)
    elif machine.threads == 1:
        with T.serial(0, count) as index:
            yield index
    else:
        with T.parallel(0, count) as index:
            yield index


def tail(first: Any, limit: int, lanes: int) -> Any:
    """Lanes `first`, `first + 1`, ... that lie below `limit`, as a mask."""
    return tirx.Ramp(first, 1, lanes) < tirx.Broadcast(const(limit), lanes)
