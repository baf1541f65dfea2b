"""An artifact in memory: `load` checks it and chooses a variant, sessions run it.

What is shared by all sessions is read-only: the library and the constants, which are mapped, so that processes share
them too. A session has the scratch memory of one call, so it serves one thread at a time.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.runtime import ffi, folder, manifest
from graphprune.runtime.arrays import Array, aligned, aligned_bytes, fits, named, taken, written
from graphprune.runtime.artifact import ENTRY, Tensor
from graphprune.runtime.cpu import Cpu, cpu
from graphprune.runtime.fallback import Running, Steps
from graphprune.runtime.manifest import Build, Manifest

_NAMED = 4
"""How many missing features an error names."""


def load(
    path: str | os.PathLike[str], *, variant: str | None = None, threads: int | None = None, quick: bool = False
) -> Executable:
    """Load an artifact that `graphprune build` wrote, once it was found whole and fit for this processor.

    variant: its name, such as `v3`; default: the first of the artifact that this processor can run
    threads: for each call; default: as many as it was built for
    quick:   do not read the constants to check their hash, only their size; libraries are always checked
    Raises GraphPruneError: GP101 where there is none, GP509 where it is damaged or none, GP510 where it is of another
    version, GP511 where the processor cannot run it, GP106 for an unknown variant, GP107 where it holds several sizes,
    GP108 without TVM's runtime.
    """
    place = Path(path)
    if (place / folder.SEVERAL).is_file():
        remedy = "graphprune.runtime.load_sizes(path), or one of the folders in it"
        raise GraphPruneError("GP107", "it holds artifacts of several sizes", str(path), remedy)
    found = manifest.read(place)
    chosen = choose(found, cpu(), variant, str(path))
    folder.check(place, found, [chosen], quick=quick)
    check_runtime(found, str(path))
    return Executable(place, found, chosen, found.threads if threads is None else threads)


def choose(found: Manifest, processor: Cpu, variant: str | None = None, where: str = "") -> Build:
    """The variant to run. Raises GraphPruneError: GP511 where the processor cannot, GP106 for unknown names."""
    if found.machine != processor.machine:
        what = f"it was built for {found.machine}, and this is {processor}"
        raise GraphPruneError("GP511", what, where, "build it for this kind of processor")
    names = [each.name for each in found.variants]
    if variant is not None and variant not in names:
        raise GraphPruneError("GP106", f"it has no variant {variant!r}", where, did_you_mean(variant, names))
    wanted = [each for each in found.variants if variant in (None, each.name)]
    for each in wanted:
        if not processor.missing(set(each.features)):
            return each
    lacks = processor.missing(set(wanted[-1].features))
    more = f" and {len(lacks) - _NAMED} more" if len(lacks) > _NAMED else ""
    what = f"{wanted[-1].name} needs {', '.join(lacks[:_NAMED])}{more}, which {processor} has not"
    remedy = f"build with --variants {processor.level}" if variant is None else f"its variants: {', '.join(names)}"
    raise GraphPruneError("GP511", what, where, remedy)


def check_runtime(found: Manifest, where: str) -> None:
    """Raises GraphPruneError: GP510 where it was built for another minor version of TVM, GP108 without TVM."""
    from importlib.metadata import PackageNotFoundError, version

    built = found.versions.get("tvm", "")
    try:
        installed = version("apache-tvm")
    except PackageNotFoundError:
        what = "running an artifact needs TVM's runtime, which is not installed"
        raise GraphPruneError("GP108", what, where, "pip install 'graphprune[tvm]'") from None
    if built and built.split(".")[:2] != installed.split(".")[:2]:
        raise GraphPruneError("GP510", f"it was built for TVM {built}, and TVM {installed} is installed", where)


class Executable:
    """A loaded network. Calling it takes a session that is free, or makes one: any number of threads may."""

    def __init__(self, path: Path, about: Manifest, variant: Build, threads: int = 1) -> None:
        if threads < 1:
            raise GraphPruneError("GP107", f"{threads} is no number of threads", "threads", "give 1 or more")
        self.path = path
        self.about = about
        """The manifest: what it is, where it comes from, how it was verified."""
        self.variant = variant.name
        self.build = variant
        self.threads = threads
        self.inputs: tuple[Tensor, ...] = about.inputs
        self.outputs: tuple[Tensor, ...] = about.outputs
        self.constants = _mapped(path / variant.constants.file)
        self.steps = Steps(about.id, [path / each.file for each in about.fallbacks], threads)
        try:
            self.library = ffi.Library(path / variant.library.file, ENTRY)
        except RuntimeError as error:
            what = f"{variant.library.file!r} cannot be loaded: {error}"
            raise GraphPruneError("GP509", what, str(path)) from error
        self._free: list[Session] = []
        self._taking = threading.Lock()

    def session(self) -> Session:
        """A new session, with scratch memory of its own."""
        return Session(self)

    def __call__(self, *given: Any, out: Mapping[str, Any] | None = None, **by_name: Any) -> dict[str, Array]:
        """Run it: inputs in order or by name; the outputs by name. See `Session.run`."""
        with self._taking:
            session = self._free.pop() if self._free else None
        if session is None:
            session = self.session()
        try:
            return session(*given, out=out, **by_name)
        finally:
            with self._taking:
                self._free.append(session)

    def __repr__(self) -> str:
        inputs, outputs = ("; ".join(map(str, each)) for each in (self.inputs, self.outputs))
        return f"<{self.path.name} ({self.variant}, {self.threads} threads): {inputs} -> {outputs}>"


class Session:
    """Runs a network, one call at a time: scratch memory, and room for inputs that cannot be used where they are."""

    def __init__(self, network: Executable) -> None:
        self.network = network
        self._busy = threading.Lock()
        self._arena = aligned_bytes(max(1, network.build.arena), zero=True)
        self._copies: dict[int, Array] = {}
        tensors = [
            Tensor("constants", "uint8", (network.build.constants.bytes,)),
            Tensor("arena", "uint8", (network.build.arena,)),
            *network.inputs,
            *network.outputs,
        ]
        self._arguments = ffi.values(len(tensors))
        self._alive: list[Any] = []
        self._places: list[ffi.Tensor] = []
        for index, each in enumerate(tensors):
            dtype = np.dtype(each.dtype)
            place, self._arguments[index], alive = ffi.tensor(each.shape, dtype.kind, 8 * dtype.itemsize)
            self._alive.append(alive)
            self._places.append(place)
        self._places[0].data = network.constants.ctypes.data
        self._places[1].data = self._arena.ctypes.data

    def __call__(self, *given: Any, out: Mapping[str, Any] | None = None, **by_name: Any) -> dict[str, Array]:
        """Run it: inputs in order or by name; the outputs by name. See `run`."""
        return self._run(named(self.network.inputs, given, by_name, "input"), out or {})

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """Run it on inputs by name: arrays, or tensors that speak DLPack. The outputs by name.

        An input that lies in one piece at a multiple of 64 bytes is used where it is, others are copied. Outputs are
        new arrays, except those that `out` brings, which are written and returned.
        Raises GraphPruneError: GP512 where an input or `out` does not fit, GP513 where the library fails, or where
        another thread uses this session.
        """
        return self._run(named(self.network.inputs, (), inputs, "input"), out or {})

    def _run(self, given: list[Any], out: Mapping[str, Any]) -> dict[str, Array]:
        network = self.network
        if not self._busy.acquire(blocking=False):
            remedy = "give every thread its own: network.session(), or call the network itself"
            raise GraphPruneError("GP513", "this session is in use by another thread", str(network.path), remedy)
        try:
            arrays = [
                self._usable(index, tensor, taken(tensor, value))
                for index, (tensor, value) in enumerate(zip(network.inputs, given, strict=True))
            ]
            results = self._results(out, arrays)
            arrays += [inner for _, inner in results]
            for place, array in zip(self._places[2:], arrays, strict=True):
                place.data = array.ctypes.data
            self._call()
            for outer, inner in results:
                if outer is not inner:
                    np.copyto(outer, inner)
            return {tensor.name: outer for tensor, (outer, _) in zip(network.outputs, results, strict=True)}
        finally:
            self._busy.release()

    def _usable(self, index: int, tensor: Tensor, array: Array) -> Array:
        """The array itself where a library can read it, else a copy in memory that the session keeps for it."""
        if fits(array):
            return array
        if index not in self._copies:
            self._copies[index] = aligned(tensor)
        np.copyto(self._copies[index], array)
        return self._copies[index]

    def _results(self, out: Mapping[str, Any], inputs: list[Array]) -> list[tuple[Array, Array]]:
        """For each output, the array that is returned and the one that the library writes: another where the caller's
        lies askew, or shares memory with an input or an output before it, which the library may still have to read."""
        outputs = self.network.outputs
        for name in out:
            if all(name != each.name for each in outputs):
                remedy = did_you_mean(name, [each.name for each in outputs])
                raise GraphPruneError("GP512", f"there is no output {name!r}", "; ".join(map(str, outputs)), remedy)
        found: list[tuple[Array, Array]] = []
        for each in outputs:
            if each.name not in out:
                made = aligned(each)
                found.append((made, made))
                continue
            outer = written(each, out[each.name])
            free = not any(np.may_share_memory(outer, other) for other in [*inputs, *(inner for _, inner in found)])
            found.append((outer, outer if free and fits(outer) else aligned(each)))
        return found

    def _call(self) -> None:
        network = self.network
        ffi.use_threads(network.threads)
        with Running(network.steps) as running:
            try:
                network.library(self._arguments, len(self._arguments))
            except RuntimeError as error:
                if isinstance(running.error, GraphPruneError | KeyboardInterrupt):
                    raise running.error from None
                what = f"a step that onnxruntime runs failed: {running.error}" if running.error else str(error)
                raise GraphPruneError("GP513", what, str(network.path)) from (running.error or error)


def _mapped(path: Path) -> Array:
    """The bytes of a file, read-only, as pages that are loaded when they are read."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.zeros(1, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
