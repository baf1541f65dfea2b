"""`manifest.json` of an artifact: what is in the folder, read as the untrusted input that it is.

Hashes tell damage and mixed-up files, not malice: whoever can change a library can change the manifest too, and a
library is code. Load artifacts from people whose programs you would run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from graphprune.errors import GraphPruneError
from graphprune.runtime.artifact import DTYPES, Layer, Tensor
from graphprune.runtime.seal import holds, sealed

NAME = "manifest.json"
SCHEMA = "graphprune.artifact"
VERSION = 1

_MOST_BYTES_OF_MANIFEST = 64 << 20
_MOST_NUMBERS = 1 << 40
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class File:
    """A file of the artifact: its name in the folder, size in bytes, and the SHA-256 of its contents in hexadecimal."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Build:
    """The network for one kind of processor, as it lies in the folder; see `graphprune.runtime.artifact.Variant`."""

    name: str
    features: tuple[str, ...]
    library: File
    constants: File
    arena: int
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What an artifact holds, and what is known about it.

    machine:      the architecture of its libraries, `x86_64`
    versions:     of what made it: `graphprune`, `tvm` and others
    source:       the model: `name` and `sha256` of its file
    verification: how the libraries were compared with the model; empty where they were not
    pace:         median seconds of a call where it was built, `graphprune` and `onnxruntime`; empty where not measured
    """

    id: str
    target: str
    machine: str
    threads: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    variants: tuple[Build, ...]
    fallbacks: tuple[File, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    verification: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    pace: Mapping[str, float] = field(default_factory=dict)

    def files(self) -> dict[str, File]:
        """Every file beside the manifest, by name."""
        found = [file for each in self.variants for file in (each.library, each.constants)]
        return {file.file: file for file in (*found, *self.fallbacks)}

    def to_json(self) -> str:
        """As `manifest.json` holds it; the same text for equal manifests."""
        return sealed({"schema": SCHEMA, "version": VERSION, **asdict(self)})


def read(folder: Path) -> Manifest:
    """The manifest of an artifact. Raises GraphPruneError: GP101 where there is no such folder, GP509 where it is no
    artifact or is damaged, GP510 where its schema is newer."""
    path = folder / NAME
    if not folder.exists():
        raise GraphPruneError("GP101", "there is no such artifact", str(folder), "check the path")
    if not folder.is_dir():
        raise GraphPruneError("GP509", "it is a file, and an artifact is a folder", str(folder))
    try:
        if path.stat().st_size > _MOST_BYTES_OF_MANIFEST:
            raise GraphPruneError("GP509", f"{NAME} is larger than any that is written", str(folder))
        text = path.read_bytes()
    except FileNotFoundError:
        raise GraphPruneError("GP509", f"it has no {NAME}", str(folder)) from None
    except OSError as error:
        raise GraphPruneError("GP101", f"{NAME} cannot be read: {error.strerror}", str(folder)) from error
    return parsed(text, str(folder))


def parsed(text: bytes, where: str) -> Manifest:
    """A manifest from its JSON. Raises GraphPruneError GP509 and GP510, which name the field that is wrong."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GraphPruneError("GP509", f"{NAME} is not JSON: {error}", where) from None
    try:
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise _Wrong(f"{NAME} is not that of an artifact: its schema is not {SCHEMA!r}")
        version = _number(data, "version", 1)
        if version > VERSION:
            what = f"{NAME} has version {version} of its schema, and this graphprune knows {VERSION}"
            raise GraphPruneError("GP510", what, where)
        if not holds(data):
            raise _Wrong(f"{NAME} has other contents than when it was written")
        found = _manifest(data)
    except _Wrong as error:
        raise GraphPruneError("GP509", str(error), where) from None
    return found


class _Wrong(Exception):
    """What is wrong with a field, in a sentence."""


def _manifest(data: dict[str, Any]) -> Manifest:
    found = Manifest(
        id=_text(data, "id", _ID),
        target=_text(data, "target"),
        machine=_text(data, "machine"),
        threads=_number(data, "threads", 1, 4096),
        inputs=_each(data, "inputs", _tensor),
        outputs=_each(data, "outputs", _tensor),
        variants=_each(data, "variants", _build),
        fallbacks=_each(data, "fallbacks", _file),
        versions=_texts(data, "versions"),
        source=_texts(data, "source"),
        verification=_each(data, "verification", lambda row: row),
        notes=tuple(_strings(data, "notes")),
        pace=_seconds(data, "pace"),
    )
    for kind, names in (
        ("inputs", [each.name for each in found.inputs]),
        ("outputs", [each.name for each in found.outputs]),
        ("variants", [each.name for each in found.variants]),
    ):
        if len(set(names)) < len(names):
            raise _Wrong(f"{NAME} has {kind} of one name")
    if not found.variants or not found.outputs:
        raise _Wrong(f"{NAME} has no {'outputs' if found.variants else 'variants'}")
    known: dict[str, File] = {}
    for file in (*(each for v in found.variants for each in (v.library, v.constants)), *found.fallbacks):
        if known.setdefault(file.file, file) != file:
            raise _Wrong(f"{NAME} says two things about {file.file!r}")
    return found


