"""A copy that turns rows into columns: [tokens][features] to [features][tokens] and back.

    y[o, r + c * turned] = x[o, r * pitch + c]

Columns lie side by side in x, rows in y; blocks are transposed in registers, so that every load and store is a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .loops import Loops, Strip, blocks, fetch, put, sweep
from .tir import Array, Machine
from .transpose import turn


@dataclass(frozen=True)
class Turn:
    """The arrays are x, y. `outer` are loops with the strides of x and y, `pitch` the distance of rows in x, `turned`
    that of columns in y. Behind the columns in x nothing is read; `guarded`: numbers behind the rows in y belong to
    somebody else."""

    rows: int
    columns: int
    pitch: int
    turned: int
    outer: Loops = ()
    guarded: bool = False

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("float32", "float32")

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        x, y = arrays
        lanes = machine.lanes

        def emit(bases: list[Any], start: Any, strip: Strip) -> None:
            left = strip.left if self.guarded else None

            def block(column: Any, columns: int) -> None:
                turn(
                    lanes,
                    strip.left,
                    columns,
                    lambda row: fetch(x, bases[0] + row * self.pitch + column, lanes, 1, columns),
                    lambda c, value: put(y, bases[1] + (column + c) * self.turned, value, lanes, 1, left),
                )

            blocks(self.columns, lanes, block)

        sweep(machine, self.outer, (self.rows, (self.pitch, 1)), 1, self.columns, emit)
