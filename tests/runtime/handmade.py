"""Small networks compiled by hand, as a compiler would hand them over: what the runtime is tested with."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphprune.runtime import folder
from graphprune.runtime.artifact import Layer, Network, Tensor, Variant
from graphprune.runtime.cpu import LEVELS
from graphprune.runtime.manifest import Manifest

ID = "0123456789abcdef"
ROWS, COLUMNS = 4, 6
BIAS = np.arange(COLUMNS, dtype=np.float32) - 2.5
ARENA = 128
MCPU = {"v1": "x86-64", "v3": "x86-64-v3", "v4": "x86-64-v4"}


@functools.cache
def library(variant: str, kind: str = "counting") -> bytes:
    """y = relu(x + bias). `counting` also says in `calls` how often this arena was used, `stepping` leaves x + x to
    fallback 0 first, and `plain` does nothing else."""
    import tvm
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)
    def counting(constants: T.handle, arena: T.handle, x: T.handle, y: T.handle, calls: T.handle):  # type: ignore[no-untyped-def]
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        C = T.match_buffer(constants, (24,), "uint8")
        A = T.match_buffer(arena, (128,), "uint8")
        X = T.match_buffer(x, (4, 6), "float32")
        Y = T.match_buffer(y, (4, 6), "float32")
        N = T.match_buffer(calls, (1,), "int32")
        B = T.decl_buffer((6,), "float32", data=T.reinterpret(C.data, dtype="handle"))
        A[0] = A[0] + T.uint8(1)
        N[0] = T.Cast("int32", A[0])
        for i in T.parallel(4):
            for j in T.serial(6):
                Y[i, j] = T.max(X[i, j] + B[j], T.float32(0))

    @T.prim_func(s_tir=True)
    def plain(constants: T.handle, arena: T.handle, x: T.handle, y: T.handle):  # type: ignore[no-untyped-def]
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        C = T.match_buffer(constants, (24,), "uint8")
        A = T.match_buffer(arena, (128,), "uint8")
        X = T.match_buffer(x, (4, 6), "float32")
        Y = T.match_buffer(y, (4, 6), "float32")
        B = T.decl_buffer((6,), "float32", data=T.reinterpret(C.data, dtype="handle"))
        A[1] = T.uint8(1)
        for i in T.serial(4):
            for j in T.serial(6):
                Y[i, j] = T.max(X[i, j] + B[j], T.float32(0))

    @T.prim_func(s_tir=True)
    def stepping(constants: T.handle, arena: T.handle, x: T.handle, y: T.handle, calls: T.handle):  # type: ignore[no-untyped-def]
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        C = T.match_buffer(constants, (24,), "uint8")
        A = T.match_buffer(arena, (128,), "uint8")
        X = T.match_buffer(x, (4, 6), "float32")
        Y = T.match_buffer(y, (4, 6), "float32")
        N = T.match_buffer(calls, (1,), "int32")
        B = T.decl_buffer((6,), "float32", data=T.reinterpret(C.data, dtype="handle"))
        N[0] = T.Cast("int32", A[0])
        T.evaluate(T.call_packed("graphprune.fallback", "0123456789abcdef/0", X, Y))
        for i in T.serial(4):
            for j in T.serial(6):
                Y[i, j] = T.max(Y[i, j] + B[j], T.float32(0))

    target = tvm.target.Target({"kind": "llvm", "mcpu": MCPU[level(variant)]})
    bodies = {"counting": counting, "stepping": stepping, "plain": plain}
    made = tvm.compile(bodies[kind], target=target)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "library.so"
        made.export_library(str(path))
        return path.read_bytes()


def double(rows: int = ROWS) -> bytes:
    """x + x, as an ONNX model."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (rows, COLUMNS)) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def model(rows: int | str = ROWS) -> onnx.ModelProto:
    """The ONNX model that the `plain` network computes."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (rows, COLUMNS)) for name in "xy")
    bias = numpy_helper.from_array(BIAS, "bias")
    nodes = [helper.make_node("Add", ["x", "bias"], ["sum"]), helper.make_node("Relu", ["sum"], ["y"])]
    graph = helper.make_graph(nodes, "handmade", [x], [y], [bias])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def level(variant: str) -> str:
    """Of the processors that a variant is for: `v4-bf16` is one of v4."""
    return variant.partition("-")[0]


def network(*names: str, kind: str = "counting", bias: np.ndarray = BIAS) -> Network:
    """y = relu(x + bias), or relu(2x + bias) for the kind `stepping`, with variants of these names (default: v1)."""
    layers = [Layer("Add_0", "Add, Relu", "chain", microseconds=1.5, reason="there is no other")]
    if kind == "stepping":
        layers += [Layer("Add_1", "Add", "onnxruntime", fallback=True, reason="no kernel adds a number to itself")]
    constants, rows = bias.tobytes(), tuple(layers)
    variants = [Variant(n, LEVELS[level(n)], library(n, kind), constants, ARENA, rows) for n in names or ("v1",)]
    outputs = (Tensor("y", "float32", (ROWS, COLUMNS)), Tensor("calls", "int32", (1,)))
    return Network(
        id=ID,
        inputs=(Tensor("x", "float32", (ROWS, COLUMNS)),),
        outputs=outputs[: 1 if kind == "plain" else 2],
        variants=tuple(variants),
        fallbacks=(double(),) if kind == "stepping" else (),
        versions={"tvm": "0.27.0"},
    )


ABOUT = Manifest("", "x86", "x86_64", 1, (), (), (), versions={"graphprune": "test"}, source={"name": "handmade.onnx"})


def artifact(path: Path, made: Network | None = None, *, force: bool = False) -> Path:
    """An artifact of a network (default: `network()`), written as a build writes it."""
    with folder.staged(path, force) as place:
        folder.write(place, made or network(), ABOUT)
    return path


def expected(x: np.ndarray) -> np.ndarray:
    return np.maximum(x + BIAS, 0)
