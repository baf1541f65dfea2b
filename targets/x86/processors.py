"""The processors that code is made for, one row each: levels of the x86-64 psABI.

A variant runs where the operating system reports all features of its row, and only there: LLVM may use any of them. To
add one, add a row, the best first.
"""

from __future__ import annotations

from graphprune.runtime.cpu import LEVELS
from graphprune.targets.target import Processor

_SHORT = (*LEVELS["v4"], "avx512_bf16", "avx512_vnni")  # there is no processor that has the first alone
_TILES = ("+avx512bf16", "+avx512vnni", "+amx-tile", "+amx-bf16", "+amx-int8")

PROCESSORS = (
    Processor(
        "v4-amx",
        (*_SHORT, "amx_bf16", "amx_int8", "amx_tile"),
        "x86-64-v4",
        lanes=16,
        registers=32,
        about="AMX, tiles of bfloat16 and of 8-bit integers (checked by emulation, not yet run on one)",
        rounding="bfloat16",
        attributes=_TILES,
        proven=False,
    ),
    Processor(
        "v4-amx-int8",
        (*_SHORT, "amx_int8", "amx_tile"),  # none has these without AVX512_BF16
        "x86-64-v4",
        lanes=16,
        registers=32,
        about="AMX, tiles of 8-bit integers, for quantised networks (checked by emulation, not yet run on one)",
        integers=True,
        attributes=tuple(name for name in _TILES if name != "+amx-bf16"),
        proven=False,
    ),
    Processor(
        "v4-bf16",
        _SHORT,
        "x86-64-v4",
        lanes=16,
        registers=32,
        about="AVX-512 with AVX512_BF16: products of bfloat16, sums in float32",
        rounding="bfloat16",
        attributes=("+avx512bf16", "+avx512vnni"),
    ),
    Processor(
        "v4-vnni",
        (*LEVELS["v4"], "avx512_vnni"),
        "x86-64-v4",
        lanes=16,
        registers=32,
        about="AVX-512 with AVX512_VNNI: products of 8-bit integers, for quantised networks",
        integers=True,
        attributes=("+avx512vnni",),
    ),
    Processor("v4", LEVELS["v4"], "x86-64-v4", lanes=16, registers=32, about="AVX-512 (F, BW, CD, DQ, VL)"),
    Processor("v3", LEVELS["v3"], "x86-64-v3", lanes=8, registers=16, about="AVX2 and FMA"),
    Processor("v1", LEVELS["v1"], "x86-64", lanes=4, registers=16, about="SSE2: every x86-64 processor"),
)
