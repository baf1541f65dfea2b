"""Loops that kernels share: walks over several arrays at once, strips of a run, sums over vectors.

A loop is its extent and the stride of each array, in the order of the kernel's arrays, as `layout.loops` finds them. A
*run* is the loop along which vectors lie; `steps` are its strides (1 nearly always, 0 where one number is repeated).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .functions import named
from .tir import INT32, Array, Machine, Register, const, loop, splat, tasks

Loop = tuple[int, tuple[int, ...]]  # extent, strides
Loops = tuple[Loop, ...]

SMALLEST_TASK = 1 << 14  # numbers; a launch of threads takes as long as reading a few times as many
CHAINS = 8  # accumulators that hide the latency of an addition: 4 cycles, 2 a cycle


def extent(loops: Loops) -> int:
    """How often the innermost statement of these loops runs."""
    return prod(size for size, _ in loops)


def moved(bases: Sequence[Any], index: Any, strides: Sequence[int]) -> list[Any]:
    """The places of all arrays after `index` steps of a loop."""
    return [base + index * stride if stride else base for base, stride in zip(bases, strides, strict=True)]


def placed(place: Any, loops: Loops, bases: Sequence[Any]) -> list[Any]:
    """The places of all arrays at the `place`-th step of a nest of loops."""
    found = list(bases)
    for index in range(len(loops) - 1, -1, -1):
        size, strides = loops[index]
        found = moved(found, place % size if index else place, strides)
        place = place // size
    return found


@contextmanager
def nested(loops: Loops, bases: Sequence[Any]) -> Iterator[list[Any]]:
    """Serial loops, one inside the other, and the places of all arrays inside them."""
    if not loops:
        yield list(bases)
        return
    (size, strides), *faster = loops
    with loop(size) as index, nested(tuple(faster), moved(bases, index, strides)) as found:
        yield found


Visit = Callable[[list[Any], int], None]


def walk(loops: Loops, bases: Sequence[Any], unroll: int, visit: Visit, last: Visit | None = None) -> None:
    """Calls `visit` with the places of all arrays and a number below `unroll`, which says what accumulator to use.

    The fastest loop is unrolled. `last` is called once behind each pass of the fastest loop: the rest of a run.
    """
    *slow, (size, strides) = loops or ((1, (0,) * len(bases)),)
    with nested(tuple(slow), bases) as here:
        steps = min(unroll, size)
        whole = size // steps if steps else 0
        if whole:
            with loop(whole) as index:
                for u in range(steps):
                    visit(moved(here, index * steps + u, strides), u)
        for u in range(size - whole * steps):
            visit(moved(here, const(whole * steps + u), strides), u)
        if last is not None:
            last(moved(here, const(size), strides), 0)


@dataclass(frozen=True)
class Strip:
    """Neighbouring vectors of a run. The last of them has `left` numbers (as many as lanes, but at the end)."""

    vectors: int
    lanes: int
    left: int

    def numbers(self, vector: int) -> int:
        return self.left if vector == self.vectors - 1 else self.lanes


@contextmanager
def units(count: int, work: int, machine: Machine) -> Iterator[Any]:
    """The steps of a loop, in tasks of some `SMALLEST_TASK` numbers at least; `work` is how many numbers a step is."""
    most = min(count, machine.threads, max(1, count * work // SMALLEST_TASK))
    per = -(-count // most)
    with tasks(-(-count // per), machine) as task:
        if per == 1:
            yield task
        elif per == count:
            with loop(count) as unit:
                yield unit
        else:
            end = tirx.Min(task * per + per, const(count)) if count % per else task * per + per
            with tir.serial(task * per, end) as unit:
                yield unit


def sweep(
    machine: Machine,
    outer: Loops,
    run: tuple[int, tuple[int, ...]],
    most: int,
    depth: int,
    emit: Callable[[list[Any], Any, Strip], None],
) -> None:
    """Calls `emit` for the strips of a run inside the outer loops: the places of all arrays, the first number, the
    strip.

    `most` is how many vectors a strip may have, `depth` how many numbers are read for each number of the run.
    """
    length, steps = run
    lanes, passes = machine.lanes, extent(outer)
    total = -(-length // lanes)
    vectors = min(most, total)
    while vectors > 1 and machine.threads > 1 and passes * -(-total // vectors) < machine.threads:
        vectors -= 1
    full, rest = divmod(length, vectors * lanes)
    columns = full + (rest > 0)
    zeros = [const(0)] * len(steps)
    with units(passes * columns, depth * vectors * lanes, machine) as unit:
        bases = placed(unit // columns, outer, zeros)
        column = unit % columns

        def strip(start: Any, numbers: int) -> None:
            count = -(-numbers // lanes)
            emit(moved(bases, start, steps), start, Strip(count, lanes, numbers - (count - 1) * lanes))

        if not rest:
            strip(column * (vectors * lanes), vectors * lanes)
        elif not full:
            strip(const(0), rest)
        else:
            with tir.If(column < full), tir.Then():
                strip(column * (vectors * lanes), vectors * lanes)
            with tir.If(column == full), tir.Then():
                strip(const(full * vectors * lanes), rest)


def blocks(length: int, size: int, emit: Callable[[Any, int], None]) -> None:
    """Calls `emit` with where each block of `size` begins and how many numbers it has; the rest is one block more."""
    whole, rest = divmod(length, size)
    if whole:
        with loop(whole) as step:
            emit(step * size, size)
    if rest:
        emit(const(whole * size), rest)


def across(length: int, steps: Sequence[int], lanes: int) -> tuple[Loop, int]:
    """A run that is reduced: the loop over its full vectors, and how many numbers are left behind them."""
    return (length // lanes, tuple(step * lanes for step in steps)), length % lanes


def fetch(array: Array, index: Any, lanes: int, step: int = 1, left: int | None = None) -> Any:
    """A vector of which `left` lanes are read (all, where it is None); what the others hold is nobody's business."""
    if step == 0 or left is None or left == lanes:
        return array.load(index, lanes, step)
    if step == 1:
        # In a register: inside `Select(mask, load, other)` TVM takes the mask for true, and the load reads every lane.
        where = tirx.Ramp(array.offset + index, 1, lanes)
        loaded = tirx.op.masked_load(f"{array.dtype}x{lanes}", array.buffer, where, first(left, lanes))
        return named(loaded, lanes, array.dtype)
    gathered = Register(lanes, array.dtype)
    gathered.set(splat(0, lanes, array.dtype))
    for lane in range(left):
        tir.buffer_store(gathered.buffer, array[index + lane * step], [const(lane)])
    return gathered.get()


