"""Products of 8-bit integers, four at a time: words of four activations (0..255) and of four weights (-128..127).

    total[lane] + sum over i < 4 of x[4 lane + i] * w[4 lane + i]

Sums are integers of 32 bits and exact, as long as they fit. AVX512_VNNI has this as one instruction; without it the
numbers are widened to 16 bits and multiplied in pairs, which is exact too (multiplying bytes in pairs would saturate).
Four channels, or four neighbours of a row, are one word; TVM knows neither instruction, so that they are functions in
LLVM's own language, which are inlined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .loops import Loops, across, extent, fetch, moved, placed, put, units, walk
from .tir import INT32, Array, Machine, const, loop, splat

FLIP = 128  # what is added to activations of -128..127
SIGNS = -0x7F7F7F80  # the same for each byte of a word, as exclusive or
PAIRS = {  # sums of products of neighbouring integers of 16 bits, by lanes
    4: ("llvm.x86.sse2.pmadd.wd", "+sse2"),
    8: ("llvm.x86.avx2.pmadd.wd", "+avx2"),
    16: ("llvm.x86.avx512.pmaddw.d.512", "+avx512f,+avx512bw"),
}


@cache
def code(lanes: int, dots: bool) -> str:
    """The functions for vectors of this many words."""
    words, halves = f"<{lanes} x i32>", f"<{2 * lanes} x i16>"
    head = f"define linkonce_odr {words} @graphprune_dot_int8({words} %total, {words} %x, {words} %w) #0 {{"
    many = 4 * lanes
    both = ", ".join(f"i32 {place}, i32 {many + place}" for place in range(many))
    row = f"<{many} x i8>"
    even = f"""
