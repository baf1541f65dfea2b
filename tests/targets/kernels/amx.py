"""A processor with tiles in LLVM's own language: the instructions of AMX as functions on memory, for machines without.

The code that runs is that of the product, with nothing replaced but the instructions themselves. They do what the
manual says (Intel SDM volume 2, "LDTILECFG" and what follows), in its order of sums, but for denormal numbers, which
the instructions take for zero. What a processor refuses ends the process with the same signal, SIGILL: tiles that are
not configured, sizes that do not fit each other.

Every thread has tiles of its own, found by its thread pointer: libraries that are compiled in memory have no
thread-local storage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from graphprune.runtime import cpu
from graphprune.targets.kernels import tiles
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness

INSTRUCTIONS = tiles.code
NAME = re.compile(r"@llvm\.x86\.(\w+)")
THREADS = 64


@dataclass(frozen=True)
class Emulated(Machine):
    """A machine that has no tiles but those below."""


NEEDED = {"avx512f", "avx512_bf16", "avx512_vnni"}
REAL = {*NEEDED, "amx_tile", "amx_bf16", "amx_int8"}
MACHINES: list[Machine] = [
    kind(16, 32, threads, pairs=True, dots=True, tiles=True)
    for kind, needed in ((Emulated, NEEDED), (Machine, REAL))
    for threads in (1, 2)
    if needed <= harness.known() and (kind is Emulated or cpu.ask())
]


@contextmanager
def emulated(machine: Machine) -> Iterator[None]:
    """What is compiled inside for an emulated machine has functions in the place of the instructions."""
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(machine, Emulated):
            patch.setattr(tiles, "code", code)
        yield


def run(kernel: tiles.Tiles, machine: Machine, *arrays: np.ndarray) -> np.ndarray:
    """As `harness.run`."""
    with emulated(machine):
        return harness.run(kernel, machine, *arrays)


def code(dot: str, tall: int, wide: int, depth: int) -> str:
    """The functions of the product without a mention of AMX."""
    lines = INSTRUCTIONS(dot, tall, wide, depth).splitlines()
    text = "\n".join(line for line in lines if not line.startswith(("declare", "attributes")))
    return NAME.sub(r"@emulated_\1", text) + PROCESSOR


def rows(name: str, arguments: str, before: str, count: str, each: str) -> str:
    """A function with a loop over %r from 0 to below a count."""
    return f"""
define linkonce_odr void @emulated_{name}({arguments}) #1 {{
start:
{before}
  br label %head
head:
  %r = phi i32 [ 0, %start ], [ %next, %body ]
  %more = icmp ult i32 %r, {count}
  br i1 %more, label %body, label %done
body:
{each}
  %next = add i32 %r, 1
  br label %head
