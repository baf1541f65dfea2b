"""The few functions of TVM's C interface that running a library needs, called through ctypes.

TVM's Python packages would do the same, but importing them loads the compiler, and PyTorch where that is installed:
seconds, where the two shared libraries below take milliseconds. Only what the C header calls stable is used
(`tvm/ffi/c_api.h`). ctypes releases the interpreter lock while a call runs.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphprune.errors import GraphPruneError

# The type index of a value: from TVMFFITypeIndex in tvm/ffi/c_api.h.
_NONE, _INT, _BOOL, _TENSOR, _TEXT, _SHORT_TEXT, _LONG_TEXT, _OBJECTS = 0, 1, 2, 7, 8, 11, 65, 64
_HEADER_OF_OBJECT = 24  # bytes: reference counts, type index, deleter
_CPU = 1
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}  # kind of a numpy type to DLDataTypeCode

_LIBRARIES = {"tvm_ffi": "libtvm_ffi", "tvm": "libtvm_runtime"}
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


class Value(Structure):
    """TVMFFIAny: one argument or result."""

    _fields_ = (("type", c_int32), ("padding", c_uint32), ("bits", c_uint64))


class Tensor(Structure):
    """DLTensor, of the DLPack standard."""

    _fields_ = (
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )


class _Bytes(Structure):
    _fields_ = (("data", c_char_p), ("size", c_size_t))


class _Error(Structure):
    _fields_ = (("kind", _Bytes), ("message", _Bytes), ("trace", _Bytes))


_CALLBACK = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(Value), c_int32, POINTER(Value))


@dataclass(frozen=True)
class Runtime:
    """The two shared libraries; both stay loaded until the process ends."""

    ffi: ctypes.CDLL
    tvm: ctypes.CDLL

    def function(self, name: str) -> c_void_p:
        """A function that TVM registers under a name."""
        found = c_void_p()
        text = name.encode()
        self.check(self.ffi.TVMFFIFunctionGetGlobal(byref(_Bytes(text, len(text))), byref(found)))
        if not found.value:
            raise RuntimeError(f"TVM has no function {name}")
        return found

    def call(self, function: c_void_p, arguments: Any, count: int) -> Value:
        """Call a function with an array of `count` values. Raises RuntimeError with what TVM says."""
        result = Value()
        self.check(self.ffi.TVMFFIFunctionCall(function, arguments, count, byref(result)))
        return result

    def check(self, status: int) -> None:
        if status == 0:
            return
        error = c_void_p()
        self.ffi.TVMFFIErrorMoveFromRaised(byref(error))
        if not error.value:
            raise RuntimeError("TVM failed and does not say why")
        cell = ctypes.cast(error.value + _HEADER_OF_OBJECT, POINTER(_Error)).contents
        kind, message = (ctypes.string_at(each.data, each.size) for each in (cell.kind, cell.message))
        self.ffi.TVMFFIObjectDecRef(error)
        raise RuntimeError(f"{kind.decode(errors='replace')}: {message.decode(errors='replace')}")


def folder_of(package: str) -> Path | None:
    """Where a package is installed, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin else None


@functools.cache
def runtime() -> Runtime:
    """TVM's runtime, loaded on first use. Raises GraphPruneError: GP108 where it is not installed, GP111 where it is
    broken."""
    # TVM would pin the calling thread to the first processors, whatever its affinity was; who wants that says so.
    os.environ.setdefault(BIND, "0")
    found = []
    for package, name in _LIBRARIES.items():
        folder = folder_of(package)
        path = folder / "lib" / f"{name}{_SUFFIX}" if folder is not None else None
        if path is None or not path.is_file():
            what = f"running an artifact needs TVM's runtime, and there is no {name}{_SUFFIX}"
            raise GraphPruneError("GP108", what, "", "pip install 'graphprune[tvm]'")
        try:
            # Global: the runtime, and the libraries of artifacts, find the symbols of what was loaded before them.
            found.append(ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL))
        except OSError as error:
            raise GraphPruneError("GP111", f"TVM's runtime cannot be loaded: {error}", name) from error
    ffi, tvm = found
    ffi.TVMFFIFunctionCall.argtypes = (c_void_p, c_void_p, c_int32, c_void_p)
    ffi.TVMFFIObjectDecRef.argtypes = (c_void_p,)
    return Runtime(ffi, tvm)


def values(count: int) -> Any:
    """An array of `count` arguments, all none."""
    return (Value * count)()


def text(value: str) -> tuple[Value, Any]:
    """A text as an argument, and what has to stay alive as long as it is used."""
    buffer = ctypes.create_string_buffer(value.encode())
    return Value(_TEXT, 0, ctypes.addressof(buffer)), buffer


def integer(value: int) -> Value:
    """A number as an argument of a packed call."""
    return Value(_INT, 0, value)


def tensor(shape: Sequence[int], kind: str, bits: int) -> tuple[Tensor, Value, Any]:
    """A contiguous tensor on the CPU without data yet, the argument that refers to it, and what has to stay alive."""
    sizes = (c_int64 * max(1, len(shape)))(*shape)
    steps = (c_int64 * max(1, len(shape)))()
    step = 1
    for axis in reversed(range(len(shape))):
        steps[axis] = step
        step *= shape[axis]
    made = Tensor(None, _CPU, 0, len(shape), _CODES[kind], bits, 1, sizes, steps, 0)
    return made, Value(_TENSOR, 0, ctypes.addressof(made)), (sizes, steps, made)


