"""Blocks of lanes x lanes numbers turned over in registers: what a strided load would do number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from .tir import Register, const


def transposed(rows: list[Any], lanes: int, dtype: str = "float32") -> list[Any]:
    """Vector r of the result has number r of each row: log2(lanes) times, halves of pairs of rows change places."""
    vectors = rows
    width = 1
    while width < lanes:
        swapped: list[Any] = [None] * lanes
        for low in (row for row in range(lanes) if not row & width):
            high = low | width
            both = [vectors[low], vectors[high]]
            even = [lane if not lane & width else lanes + lane - width for lane in range(lanes)]
            odd = [lane + width if not lane & width else lanes + lane for lane in range(lanes)]
            for row, order in ((low, even), (high, odd)):
                register = Register(lanes, dtype)
                register.set(tirx.Shuffle(both, [const(lane) for lane in order]))
                swapped[row] = register.get()
        vectors = swapped
        width *= 2
    return vectors


def turn(
    lanes: int,
    rows: int,
    columns: int,
    read: Callable[[int], Any],
    write: Callable[[int, Any], None],
    dtype: str = "float32",
) -> None:
    """Reads up to `lanes` rows of a block and writes its columns; rows that are not there repeat the last."""
    vectors = []
    for row in range(rows):
        register = Register(lanes, dtype)
        register.set(read(row))
        vectors.append(register.get())
    vectors += vectors[-1:] * (lanes - rows)
    for column, vector in enumerate(transposed(vectors, lanes, dtype)[:columns]):
        write(column, vector)
