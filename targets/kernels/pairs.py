"""Products of bfloat16 numbers, two at a time: AVX512_BF16 multiplies pairs and adds both products to one float32.

    total[lane] + x[2 lane] * w[2 lane] + x[2 lane + 1] * w[2 lane + 1]

Neighbouring channels are a pair, in one 32-bit word, the even one in the lower half. No vector of bfloat16 gets through
TVM to LLVM, so that the two instructions are functions in LLVM's own language, which are inlined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .loops import Loops, across, extent, fetch, placed, put, units, walk
from .tir import INT32, Array, Machine, const, splat

LANES = 16
_ATTRIBUTES = 'alwaysinline nounwind "target-features"="+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512bf16"'
_CODE = f"""
define linkonce_odr <16 x float> @graphprune_dot_bf16(<16 x float> %total, <16 x i32> %x, <16 x i32> %w) #0 {{
  %a = bitcast <16 x i32> %x to <32 x bfloat>
  %b = bitcast <16 x i32> %w to <32 x bfloat>
  %r = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float> %total, <32 x bfloat> %a, <32 x bfloat> %b)
  ret <16 x float> %r
}}
define linkonce_odr <16 x i32> @graphprune_pair_bf16(<16 x float> %even, <16 x float> %odd) #0 {{
  %e = call <16 x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.512(<16 x float> %even)
  %o = call <16 x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.512(<16 x float> %odd)
  %eb = bitcast <16 x bfloat> %e to <16 x i16>
  %ob = bitcast <16 x bfloat> %o to <16 x i16>
  %low = zext <16 x i16> %eb to <16 x i32>
  %wide = zext <16 x i16> %ob to <16 x i32>
  %high = shl <16 x i32> %wide, splat (i32 16)
  %r = or <16 x i32> %low, %high
  ret <16 x i32> %r
}}
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
declare <16 x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.512(<16 x float>)
attributes #0 = {{ {_ATTRIBUTES} }}
"""


@contextmanager
def instructions() -> Iterator[None]:
    """Statements inside may use `dot` and `pair`."""
    with tir.attr(const(0), "pragma_import_llvm", _CODE):
        yield


def dot(total: Any, x: Any, w: Any) -> Any:
    """float32 sums, and words of pairs."""
    return tirx.call_pure_extern(f"float32x{LANES}", "graphprune_dot_bf16", total, x, w)


def pair(even: Any, odd: Any) -> Any:
    """Words of pairs from two vectors of float32, rounded to the nearest, ties to even; NaN stays NaN."""
    return tirx.call_pure_extern(f"{INT32}x{LANES}", "graphprune_pair_bf16", even, odd)


def packed(weights: np.ndarray) -> np.ndarray:
    """Pairs of the last axis of float32 numbers as words of int32; an odd one out is paired with zero."""
    if weights.shape[-1] % 2:
        weights = np.concatenate([weights, np.zeros_like(weights[..., :1])], -1)
    halves = rounded(weights)
    return np.ascontiguousarray((halves[..., ::2] | halves[..., 1::2] << np.uint32(16)).view(np.int32))


def rounded(numbers: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers, rounded to bfloat16; no negative zeros."""
    bits = np.ascontiguousarray(numbers + np.float32(0), np.float32).view(np.uint32)
    upper = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    upper = np.where(np.isnan(numbers), bits >> np.uint32(16) | np.uint32(0x40), upper)
    return np.where(upper == 0x8000, np.uint32(0), upper)


@dataclass(frozen=True)
class Pairs:
    """The arrays are x (float32) and y (words). y[o, p] is the pair of x[o, p] and of the number `apart` behind it, or
    of zero where `single`. `outer` are loops with the strides of x and y, around a run of `length` neighbours."""

    length: int
    apart: int
    outer: Loops = ()
    single: bool = False

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("float32", INT32)

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        x, y = arrays
        assert machine.lanes == LANES
        run, rest = across(self.length, (1, 1), LANES)
        with instructions(), units(extent(self.outer), 2 * self.length, machine) as unit:
            bases = placed(unit, self.outer, [const(0), const(0)])

            def convert(left: int | None, at: Sequence[Any]) -> None:
                even = fetch(x, at[0], LANES, 1, left)
                odd = splat(0.0, LANES) if self.single else fetch(x, at[0] + self.apart, LANES, 1, left)
                put(y, at[1], pair(even, odd), LANES, 1, left)

            walk((run,), bases, 4, lambda at, _: convert(None, at), (lambda at, _: convert(rest, at)) if rest else None)