def fetch_early(array: Array, index: Any) -> None:
    """Asks for the cache line of a number, into the second level; nothing happens where there is no such memory."""
    address = tir.address_of(array.buffer[array.offset + index])
    tir.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, const(0), const(2), const(1)))


def put(
    array: Array, index: Any, value: Any, lanes: int, step: int = 1, left: int | None = None, mask: Any = None
) -> None:
    """Writes `left` lanes of a vector (all, where it is None), and only those that `mask` has."""
    exists = None if left is None or left == lanes else first(left, lanes)
    chosen = exists if mask is None else mask if exists is None else tirx.And(mask, exists)
    if step == 1 or chosen is None:
        array.store(index, value, lanes, step, chosen)
        return
    kept, where = Register(lanes, array.dtype), Register(lanes, INT32)
    kept.set(value)
    where.set(tirx.Select(chosen, splat(1, lanes, INT32), splat(0, lanes, INT32)))
    for lane in range(lanes if left is None else left):
        with tir.If(where.lane(const(lane)) != 0), tir.Then():
            array[index + lane * step] = kept.lane(const(lane))


def first(count: int, lanes: int) -> Any:
    """A mask of the first `count` lanes."""
    return tirx.Ramp(const(0), 1, lanes) < tirx.Broadcast(const(count), lanes)


def halves(register: Register) -> tuple[Any, Any]:
    """The lower and the upper lanes of a register."""
    lanes = register.lanes // 2
    if lanes == 1:
        return register.lane(const(0)), register.lane(const(1))
    return register.buffer[tirx.Ramp(const(0), 1, lanes)], register.buffer[tirx.Ramp(const(lanes), 1, lanes)]


Combine = Callable[[Any, Any], Any]


def joined(registers: Sequence[Register], combine: Combine) -> Register:
    """All accumulators in the first one."""
    left = list(registers)
    while len(left) > 1:
        half = -(-len(left) // 2)
        for into, other in zip(left[: len(left) - half], left[half:], strict=True):
            into.set(combine(into.get(), other.get()))
        left = left[:half]
    return left[0]


def folded(registers: Sequence[Register], combine: Combine) -> Register:
    """One number out of all lanes of all accumulators, repeated in every lane."""
    register = joined(registers, combine)
    lanes = register.lanes
    while register.lanes > 1:
        low, high = halves(register)
        value = combine(low, high)
        register = Register(max(register.lanes // 2, 1), "float32")
        if register.lanes == 1:
            tir.buffer_store(register.buffer, value, [const(0)])
        else:
            register.set(value)
    whole = Register(lanes)
    whole.set(tirx.Broadcast(register.lane(const(0)), lanes))
    return whole


def registers(count: int, lanes: int, value: float, dtype: str = "float32") -> list[Register]:
    """Accumulators that begin with one number."""
    made = [Register(lanes, dtype) for _ in range(count)]
    for register in made:
        register.set(splat(value, lanes, dtype))
    return made
