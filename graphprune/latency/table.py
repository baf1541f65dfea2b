"""What layers and networks took on one machine: a file that can be looked at, carried, and planned with again.

::

    {
     "schema": "graphprune.latencies",
     "version": 1,
     "machine": "onnxruntime 1.22.0, 1 thread, AMD EPYC 7B13 (x86-64-v3)",
     "microseconds": {
      "Conv-18 group=1 ... float32[1,64,56,56] float32[64,64,3,3]": 812.35
     }
    }

A key says all that a time depends on (:class:`graphprune.latency.layers.Layer`), so that one file serves many models.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphprune.errors import GraphPruneError
from graphprune.output import cache_folder, write_text

SCHEMA = "graphprune.latencies"
VERSION = 1

_LONGEST = 86_400e6  # microseconds: nobody waits longer than a day for a layer


@dataclass
class Table:
    """Microseconds by what was run. machine: runtime, threads and processor; empty where nothing was measured yet."""

    machine: str = ""
    microseconds: dict[str, float] = field(default_factory=dict)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those that are not in it, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self.microseconds]

    def picoseconds(self, key: str) -> int:
        """A time as a whole number, so that sums of times are exact."""
        return round(self.microseconds[key] * 1e6)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Further times, to a hundredth of a microsecond; nothing takes none."""
        self.microseconds.update((key, max(0.01, round(each * 1e6, 2))) for key, each in seconds.items())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all; the same table gives the same bytes. Raises GraphPruneError GP105."""
        content = {
            "schema": SCHEMA,
            "version": VERSION,
            "machine": self.machine,
            "microseconds": dict(sorted(self.microseconds.items())),
        }
        write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Table:
        """Read a table. Raises GraphPruneError: GP101 where it cannot be read, GP514 where it is none, GP503 where it
        is of a newer version."""
        shown = os.fspath(path)
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise GraphPruneError("GP101", f"the table of latencies cannot be read: {reason}", shown) from error
        except (RecursionError, ValueError) as error:
            raise GraphPruneError("GP514", f"not JSON that can be read: {error}", shown) from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise GraphPruneError("GP514", f"there is no schema {SCHEMA!r}", shown)
        version = content.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise GraphPruneError("GP514", f"the version {version!r} is not a whole number from 1 on", shown)
        if version > VERSION:
            what = f"the table is of version {version}, versions up to {VERSION} are known"
            raise GraphPruneError("GP503", what, shown)
        machine, found = content.get("machine"), content.get("microseconds")
        if not isinstance(machine, str) or not isinstance(found, dict):
            what = "a table needs the fields machine, a text, and microseconds, an object"
            raise GraphPruneError("GP514", what, shown)
        for key, value in found.items():
            if not _is_time(value):
                raise GraphPruneError("GP514", f"{value!r} is not a time in microseconds", f"{shown}: {key}")
        return cls(machine, {key: float(value) for key, value in found.items()})


def cached(machine: str) -> Path:
    """Where the times of a machine are kept."""
    name = hashlib.sha256(f"{VERSION} {machine}".encode()).hexdigest()[:16]
    return cache_folder("latency") / f"{name}.json"


def _is_time(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and math.isfinite(value) and 0 < value < _LONGEST


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a field is given twice")
    return dict(pairs)
