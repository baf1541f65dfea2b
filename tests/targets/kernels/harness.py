"""Compiles one kernel and runs it on numpy arrays that lie at odd places, between numbers that must not be touched."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from graphprune.targets.kernels.tir import Kernel, Machine, const, function

PROCESSORS = {16: ("x86-64-v4", 32, "avx512f"), 8: ("x86-64-v3", 16, "avx2"), 4: ("x86-64", 16, "sse2")}
MARGIN = 37  # numbers on either side of an array: no multiple of anything
GARBAGE = np.float32(-7.0e30)


def known() -> set[str]:
    cpu = Path("/proc/cpuinfo")
    return set(cpu.read_text().split()) if cpu.exists() else set()


MACHINES = [
    Machine(lanes, registers, threads)
    for lanes, (_, registers, flag) in PROCESSORS.items()
    if flag in known()
    for threads in (1, 2)
]


PAIRS = [Machine(16, 32, threads, pairs=True) for threads in (1, 2) if {"avx512f", "avx512_bf16"} <= known()]
DOTS = [Machine(16, 32, threads, dots=True) for threads in (1, 2) if {"avx512f", "avx512_vnni"} <= known()]


def target_of(machine: Machine) -> dict[str, Any]:
    features = [*["+avx512bf16"] * machine.pairs, *["+avx512vnni"] * machine.dots]
    if machine.tiles and type(machine) is Machine:  # not one that is emulated
        features += ["+amx-tile", "+amx-bf16", "+amx-int8"]
    more = {"mattr": features} if features else {}
    return {"kind": "llvm", "mcpu": PROCESSORS[machine.lanes][0], "num-cores": machine.threads, **more}


@cache
def compiled(kernel: Kernel, machine: Machine) -> Any:
    """`main(pointer, offset, ...)`, which calls the kernel."""
    module = tvm.IRModule({"kernel": function(kernel, machine)})
    callee = module.get_global_var("kernel")
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_attr({"global_symbol": "main"})
        arguments = []
        for index, dtype in enumerate(kernel.arrays):
            arguments += [T.arg(f"p{index}", T.handle(dtype)), T.arg(f"o{index}", T.int32())]
        T.evaluate(tvm.ir.Call(callee, arguments, ret_ty=tvm.ir.PrimType("int32")))
        T.evaluate(const(0))
    module["main"] = builder.get()
    target = target_of(machine)
    with tvm.transform.PassContext(config={"tirx.disable_storage_rewrite": True}):
        return tvm.compile(module, target=tvm.target.Target(target))["main"]


@dataclass
class Placed:
    """An array somewhere inside memory that is 64-byte aligned: what a kernel gets is the memory and the offset."""

    numbers: np.ndarray
    address: int
    offset: int
    owner: Any

    @property
    def arguments(self) -> tuple[ctypes.c_void_p, int]:
        return ctypes.c_void_p(self.address), self.offset


def between(array: np.ndarray, margin: int = MARGIN) -> Placed:
    """A copy between margins of garbage: infinities of no use in floats, absurd numbers in integers."""
    array = np.ascontiguousarray(array).ravel()
    garbage = np.nan if array.dtype.kind == "f" else np.int64(-123456789).astype(array.dtype)
    whole = np.full(array.size + 2 * margin + 64, garbage, array.dtype)
    first = -whole.ctypes.data % 64 // whole.itemsize
    whole[first + margin : first + margin + array.size] = array
    numbers = whole[first + margin : first + margin + array.size]
    return Placed(numbers, whole.ctypes.data + first * whole.itemsize, margin, whole)


def walled(array: np.ndarray, at_end: bool) -> Placed:
    """A copy that ends (or begins) where memory that nobody may touch begins (or ends)."""
    array = np.ascontiguousarray(array).ravel()
    page = mmap.PAGESIZE
    pages = -(-max(array.nbytes, 1) // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for wall in (start, start + (pages + 1) * page):
        if protect(wall, page, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    place = page + (pages * page - array.nbytes if at_end else 0)
    numbers = np.frombuffer(memory, array.dtype, array.size, place)
    numbers[:] = array
    aligned = start + place - place % 64
    return Placed(numbers, aligned, place % 64 // array.itemsize, memory)


def run(kernel: Kernel, machine: Machine, *arrays: np.ndarray) -> np.ndarray:
    """What the last array holds afterwards. Nothing but the last array may have changed, and nothing around it."""
    assert [str(array.dtype) for array in arrays] == list(kernel.arrays)
    placed = [between(array) for array in arrays]
    before = [place.owner.copy() for place in placed]
    call(kernel, machine, placed)
    for place, old in zip(placed[:-1], before, strict=False):
        np.testing.assert_array_equal(place.owner, old)
    place, old = placed[-1], before[-1]
    found = place.numbers.copy()
    place.numbers[:] = arrays[-1].ravel()
    np.testing.assert_array_equal(place.owner, old, "written outside of the array")
    return found.reshape(arrays[-1].shape)


def call(kernel: Kernel, machine: Machine, placed: Sequence[Placed]) -> None:
    compiled(kernel, machine)(*(argument for place in placed for argument in place.arguments))


def pitch(length: int) -> int:
    """A distance of rows whose numbers behind the run are scratch."""
    return -(-length // 16) * 16


def padded(array: np.ndarray, guarded: bool) -> np.ndarray:
    """The array with NaN behind each run; nothing where the kernel has to keep off."""
    if guarded:
        return np.ascontiguousarray(array)
    wide = np.full((*array.shape[:-1], pitch(array.shape[-1])), np.nan, array.dtype)
    wide[..., : array.shape[-1]] = array
    return wide


def close(found: np.ndarray, wanted: np.ndarray, bound: float | np.ndarray) -> None:
    """NaN and infinities in the same places; elsewhere within an absolute bound."""
    wanted = np.asarray(wanted, np.float64)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(np.where(np.isinf(found), found, 0), np.where(np.isinf(wanted), wanted, 0))
    finite = np.isfinite(wanted)
    error = np.abs(np.where(finite, found, 0) - np.where(finite, wanted, 0))
    assert (error <= bound).all(), f"largest error {error.max()}, bound {np.max(bound)}"