def _tensor(row: dict[str, Any]) -> Tensor:
    dtype = _text(row, "dtype")
    if dtype not in DTYPES:
        raise _Wrong(f"{NAME} has the data type {dtype!r}, which is none")
    shape = row.get("shape")
    if not isinstance(shape, list) or len(shape) > 64 or not all(type(n) is int and n >= 1 for n in shape):
        raise _Wrong(f"{NAME} has a shape that is none: {str(shape)[:80]}")
    count = 1
    for size in shape:
        count *= size
        if count > _MOST_NUMBERS:
            raise _Wrong(f"{NAME} has a shape beyond all memory: {str(shape)[:80]}")
    return Tensor(_text(row, "name"), dtype, tuple(shape))


def _build(row: dict[str, Any]) -> Build:
    return Build(
        name=_text(row, "name"),
        features=tuple(_strings(row, "features")),
        library=_within(row, "library", _file),
        constants=_within(row, "constants", _file),
        arena=_number(row, "arena", 0, _MOST_NUMBERS),
        layers=_each(row, "layers", _layer),
    )


def _file(row: dict[str, Any]) -> File:
    name = _text(row, "file")
    if not _FILE.fullmatch(name) or name == NAME:
        raise _Wrong(f"{NAME} names a file {name!r}, which is not a plain name in its folder")
    return File(name, _number(row, "bytes", 0, _MOST_NUMBERS), _text(row, "sha256", _HASH))


def _layer(row: dict[str, Any]) -> Layer:
    known = {each.name: row[each.name] for each in fields(Layer) if each.name in row}
    for name, value in known.items():
        kind: Any = str
        if name in {"density", "microseconds", "dense_microseconds"}:
            kind = (int, float, type(None))
        elif name == "fallback":
            kind = bool
        if not isinstance(value, kind):
            raise _Wrong(f"{NAME} has a layer whose {name} is {value!r}"[:200])
    if not {"name", "operators", "kernel"} <= set(known):
        raise _Wrong(f"{NAME} has a layer without a name, operators or kernel")
    return Layer(**known)


# ---------------------------------------------------------------- fields
def _text(row: dict[str, Any], name: str, pattern: re.Pattern[str] | None = None) -> str:
    value = row.get(name)
    if not isinstance(value, str) or (pattern is not None and not pattern.fullmatch(value)):
        raise _Wrong(f"{NAME} has a wrong or no {name!r}: {str(value)[:80]}")
    return value


def _number(row: dict[str, Any], name: str, least: int, most: int = 1 << 31) -> int:
    value = row.get(name)
    if type(value) is not int or not least <= value <= most:
        raise _Wrong(f"{NAME} has a wrong or no {name!r}: {str(value)[:80]}")
    return value


def _strings(row: dict[str, Any], name: str) -> list[str]:
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _Wrong(f"{NAME} has a wrong or no {name!r}")
    return value


def _texts(row: dict[str, Any], name: str) -> dict[str, str]:
    value = row.get(name)
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise _Wrong(f"{NAME} has a wrong or no {name!r}")
    return value


def _seconds(row: dict[str, Any], name: str) -> dict[str, float]:
    value = row.get(name, {})
    if not isinstance(value, dict) or not all(type(each) is float and 0 < each < 1e9 for each in value.values()):
        raise _Wrong(f"{NAME} has a wrong {name!r}")
    return value


def _within(row: dict[str, Any], name: str, read_row: Callable[[dict[str, Any]], Any]) -> Any:
    value = row.get(name)
    if not isinstance(value, dict):
        raise _Wrong(f"{NAME} has a wrong or no {name!r}")
    return read_row(value)


def _each(row: dict[str, Any], name: str, read_row: Callable[[dict[str, Any]], Any]) -> tuple[Any, ...]:
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise _Wrong(f"{NAME} has a wrong or no {name!r}")
    return tuple(read_row(each) for each in value)
