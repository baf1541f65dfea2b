"""Tensors in safetensors files, in one file or, above a size, in several with an index as Hugging Face writes them.

Imports safetensors when used, torch, and no other module of this package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from graphprune.errors import GraphPruneError

_TYPES = frozenset({
    "float64", "float32", "float16", "bfloat16", "complex64", "bool",
    "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
})  # fmt: skip
"""The types that a safetensors file can hold, as torch names them."""


def can_hold(dtype: torch.dtype) -> bool:
    """Whether a file can hold tensors of this type."""
    return str(dtype).removeprefix("torch.") in _TYPES


def write(folder: Path, stem: str, tensors: Mapping[str, Tensor], most_bytes: int) -> None:
    """Write `stem.safetensors`, or several of at most so many bytes (or one tensor) each and their index.

    Raises GraphPruneError: GP105 where a file cannot be written, GP108 where safetensors is not installed.
    """
    shards = _shards(tensors, most_bytes)
    if len(shards) == 1:
        _write_file(folder / f"{stem}.safetensors", shards[0])
        return
    placed = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(folder / name, shard)
        placed.update(dict.fromkeys(shard, name))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: Mapping[str, Tensor], most_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and filled + size > most_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    return shards


def _write_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    safetensors = _safetensors()
    from safetensors.torch import save_file

    plain = {name: tensor.detach().resolve_conj().resolve_neg().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        raise GraphPruneError("GP105", f"cannot write: {error}", path.name) from error


class Weights:
    """The tensors of a checkpoint, read when asked for; to be used in a with statement.

    Raises GraphPruneError: GP505 where a file is missing or damaged, GP108 where safetensors is not installed, GP109
    where the index names a file outside the folder.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder = folder
        self.stem = stem
        self._files = ExitStack()
        self._holders: dict[str, Any] = {}

    def __enter__(self) -> Self:
        with ExitStack() as files:
            for path, names in self._paths():
                holder = files.enter_context(_opened(path))
                there = set(holder.keys())
                if names is not None and there != names:
                    odd = sorted(there ^ names)[0]
                    raise GraphPruneError("GP505", f"the index and the file differ about {odd!r}", str(path))
                self._holders.update(dict.fromkeys(sorted(there), holder))
            self._files = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def __contains__(self, name: str) -> bool:
        return name in self._holders

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self._holders[name].get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """A tensor in memory of its own, not that of the file."""
        found: Tensor = self._holders[name].get_tensor(name).clone()
        return found

    def _paths(self) -> list[tuple[Path, set[str] | None]]:
        """The files, with the names of the tensors that the index places in them."""
        index = self.folder / f"{self.stem}.safetensors.index.json"
        if not index.exists():
            return [(self.folder / f"{self.stem}.safetensors", None)]
        try:
            found = json.loads(index.read_text(encoding="utf-8"))
        except (OSError, RecursionError, ValueError) as error:
            raise GraphPruneError("GP505", f"the index cannot be read: {error}", str(index)) from error
        placed = found.get("weight_map") if isinstance(found, dict) else None
        if not isinstance(placed, dict) or not placed:
            raise GraphPruneError("GP505", "the index has no weight_map", str(index))
        files: dict[str, set[str]] = {}
        for name, file in placed.items():
            if not isinstance(file, str) or not re.fullmatch(r"[A-Za-z0-9_-]+\.safetensors", file):
                raise GraphPruneError("GP109", f"the index names {str(file)[:80]!r}, no file of its folder", str(index))
            files.setdefault(file, set()).add(name)
        return [(self.folder / file, names) for file, names in sorted(files.items())]


def _opened(path: Path) -> Any:
    safetensors = _safetensors()
    try:
        return safetensors.safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError as error:
        raise GraphPruneError("GP505", f"the file {path.name} is missing", str(path.parent)) from error
    except (OSError, safetensors.SafetensorError) as error:
        raise GraphPruneError("GP505", f"the file cannot be read: {error}", str(path)) from error


def _safetensors() -> ModuleType:
    try:
        import safetensors
    except ImportError as error:
        what = "saving and loading a module needs the package safetensors"
        raise GraphPruneError("GP108", what, remedy="pip install graphprune[torch]") from error
    return safetensors