class Library:
    """A shared library that TVM exported, and its entry function. Raises RuntimeError where it is not one."""

    def __init__(self, path: Path, entry: str = "main") -> None:
        self.runtime = runtime()
        name, kept = text(str(path.resolve()))
        module = self.runtime.call(self.runtime.function("ffi.ModuleLoadFromFile"), byref(name), 1)
        arguments = values(3)
        entry_name, kept_too = text(entry)
        arguments[0], arguments[1], arguments[2] = module, entry_name, Value(_BOOL, 0, 0)
        function = self.runtime.call(self.runtime.function("ffi.ModuleGetFunction"), arguments, 3)
        del kept, kept_too  # the texts, which the calls read
        if function.type < _OBJECTS:
            self.runtime.ffi.TVMFFIObjectDecRef(module.bits)
            raise RuntimeError(f"it has no function {entry!r}")
        self._function = c_void_p(function.bits)
        release = self.runtime.ffi.TVMFFIObjectDecRef
        weakref.finalize(self, lambda: (release(function.bits), release(module.bits)))

    def __call__(self, arguments: Any, count: int) -> None:
        """Run the entry function. Raises RuntimeError with what TVM says."""
        self.runtime.call(self._function, arguments, count)


# ---------------------------------------------------------------- threads
_of_thread = threading.local()
_creating = threading.Lock()
LIMIT = "TVM_NUM_THREADS"
BIND = "TVM_BIND_THREADS"
_ALL = str(max(2, os.cpu_count() or 2))
_set_here: set[str] = set()  # the variables that the user did not set


def use_threads(count: int) -> int:
    """Have what this thread runs use `count` threads, itself and helpers of its own; how many it really has.

    TVM keeps a pool of helpers for every thread that calls it, as large as the first call makes it: later it can be
    used in part, but never grows. An environment variable TVM_NUM_THREADS that the user set is the most there can be.
    Where it is not set, TVM takes half of the processors for all there are, when it makes a pool and again whenever
    work is divided, and leaves the helpers idle where that is one: so it is set, to all processors, and stays so.
    Raises GraphPruneError GP513 in a process that was forked from one where this thread had helpers: they stayed there.
    """
    if count > 1 and getattr(_of_thread, "helped", os.getpid()) != os.getpid():
        what = "this process was forked from one that ran networks in this thread, whose helpers it has not"
        remedy = "start processes with `spawn`, run networks in a new thread, or load(path, threads=1)"
        raise GraphPruneError("GP513", what, "threads", remedy)
    asked, given = getattr(_of_thread, "threads", (0, 0))
    if asked == count:
        return int(given)
    found = runtime()
    arguments = values(2)
    with _creating:
        before = os.environ.get(LIMIT)
        if before is None or (_set_here and before == _ALL):
            before, most = _ALL, count
            _set_here.add(LIMIT)
        else:
            most = min(count, int(before)) if before.isdigit() and int(before) else count
        os.environ[LIMIT] = str(most)
        try:
            arguments[0], arguments[1] = integer(1), integer(most)
            found.call(found.function("runtime.config_threadpool"), arguments, 2)
        finally:
            os.environ[LIMIT] = before
    given = found.call(found.function("runtime.NumThreads"), values(1), 0).bits
    _of_thread.threads = (count, given)
    if given > 1:
        _of_thread.helped = os.getpid()
    return int(given)


# ---------------------------------------------------------------- functions that libraries call
Packed = Callable[[str, "Sequence[Tensor]"], None]
_registered: dict[str, Any] = {}


def register(name: str, function: Packed) -> None:
    """Let libraries call `function(key, tensors)` by name. What it raises becomes an error of the call; the caller of
    the library has to keep the exception where it needs more than its text."""

    def called(_: Any, arguments: Any, count: int, result: Any) -> int:
        try:
            result[0] = Value(_NONE, 0, 0)
            tensors = [ctypes.cast(arguments[i].bits, POINTER(Tensor)).contents for i in range(1, count)]
            function(_text_of(arguments[0]), tensors)
        except BaseException as error:  # noqa: BLE001  # no exception may cross into C
            kind, message = type(error).__name__, str(error)
            runtime().ffi.TVMFFIErrorSetRaisedFromCStr(kind.encode(), message.encode())
            return -1
        return 0

    found = runtime()
    callback = _CALLBACK(called)
    made = c_void_p()
    found.check(found.ffi.TVMFFIFunctionCreate(None, callback, None, byref(made)))
    name_bytes = name.encode()
    found.check(found.ffi.TVMFFIFunctionSetGlobal(byref(_Bytes(name_bytes, len(name_bytes))), made, 1))
    _registered[name] = callback  # C holds a pointer to it


def _text_of(value: Value) -> str:
    if value.type == _TEXT:
        return ctypes.string_at(value.bits).decode()
    if value.type == _SHORT_TEXT:
        return bytes(value.bits.to_bytes(8, sys.byteorder))[: value.padding].decode()
    if value.type == _LONG_TEXT:
        cell = ctypes.cast(value.bits + _HEADER_OF_OBJECT, POINTER(_Bytes)).contents
        return ctypes.string_at(cell.data, cell.size).decode()
    raise RuntimeError(f"the first argument is not a text, but has type {value.type}")