done:
  ret void
}}"""


def of_tile(name: str, number: str) -> str:
    """The numbers, the rows and the words of a row of a tile; a tile without rows is refused."""
    return f"""
  %{name}_place = getelementptr %State, ptr %s, i32 0, i32 0, i8 {number}
  %{name}_rows_at = getelementptr %State, ptr %s, i32 0, i32 1, i8 {number}
  %{name}_rows = load i32, ptr %{name}_rows_at
  %{name}_words_at = getelementptr %State, ptr %s, i32 0, i32 2, i8 {number}
  %{name}_words = load i32, ptr %{name}_words_at
  call void @emulated_must(i32 1, i32 %{name}_rows)"""


STATE = "  %s = call ptr @emulated_state()"
LANES = """
  %count = insertelement <16 x i32> poison, i32 %t_words, i32 0
  %counts = shufflevector <16 x i32> %count, <16 x i32> poison, <16 x i32> zeroinitializer
  %lanes = icmp ult <16 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7, i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>, %counts"""  # noqa: E501
ROW = """
  %wide = zext i32 %r to i64
  %far = mul i64 %wide, %apart
  %there = getelementptr i8, ptr %p, i64 %far
  %row = getelementptr <16 x i32>, ptr %t_place, i32 %r"""

CONFIGURE = rows(
    "ldtilecfg",
    "ptr %p",
    f"""{STATE}
  %palette = load i8, ptr %p
  %known = icmp eq i8 %palette, 1
  %yes = zext i1 %known to i32
  call void @emulated_must(i32 1, i32 %yes)
  store %State zeroinitializer, ptr %s
  %owner = call i64 @emulated_thread()""",
    "8",
    """
  %two = mul i32 %r, 2
  %bytes_place = add i32 %two, 16
  %bytes_at = getelementptr i8, ptr %p, i32 %bytes_place
  %bytes = load i16, ptr %bytes_at
  %rows_place = add i32 %r, 48
  %rows_at = getelementptr i8, ptr %p, i32 %rows_place
  %rows = load i8, ptr %rows_at
  %words16 = lshr i16 %bytes, 2
  %words = zext i16 %words16 to i32
  %rows32 = zext i8 %rows to i32
  call void @emulated_must(i32 %words, i32 16)
  call void @emulated_must(i32 %rows32, i32 16)
  %to_rows = getelementptr %State, ptr %s, i32 0, i32 1, i32 %r
  store i32 %rows32, ptr %to_rows
  %to_words = getelementptr %State, ptr %s, i32 0, i32 2, i32 %r
  store i32 %words, ptr %to_words""",
)
LOAD = rows(
    "tileloadd64",
    "i8 %t, ptr %p, i64 %apart",
    f"""{STATE}{of_tile("t", "%t")}
  store [16 x <16 x i32>] zeroinitializer, ptr %t_place{LANES}""",
    "%t_rows",
    f"""{ROW}
  %words = call <16 x i32> @llvm.masked.load.v16i32.p0(ptr %there, i32 4, <16 x i1> %lanes, <16 x i32> zeroinitializer)
  store <16 x i32> %words, ptr %row""",
)
STORE = rows(
    "tilestored64",
    "i8 %t, ptr %p, i64 %apart",
    f"{STATE}{of_tile('t', '%t')}{LANES}",
    "%t_rows",
    f"""{ROW}
  %words = load <16 x i32>, ptr %row
  call void @llvm.masked.store.v16i32.p0(<16 x i32> %words, ptr %there, i32 4, <16 x i1> %lanes)""",
)
# A row of sums, from a row of the left tile and all rows of the right one.
ROW_OF_SUMS = """
  %row = getelementptr <16 x i32>, ptr %c_place, i32 %r
  %left = getelementptr [16 x i32], ptr %a_place, i32 %r
  %old = load <16 x {kind}>, ptr %row
  %new = call <16 x {kind}> @emulated_row_{name}(<16 x {kind}> %old, ptr %left, ptr %b_place, i32 %a_words)
  store <16 x {kind}> %new, ptr %row"""
FIT = """
  call void @emulated_must(i32 %c_rows, i32 %a_rows)
  call void @emulated_must(i32 %a_rows, i32 %c_rows)
  call void @emulated_must(i32 %c_words, i32 %b_words)
  call void @emulated_must(i32 %b_words, i32 %c_words)
  call void @emulated_must(i32 %a_words, i32 %b_rows)
  call void @emulated_must(i32 %b_rows, i32 %a_words)"""


def product(name: str, kind: str) -> str:
    tiles_ = "".join(of_tile(each, f"%{each}") for each in "cab")
    each = ROW_OF_SUMS.format(kind=kind, name=name)
    return rows(name, "i8 %c, i8 %a, i8 %b", f"{STATE}{tiles_}{FIT}", "%c_rows", each)


def row(name: str, kind: str, sums: tuple[str, ...], zero: str, each: str, last: str) -> str:
    """A function with a loop over the words %k of a row of the left tile."""
    phis = "\n".join(f"  %{s} = phi <16 x {kind}> [ {zero}, %start ], [ %{s}_next, %body ]" for s in sums)
    return f"""
define linkonce_odr <16 x {kind}> @emulated_row_{name}(<16 x {kind}> %old, ptr %left, ptr %right, i32 %count) #1 {{
start:
  br label %head
head:
  %k = phi i32 [ 0, %start ], [ %next, %body ]
{phis}
  %more = icmp ult i32 %k, %count
  br i1 %more, label %body, label %done
body:
  %a_at = getelementptr i32, ptr %left, i32 %k
  %a_word = load i32, ptr %a_at
  %a_first = insertelement <16 x i32> poison, i32 %a_word, i32 0
  %a = shufflevector <16 x i32> %a_first, <16 x i32> poison, <16 x i32> zeroinitializer
  %b_at = getelementptr <16 x i32>, ptr %right, i32 %k
  %b = load <16 x i32>, ptr %b_at
{each}
  %next = add i32 %k, 1
  br label %head
