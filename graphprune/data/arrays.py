"""Whole arrays: a `.npz` file by the names of the inputs, a `.npy` file, or arrays in memory. Samples lie along the
first axis."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.data.batches import Batches, Reading, draw
from graphprune.data.inputs import array_of, misfit
from graphprune.errors import GraphPruneError
from graphprune.program import Array


def from_file(batches: Batches, path: Path, reading: Reading) -> None:
    """Read a `.npz` or `.npy` file; nothing is unpickled. Raises GraphPruneError: GP101 and GP102, GP702."""
    held = opened(path)
    if isinstance(held, np.ndarray):
        from_arrays(batches, {batches.inputs.only(path.name).name: held}, reading, path.name)
        return
    names = set(held)
    if len(batches.inputs) == 1 and names and not names & {each.name for each in batches.inputs}:
        inputs = sorted(names - {"labels", "label"})
        if len(inputs) == 1 and inputs[0].startswith("arr_"):  # what numpy.savez calls an array without a name
            held = {batches.inputs.all[0].name if name == inputs[0] else name: held[name] for name in names}
    from_arrays(batches, held, reading, path.name)


def opened(path: Path) -> Array | dict[str, Array]:
    """The array or the arrays of a file. Raises GraphPruneError: GP101 where it cannot be read, GP102 where it is none
    or would need unpickling."""
    try:
        held = np.load(path, mmap_mode="r", allow_pickle=False)
        return held if isinstance(held, np.ndarray) else {name: held[name] for name in held.files}
    except OSError as error:
        raise GraphPruneError("GP101", f"it cannot be read: {error.strerror or error}", str(path)) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        what = f"it is no file of arrays: {error}"
        raise GraphPruneError(
            "GP102", what, str(path), "write it with numpy.save or numpy.savez, numbers only"
        ) from error


def from_arrays(batches: Batches, held: Mapping[str, Any], reading: Reading, where: str) -> None:
    """Take samples of whole arrays. Raises GraphPruneError GP702."""
    arrays, inside = batches.inputs.bound(held, where)
    labels = inside if reading.labels is None else array_of(reading.labels)
    lengths = {name: len(each) if each.ndim else 0 for name, each in arrays.items()}
    if labels is not None:
        lengths["labels"] = len(labels)
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise misfit(f"{where} has arrays of different lengths: {shown}", remedy="samples lie along the first axis")
    batches.split(arrays, labels, draw(min(lengths.values(), default=0), batches.samples, reading.seed), where)
