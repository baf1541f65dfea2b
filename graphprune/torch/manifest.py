"""The file graphprune.json of a checkpoint: what the weights and the plan alone do not tell, checked when read.

Cuts are stored as numbers of lists, since coupled tensors keep the same entries. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.errors import GraphPruneError
from graphprune.plan_text import MOST_ENTRIES, ranges

if TYPE_CHECKING:
    from graphprune.cuts import Cuts

_AXES = {str(axis) for axis in range(64)}  # torch knows no more

NAME = "graphprune.json"
SCHEMA = "graphprune.checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself.

    kind:     "module", or "graph" where the class cannot run at the new sizes; reason: why
    model:    the class that was saved, for messages
    cuts:     what was kept of every tensor, from the dense model on
    shapes:   of the cut tensors in the dense model, as far as known
    edits:    path of a submodule -> attribute -> value
    tied:     name -> name of the same tensor under which its numbers are stored
    shared:   name -> name of another tensor with the same memory
    buffers:  type of every floating buffer that is not part of the state dict
    frozen:   names of parameters that need no gradient
    training: whether the model was in training mode
    versions: of what wrote it
    """

    kind: str = "module"
    reason: str = ""
    model: str = ""
    cuts: Cuts = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    edits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    buffers: Mapping[str, str] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    training: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)