define linkonce_odr <{many} x i32> @graphprune_words({row} %a, {row} %b, {row} %c, {row} %d) #0 {{
  %low = shufflevector {row} %a, {row} %b, <{2 * many} x i32> <{both}>
  %high = shufflevector {row} %c, {row} %d, <{2 * many} x i32> <{both}>
  %low16 = bitcast <{2 * many} x i8> %low to <{many} x i16>
  %high16 = bitcast <{2 * many} x i8> %high to <{many} x i16>
  %all = shufflevector <{many} x i16> %low16, <{many} x i16> %high16, <{2 * many} x i32> <{both}>
  %r = bitcast <{2 * many} x i16> %all to <{many} x i32>
  ret <{many} x i32> %r
}}
define linkonce_odr {words} @graphprune_every_second(<{2 * lanes} x i8> %x) #0 {{
  %pairs = bitcast <{2 * lanes} x i8> %x to <{lanes} x i16>
  %low = and <{lanes} x i16> %pairs, splat (i16 255)
  %r = zext <{lanes} x i16> %low to {words}
  ret {words} %r
}}"""
    if dots:
        bytes_ = "<64 x i8>"
        return f"""{head}
  %a = bitcast {words} %x to {bytes_}
  %b = bitcast {words} %w to {bytes_}
  %r = call {words} @llvm.x86.avx512.vpdpbusd.512({words} %total, {bytes_} %a, {bytes_} %b)
  ret {words} %r
}}{even}
declare {words} @llvm.x86.avx512.vpdpbusd.512({words}, {bytes_}, {bytes_})
attributes #0 = {{ alwaysinline nounwind "target-features"="+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni" }}
"""
    name, features = PAIRS[lanes]
    return f"""{head}
  %x_even = and {words} %x, splat (i32 16711935)
  %x_moved = lshr {words} %x, splat (i32 8)
  %x_odd = and {words} %x_moved, splat (i32 16711935)
  %w_halves = bitcast {words} %w to {halves}
  %w_moved = shl {halves} %w_halves, splat (i16 8)
  %w_even = ashr {halves} %w_moved, splat (i16 8)
  %w_odd = ashr {halves} %w_halves, splat (i16 8)
  %a = bitcast {words} %x_even to {halves}
  %b = bitcast {words} %x_odd to {halves}
  %p = call {words} @{name}({halves} %a, {halves} %w_even)
  %q = call {words} @{name}({halves} %b, {halves} %w_odd)
  %s = add {words} %p, %q
  %r = add {words} %s, %total
  ret {words} %r
}}{even}
declare {words} @{name}({halves}, {halves})
attributes #0 = {{ alwaysinline nounwind "target-features"="{features}" }}
"""


@contextmanager
def instructions(machine: Machine) -> Iterator[None]:
    """Statements inside may use `dot` and what `Quads` does."""
    with tir.attr(const(0), "pragma_import_llvm", code(machine.lanes, machine.dots)):
        yield


def dot(total: Any, x: Any, w: Any, lanes: int) -> Any:
    """int32 sums, words of activations and words of weights."""
    return tirx.call_pure_extern(f"{INT32}x{lanes}", "graphprune_dot_int8", total, x, w)


def packed(weights: np.ndarray) -> np.ndarray:
    """Four neighbours of the last axis of int8 numbers as words of int32; what is missing is zero."""
    short = -weights.shape[-1] % 4
    wide = np.concatenate([weights, np.zeros((*weights.shape[:-1], short), np.int8)], -1) if short else weights
    return np.ascontiguousarray(wide, np.int8).view("<i4")


@dataclass(frozen=True)
class Quads:
    """The arrays are x (uint8 or int8), table and y (words). Byte i of y[o, q, r, p] is x[o, table[4 q + i] + r * down
    + p * step], plus 128 where x has signs.

    `outer` are loops with the strides of x and y; there are `words` rows of words, `word` apart in y, each of them
    `rows` runs of `length` places, `row` apart. `guarded`: behind the run nothing of x may be read.
    """

    words: int
    rows: int
    length: int
    down: int
    step: int
    word: int
    row: int
    outer: Loops = ()
    dtype: str = "uint8"
    guarded: bool = False

    @property
    def arrays(self) -> tuple[str, ...]:
        return (self.dtype, INT32, INT32)

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        x, table, y = arrays
        lanes = machine.lanes
        steps = (*(self.step,) * 4, 1)
        wide = self.length // (4 * lanes) if self.step == 1 else 0
        done = wide * 4 * lanes
        run, rest = across(self.length - done, steps, lanes)
        work = 8 * self.rows * self.length
        with instructions(machine), units(self.words * extent(self.outer), work, machine) as unit:
            first = placed(unit // self.words, self.outer, [const(0), const(0)])
            word = unit % self.words
            bases = [first[0] + table[word * 4 + i] for i in range(4)]
            bases.append(first[1] + word * self.word)

            def gather(left: int | None, at: Sequence[Any]) -> None:
                total: Any = None
                for i in range(4):
                    part = self.numbers(x, at[i], lanes, left)
                    part = tirx.shift_left(part, splat(8 * i, lanes, INT32)) if i else part
                    total = part if total is None else tirx.bitwise_or(total, part)
                put(y, at[4], total, lanes, 1, left)

            with loop(self.rows) as row:
                here = moved(bases, row, (*(self.down,) * 4, self.row))
                if wide:
                    with loop(wide) as step:
                        self.many(x, y, moved(here, step, (4 * lanes,) * 5), 4 * lanes)
                    here = moved(here, const(done), steps)
                end = (lambda at, _: gather(rest, at)) if rest else None
                walk((run,), here, 2, lambda at, _: gather(None, at), end)

    def many(self, x: Array, y: Array, at: Sequence[Any], lanes: int) -> None:
        """As many words as four vectors hold, by shuffles of whole vectors."""
        rows = [x.load(place, lanes) for place in at[:4]]
        value = tirx.call_pure_extern(f"{INT32}x{lanes}", "graphprune_words", *rows)
        if x.dtype == "int8":
            value = tirx.bitwise_xor(value, splat(SIGNS, lanes, INT32))
        y.store(at[4], value, lanes)

    def numbers(self, x: Array, at: Any, lanes: int, left: int | None) -> Any:
        """One vector of x as int32, from 0 to 255."""
        missing = left if self.guarded else None
        if self.step == 2 and (missing is None or missing == lanes) and not self.guarded and x.dtype == "uint8":
            pairs = x.load(at, 2 * lanes)
            return tirx.call_pure_extern(f"{INT32}x{lanes}", "graphprune_every_second", pairs)
        value = tirx.Cast(f"{INT32}x{lanes}", fetch(x, at, lanes, self.step, missing if self.step == 1 else left))
        return value + splat(FLIP, lanes, INT32) if x.dtype == "int8" else value
