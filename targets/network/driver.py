"""The whole network as one function: `main(constants, arena, inputs ..., outputs ...)` calls the kernels in order.

Equal kernels are one function of the library. Constants lie in one file, 64-byte aligned; equal ones are stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from graphprune.targets.kernels.tir import INT32, Kernel, const, function, loop
from graphprune.targets.network.graph import Node
from graphprune.targets.network.layout import Storage, View
from graphprune.targets.network.lowering import Call, Lowering
from graphprune.targets.network.memory import ALIGNMENT, place, rounded

# TVM tells LLVM that different buffers never alias. Kernels are inlined into one function, where the buffers of
# different kernels share scratch: with that promise stores of one step were moved behind those of the next.
SAFE = ("-enable-tbaa:bool=false",)
FALLBACK = "graphprune.fallback"
TICK = "graphprune.tick"  # called with the number of each call when it has ended, in a library built to be timed


@dataclass(frozen=True)
class Program:
    """The compiled library with what it needs at run time."""

    library: Any
    constants: np.ndarray  # uint8
    arena: int  # bytes
    names: tuple[str, ...]  # the function of each call
    fallbacks: tuple[Call, ...]


def compiled(
    lowered: Lowering,
    target: Mapping[str, Any],
    identity: str = "",
    *,
    timed: bool = False,
    known: list[Node] | None = None,
) -> Program:
    """The library and what it needs. `known` are the nodes that have a model of their own already, in the order of
    their keys; those that this library falls back for are added."""
    alone = [] if known is None else known
    machine = lowered.machine
    functions: dict[Kernel, str] = {}
    for call in lowered.calls:
        if call.kernel is not None and call.kernel not in functions:
            functions[call.kernel] = f"{type(call.kernel).__name__.lower()}_{len(functions)}"
    module = tvm.IRModule({name: function(kernel, machine) for kernel, name in functions.items()})
    places, arena = place(lowered.calls)
    starts, constants = stored(lowered)
    fallbacks = tuple(call for call in lowered.calls if call.kernel is None)
    alone += [call.node for call in fallbacks if call.node not in alone]
    sizes = arena, constants.size
    module["main"] = main(lowered, module, functions, {**places, **starts}, sizes, alone, identity, timed)
    with tvm.transform.PassContext(config={"tirx.disable_storage_rewrite": True}):
        library = tvm.compile(module, target=tvm.target.Target({**target, "cl-opt": list(SAFE)}))
    names = tuple(FALLBACK if call.kernel is None else functions[call.kernel] for call in lowered.calls)
    return Program(library, constants, arena, names, fallbacks)


def stored(lowered: Lowering) -> tuple[dict[Storage, int], np.ndarray]:
    """Where each constant that a call reads begins in the file of constants, and the file."""
    starts: dict[Storage, int] = {}
    known: dict[tuple[str, bytes], int] = {}
    pieces: list[tuple[int, bytes]] = []
    size = 0
    for call in lowered.calls:
        for view in call.views:
            storage = view.storage
            if storage.kind != "constant" or storage in starts:
                continue
            data = lowered.constants[storage].tobytes()
            key = (storage.dtype, data)
            if key not in known:
                known[key] = size
                pieces.append((size, data))
                size = rounded(size + len(data), ALIGNMENT)
            starts[storage] = known[key]
    file = np.zeros(size + ALIGNMENT, "uint8")
    for start, data in pieces:
        file[start : start + len(data)] = np.frombuffer(data, "uint8")
    return starts, file


def main(
    lowered: Lowering,
    module: Any,
    functions: Mapping[Kernel, str],
    places: Mapping[Storage, int],
    sizes: tuple[int, int],
    alone: Sequence[Node],
    identity: str,
    timed: bool,
) -> Any:
    graph, (arena, constants) = lowered.graph, sizes
    ends = {view.storage for call in lowered.calls for view in call.views if view.storage.kind in {"input", "output"}}
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        handles = [T.arg(name, T.handle()) for name in ("constants", "arena")]
        inputs = [T.arg(f"input{i}", T.handle()) for i in range(len(graph.inputs))]
        outputs = [T.arg(f"output{i}", T.handle()) for i in range(len(graph.outputs))]
        T.func_attr({"global_symbol": "main"})
        roots = {
            "constant": T.match_buffer(handles[0], (constants,), "uint8"),
            "scratch": T.match_buffer(handles[1], (arena,), "uint8"),
        }
        buffers: dict[Storage, Any] = {}
        by_name = {(storage.kind, storage.name): storage for storage in ends}
        for kind, values, arguments in (("input", graph.inputs, inputs), ("output", graph.outputs, outputs)):
            for value, argument in zip(values, arguments, strict=True):
                buffer = T.match_buffer(argument, tuple(value.shape), value.dtype)
                if (kind, value.name) in by_name:
                    buffers[by_name[kind, value.name]] = buffer
        aliases: dict[tuple[str, str], Any] = {}

        def pointer(view: View) -> Any:
            storage = view.storage
            if storage in buffers:
                buffer = buffers[storage]
                return T.address_of(buffer[tuple(const(0) for _ in buffer.shape)])
            root = roots[storage.kind]
            width = np.dtype(storage.dtype).itemsize
            key = storage.kind, storage.dtype
            if key not in aliases:
                size = (constants if storage.kind == "constant" else arena) // width
                aliases[key] = T.decl_buffer((size,), storage.dtype, data=root.data)
            return T.address_of(aliases[key][const(places[storage] // width)])

        for _, found in groupby(enumerate(lowered.calls), key=lambda each: each[1].samples):
            calls = list(found)
            with loop(calls[0][1].times) as sample:
                for number, call in calls:
                    if timed:
                        T.evaluate(tirx.call_packed(TICK, const(number)))
                    if call.kernel is None:
                        T.evaluate(fallen(f"{identity}/{alone.index(call.node)}", call.views, pointer))
                        continue
                    offsets = [const(view.offset) + sample * call.move(view) for view in call.views]
                    arguments = [part for pair in zip(map(pointer, call.views), offsets, strict=True) for part in pair]
                    callee = module.get_global_var(functions[call.kernel])
                    T.evaluate(tvm.ir.Call(callee, arguments, ret_ty=tvm.ir.PrimType(INT32)))
        if timed:
            T.evaluate(tirx.call_packed(TICK, const(len(lowered.calls))))
    return builder.get()


def fallen(key: str, views: Sequence[View], pointer: Callable[[View], Any]) -> Any:
    """The call of a fallback on dense views."""
    return tirx.call_packed(FALLBACK, tvm.ir.StringImm(key), *(stacked(view, pointer(view)) for view in views))


def stacked(view: View, pointer: Any) -> Any:
    """A tensor on the stack over a dense view, as packed functions take it."""
    shape = tirx.call_intrin("handle", "tirx.tvm_stack_make_shape", *[tirx.const(size, "int64") for size in view.shape])
    return tirx.tvm_stack_make_array(pointer, shape, 0, len(view.shape), tirx.const(0, view.dtype), 0)