def write(manifest: Manifest) -> str:
    """The manifest as text. Raises GraphPruneError GP103 where a new value of an attribute is nothing that JSON has."""
    numbers: dict[tuple[int, ...], int] = {}
    cuts: dict[str, dict[str, int]] = {}
    for name, axes in sorted(manifest.cuts.items()):
        for axis, kept in sorted(axes.items()):
            key = tuple(np.asarray(kept).tolist())
            cuts.setdefault(name, {})[str(axis)] = numbers.setdefault(key, len(numbers))
    found: dict[str, Any] = {each.name: getattr(manifest, each.name) for each in fields(manifest)}
    found |= {"schema": SCHEMA, "version": VERSION, "cuts": cuts, "kept": [ranges(key) for key in numbers]}
    try:
        lines = [f"  {json.dumps(name)}: {_block(value)}" for name, value in sorted(found.items())]
    except (TypeError, ValueError) as error:
        what = f"an attribute has a value that cannot be written as JSON: {error}"
        raise GraphPruneError("GP103", what, "edits", "use numbers, texts and lists of them") from error
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _block(value: Any) -> str:
    """A value with a line for each of its entries."""
    if isinstance(value, Mapping) and value:
        lines = (f"    {json.dumps(name)}: {_line(each)}" for name, each in sorted(value.items()))
        return "{\n" + ",\n".join(lines) + "\n  }"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"    {_line(each)}" for each in value) + "\n  ]"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def load(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint.

    Raises GraphPruneError: GP101 where there is none, GP503 where it is of a newer schema, GP505 where it is damaged.
    """
    shown = str(folder)
    if not folder.is_dir():
        what = "the checkpoint is a folder, and this is a file" if folder.exists() else "there is no such folder"
        raise GraphPruneError("GP101", what, shown, "give the folder that gp.save(model, folder) wrote")
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        remedy = "give the folder that gp.save(model, folder) wrote"
        raise GraphPruneError("GP101", f"the folder has no {NAME}, so it is not a checkpoint", shown, remedy) from error
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise GraphPruneError("GP101", f"{NAME} cannot be read: {reason}", shown) from error
    except UnicodeDecodeError as error:
        raise GraphPruneError("GP505", f"{NAME} is not text", shown) from error
    try:
        return read(text)
    except GraphPruneError as error:
        error.where = f"{folder / NAME}: {error.where}" if error.where else str(folder / NAME)
        raise


def read(text: str) -> Manifest:
    """Read a manifest. Raises GraphPruneError: GP503 where it is of a newer schema, GP505 where it is damaged."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise GraphPruneError("GP505", f"not JSON: {error.msg}", f"line {error.lineno}") from error
    except (RecursionError, ValueError) as error:
        raise GraphPruneError("GP505", f"not JSON that can be read: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise GraphPruneError("GP505", f"there is no schema {SCHEMA!r}")
    version: Any = found.get("version")
    if not _is_size(version) or version < 1:
        raise GraphPruneError("GP505", f"the version {version!r} is not a whole number above 0", "version")
    if version > VERSION:
        raise GraphPruneError("GP503", f"the checkpoint is of version {version}, versions up to {VERSION} are known")
    known = {each.name for each in fields(Manifest)} | {"schema", "version", "kept"}
    if unknown := sorted(set(found) - known):
        raise GraphPruneError("GP505", f"a checkpoint has no field {unknown[0]!r}")
    kind, training = found.get("kind"), found.get("training")
    if kind not in ("module", "graph"):
        raise GraphPruneError("GP505", f"{kind!r} is neither module nor graph", "kind")
    if not isinstance(training, bool):
        raise GraphPruneError("GP505", f"{training!r} is neither true nor false", "training")
    return Manifest(
        kind=kind,
        reason=_text(found, "reason"),
        model=_text(found, "model"),
        cuts=_cuts(_object(found, "cuts"), found.get("kept")),
        shapes={name: _shape(shape, name) for name, shape in _object(found, "shapes").items()},
        edits=_edits(_object(found, "edits")),
        tied=_texts(found, "tied"),
        shared=_texts(found, "shared"),
        buffers=_texts(found, "buffers"),
        frozen=_names(found, "frozen"),
        training=training,
        versions=_texts(found, "versions"),
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _object(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = found.get(name)
    if not isinstance(value, dict):
        raise GraphPruneError("GP505", f"{name} is not an object", name)
    return value


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise GraphPruneError("GP505", f"{name} is not a text", name)
    return value


def _texts(found: Mapping[str, Any], name: str) -> dict[str, str]:
    value = _object(found, name)
    if not all(isinstance(each, str) for each in value.values()):
        raise GraphPruneError("GP505", f"{name} is not an object of texts", name)
    return value


def _names(found: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = found.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise GraphPruneError("GP505", f"{name} is not a list of texts", name)
    return tuple(value)


def _shape(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(map(_is_size, value)):
        raise GraphPruneError("GP505", "the shape is not a list of sizes", f"shapes.{name}")
    return tuple(value)


def _edits(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    for path, attributes in found.items():
        if not isinstance(attributes, dict):
            raise GraphPruneError("GP505", "the edits of a module are not an object", f"edits.{path}")
    return dict(found)


def _cuts(found: Mapping[str, Any], lists: Any) -> dict[str, dict[int, Any]]:
    if not isinstance(lists, list):
        raise GraphPruneError("GP505", "kept is not a list", "kept")
    left = MOST_ENTRIES
    kept = []
    for place, entries in enumerate(lists):
        kept.append(_kept(entries, f"kept[{place}]", left))
        left -= len(kept[-1])
    cuts: dict[str, dict[int, Any]] = {}
    for name, axes in found.items():
        if not isinstance(axes, dict):
            raise GraphPruneError("GP505", "the cut of a tensor is not an object", f"cuts.{name}")
        for axis, number in axes.items():
            if axis not in _AXES or not _is_size(number) or number >= len(kept):
                raise GraphPruneError("GP505", f"no axis and number of a list: {axis!r}, {number!r}", f"cuts.{name}")
            cuts.setdefault(name, {})[int(axis)] = kept[number]
    return cuts


def _kept(entries: Any, place: str, left: int) -> Any:
    """Ascending positions from numbers and ranges; `left` bounds how many, as a few ranges can stand for any number."""
    if not isinstance(entries, list):
        raise GraphPruneError("GP505", "not a list of positions", place)
    found: list[int] = []
    for entry in entries:
        run = entry if isinstance(entry, list) else [entry, entry]
        if len(run) != 2 or not all(map(_is_size, run)):
            raise GraphPruneError("GP505", f"{str(entry)[:40]} is neither a position nor a range of two", place)
        first, last = run
        if last < first or (found and first <= found[-1]) or last - first + len(found) >= left:
            raise GraphPruneError("GP505", f"{str(entry)[:40]} does not ascend, or is too much", place)
        found.extend(range(first, last + 1))
    return np.asarray(found, np.int64)
