"""One network at several sizes: an artifact for each, in one folder, and the rule by which a call takes one.

A call takes the smallest artifact that holds its inputs, fills them up with zeros at the end, and cuts the outputs.
That is right for an axis of samples, and wrong where numbers of one place reach another. So it is done only for axes
for which it was tried when the network was built, and found to change nothing; for all others a call needs a size that
was built.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import GraphPruneError
from graphprune.runtime import folder, manifest
from graphprune.runtime.arrays import Array, named, taken
from graphprune.runtime.artifact import Tensor
from graphprune.runtime.executable import Executable, load
from graphprune.runtime.seal import holds, sealed

NAME = folder.SEVERAL
SCHEMA = "graphprune.sizes"
VERSION = 1
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """What a folder holds. `inputs` and `outputs` name the axes of each tensor, None where it has one size; `filled`
    are the axes that may be filled up; `built` has the sizes of each artifact, which is the folder of that number."""

    inputs: Mapping[str, tuple[str | None, ...]]
    outputs: Mapping[str, tuple[str | None, ...]]
    filled: tuple[str, ...]
    built: tuple[Mapping[str, int], ...]

    def to_json(self) -> str:
        return sealed({"schema": SCHEMA, "version": VERSION, **asdict(self)})

    def choose(self, needed: Mapping[str, int]) -> int:
        """The number of the artifact for a call. Raises GraphPruneError GP512 where there is none."""
        fits = [
            (prod(sizes.values()), number)
            for number, sizes in enumerate(self.built)
            if all(sizes[axis] == size or (axis in self.filled and sizes[axis] > size) for axis, size in needed.items())
        ]
        if not fits:
            asked = ", ".join(f"{axis} {size}" for axis, size in needed.items())
            known = "; ".join(", ".join(f"{axis} {size}" for axis, size in each.items()) for each in self.built)
            smaller = f"; smaller inputs are possible in {', '.join(self.filled)}" if self.filled else ""
            remedy = f"it was built for {known}{smaller}"
            raise GraphPruneError("GP512", f"no artifact was built for {asked}", "the sizes of the inputs", remedy)
        return min(fits)[1]

    def needed(self, arrays: Mapping[str, Any]) -> dict[str, int]:
        """The size of each axis in some inputs. Raises GraphPruneError GP512 where they do not agree."""
        found: dict[str, int] = {}
        for name, axes in self.inputs.items():
            shape = _shape(arrays[name])
            if len(shape) != len(axes):
                what = f"{name!r} has {len(shape)} axes, not {len(axes)}"
                raise GraphPruneError("GP512", what, f"input {name!r}", "give one with all axes")
            for axis, size in zip(axes, shape, strict=True):
                if axis is not None and found.setdefault(axis, size) != size:
                    what = f"{axis} is {size} in {name!r}, and {found[axis]} in another input"
                    raise GraphPruneError("GP512", what, f"input {name!r}", "give inputs of one size")
        return found


def _shape(value: Any) -> tuple[int, ...]:
    """Of an array, or of what is none: a tensor that needs gradients says its shape, but not its numbers."""
    return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)


def is_several(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds builds of several sizes, rather than one build."""
    return (Path(path) / NAME).is_file()


def read(path: str | os.PathLike[str]) -> Sizes:
    """What a folder holds. Raises GraphPruneError: GP101 where there is none, GP509 and GP510 for what is none."""
    place = Path(path) / NAME
    if not Path(path).is_dir():
        raise GraphPruneError("GP101", "there is no such artifact", str(path), "check the path")
    try:
        if place.stat().st_size > _MOST_BYTES:
            raise ValueError("it is larger than any that is written")
        data = json.loads(place.read_bytes())
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA!r}")
        if data["version"] > VERSION:
            what = f"{NAME} has version {data['version']} of its schema, and this graphprune knows {VERSION}"
            raise GraphPruneError("GP510", what, str(path))
        if not holds(data):
            raise ValueError("it has other contents than when it was written")
        return _checked(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GraphPruneError("GP509", f"it has no {NAME} that can be used: {error}", str(path)) from None


def _checked(data: Mapping[str, Any]) -> Sizes:
    found = Sizes(
        {str(name): tuple(axes) for name, axes in data["inputs"].items()},
        {str(name): tuple(axes) for name, axes in data["outputs"].items()},
        tuple(data["filled"]),
        tuple({str(axis): int(size) for axis, size in each.items()} for each in data["built"]),
    )
    names = {axis for axes in (*found.inputs.values(), *found.outputs.values()) for axis in axes if axis is not None}
    if not found.built or any(set(each) != set(found.built[0]) or not all(each.values()) for each in found.built):
        raise ValueError("its artifacts have other axes each")
    if not names <= set(found.built[0]) or not set(found.filled) <= set(found.built[0]):
        raise ValueError("it names an axis of which it has no size")
    return found


def load_sizes(path: str | os.PathLike[str], **options: Any) -> Sized:
    """Load what `graphprune build` wrote for several sizes.

    options: of `load`, for each artifact when it is first used
    Raises GraphPruneError: as `load`, GP107 where it holds one size.
    """
    if (Path(path) / manifest.NAME).is_file() and not is_several(path):
        remedy = "graphprune.runtime.load(path)"
        raise GraphPruneError("GP107", "it holds an artifact of one size", str(path), remedy)
    return Sized(Path(path), read(path), options)


class Sized:
    """A network at several sizes. Any number of threads may call it."""

    def __init__(self, path: Path, about: Sizes, options: Mapping[str, Any]) -> None:
        self.path = path
        self.about = about
        self._options = options
        self._loaded: dict[int, Executable] = {}
        self._loading = threading.Lock()

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """As the smallest artifact has them."""
        return manifest.read(self.path / "0").inputs

    def at(self, number: int) -> Executable:
        """The artifact of that number, loaded when it is first used."""
        with self._loading:
            if number not in self._loaded:
                self._loaded[number] = load(self.path / str(number), **self._options)
            return self._loaded[number]

    def __call__(self, *given: Any, **by_name: Any) -> dict[str, Array]:
        """Run it: inputs in order or by name; the outputs by name, of the sizes that belong to the inputs."""
        names = [tensor.name for tensor in self.inputs]
        arrays = dict(zip(names, named(self.inputs, given, by_name, "input"), strict=True))
        needed = self.about.needed(arrays)
        network = self.at(self.about.choose(needed))
        filled = {tensor.name: self._filled(tensor, arrays[tensor.name]) for tensor in network.inputs}
        results = network(**filled)
        return {name: self._cut(name, array, needed) for name, array in results.items()}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run it on inputs by name."""
        return self(**inputs)

    def _filled(self, tensor: Tensor, value: Any) -> Any:
        """The input with zeros behind it; what does not fit is left for the network to refuse."""
        shape, axes = _shape(value), self.about.inputs[tensor.name]
        if shape == tensor.shape:
            return value
        array = taken(replace(tensor, shape=tuple(shape)), value)
        wide = [own if axis is None else size for own, size, axis in zip(shape, tensor.shape, axes, strict=True)]
        return np.pad(array, [(0, size - own) for own, size in zip(shape, wide, strict=True)])

    def _cut(self, name: str, array: Array, needed: Mapping[str, int]) -> Array:
        axes = self.about.outputs[name]
        return array[(*(slice(None) if axis is None else slice(needed[axis]) for axis in axes), ...)]

    def __repr__(self) -> str:
        return f"<{self.path.name}: {len(self.about.built)} sizes of {', '.join(self.about.built[0])}>"
