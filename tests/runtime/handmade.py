"""Small networks compiled by hand, as a compiler would hand them over: what the runtime is tested with."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

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
def library(variant: str, stepping: bool = False) -> bytes:
    """y = relu(x + bias), and in `calls` how often this arena was used; `stepping` leaves x + x to fallback 0 first."""
    import tvm
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)
    def plain(constants: T.handle, arena: T.handle, x: T.handle, y: T.handle, calls: T.handle):  # type: ignore[no-untyped-def]
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
    def stepped(constants: T.handle, arena: T.handle, x: T.handle, y: T.handle, calls: T.handle):  # type: ignore[no-untyped-def]
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

    target = tvm.target.Target({"kind": "llvm", "mcpu": MCPU[variant]})
    made = tvm.compile(stepped if stepping else plain, target=target)
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


def variant(name: str, stepping: bool = False) -> Variant:
    layers = (Layer("Add_0", "Add, Relu", "chain", microseconds=1.5, reason="there is no other"),)
    return Variant(name, LEVELS[name], library(name, stepping), BIAS.tobytes(), ARENA, layers)


def network(*names: str, stepping: bool = False) -> Network:
    """y = relu(x + bias), or relu(2x + bias)."""
    return Network(
        id=ID,
        inputs=(Tensor("x", "float32", (ROWS, COLUMNS)),),
        outputs=(Tensor("y", "float32", (ROWS, COLUMNS)), Tensor("calls", "int32", (1,))),
        variants=tuple(variant(name, stepping) for name in names or ("v1",)),
        fallbacks=(double(),) if stepping else (),
        threads=1,
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