done:
{last}
}}"""


BFLOAT16 = row(
    "tdpbf16ps",
    "float",
    ("even", "odd"),
    "zeroinitializer",
    """
  %a_low = shl <16 x i32> %a, splat (i32 16)
  %b_low = shl <16 x i32> %b, splat (i32 16)
  %a_high = and <16 x i32> %a, splat (i32 -65536)
  %b_high = and <16 x i32> %b, splat (i32 -65536)
  %a_even = bitcast <16 x i32> %a_low to <16 x float>
  %b_even = bitcast <16 x i32> %b_low to <16 x float>
  %a_odd = bitcast <16 x i32> %a_high to <16 x float>
  %b_odd = bitcast <16 x i32> %b_high to <16 x float>
  %even_product = fmul <16 x float> %a_even, %b_even
  %odd_product = fmul <16 x float> %a_odd, %b_odd
  %even_next = fadd <16 x float> %even, %even_product
  %odd_next = fadd <16 x float> %odd, %odd_product""",
    """
  %both = fadd <16 x float> %even, %odd
  %new = fadd <16 x float> %old, %both
  ret <16 x float> %new""",
)
BYTES = "\n".join(
    f"""
  %a_up{i} = shl <16 x i32> %a, splat (i32 {24 - 8 * i})
  %a{i} = ashr <16 x i32> %a_up{i}, splat (i32 24)
  %b_down{i} = lshr <16 x i32> %b, splat (i32 {8 * i})
  %b{i} = and <16 x i32> %b_down{i}, splat (i32 255)
  %p{i} = mul <16 x i32> %a{i}, %b{i}
  %t{i} = add <16 x i32> {f"%t{i - 1}" if i else "%sum"}, %p{i}"""
    for i in range(4)
)
INT8 = row(
    "tdpbsud",
    "i32",
    ("sum",),
    "zeroinitializer",
    BYTES + "\n  %sum_next = add <16 x i32> %t3, zeroinitializer",
    "  %new = add <16 x i32> %old, %sum\n  ret <16 x i32> %new",
)

PROCESSOR = f"""
%State = type {{ [8 x [16 x <16 x i32>]], [8 x i32], [8 x i32] }}
@emulated_owners = linkonce_odr global [{THREADS} x i64] zeroinitializer
@emulated_states = linkonce_odr global [{THREADS} x %State] zeroinitializer, align 64
{CONFIGURE}{LOAD}{STORE}{product("tdpbf16ps", "float")}{product("tdpbsud", "i32")}{BFLOAT16}{INT8}
define linkonce_odr void @emulated_tilezero(i8 %t) #1 {{
{STATE}{of_tile("t", "%t")}
  store [16 x <16 x i32>] zeroinitializer, ptr %t_place
  ret void
}}
define linkonce_odr void @emulated_tilerelease() #1 {{
{STATE}
  store %State zeroinitializer, ptr %s
  ret void
}}
define linkonce_odr void @emulated_must(i32 %least, i32 %most) #1 {{
  %fits = icmp ule i32 %least, %most
  br i1 %fits, label %yes, label %no
yes:
  ret void
no:
  call void @llvm.trap()
  unreachable
}}
define linkonce_odr i64 @emulated_thread() #1 {{
  %p = call ptr @llvm.thread.pointer.p0()
  %n = ptrtoint ptr %p to i64
  ret i64 %n
}}
define linkonce_odr ptr @emulated_state() #1 {{
start:
  %me = call i64 @emulated_thread()
  br label %look
look:
  %n = phi i32 [ 0, %start ], [ %next, %another ]
  call void @emulated_must(i32 %n, i32 {THREADS - 1})
  %at = getelementptr [{THREADS} x i64], ptr @emulated_owners, i32 0, i32 %n
  %tried = cmpxchg ptr %at, i64 0, i64 %me seq_cst seq_cst
  %owner = extractvalue {{ i64, i1 }} %tried, 0
  %free = extractvalue {{ i64, i1 }} %tried, 1
  %mine = icmp eq i64 %owner, %me
  %found = or i1 %free, %mine
  br i1 %found, label %done, label %another
another:
  %next = add i32 %n, 1
  br label %look
done:
  %s = getelementptr [{THREADS} x %State], ptr @emulated_states, i32 0, i32 %n
  ret ptr %s
}}
declare ptr @llvm.thread.pointer.p0()
declare void @llvm.trap()
declare <16 x i32> @llvm.masked.load.v16i32.p0(ptr, i32 immarg, <16 x i1>, <16 x i32>)
declare void @llvm.masked.store.v16i32.p0(<16 x i32>, ptr, i32 immarg, <16 x i1>)
attributes #0 = {{ alwaysinline nounwind }}
attributes #1 = {{ noinline nounwind "target-features"="+avx512f,+avx512bw,+avx512dq,+avx512vl" }}
"""
