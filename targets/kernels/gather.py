"""Rows of a table by number, as ONNX Gather: embeddings.

    y[t, f] = table[index[t], f]

Numbers below zero count from the end. Numbers outside of the table (where ONNX promises nothing) take its first or last
row: nothing is read outside. Where tokens lie side by side in y, blocks of rows are transposed in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .loops import Loops, Strip, across, blocks, extent, fetch, placed, put, sweep, units, walk
from .tir import INT32, Array, Machine, Register, const, loop
from .transpose import turn


@dataclass(frozen=True)
class Gather:
    """The arrays are index, table, y. `tokens` are loops with the strides of index and y; `pitch` is the distance of
    the table's `rows`, whose numbers lie side by side; `feature` is the stride of features in y. `guarded`: numbers
    behind a run of tokens in y belong to somebody else."""

    tokens: Loops
    features: int
    rows: int
    pitch: int
    feature: int = 1
    dtype: str = "int64"
    guarded: bool = False

    @property
    def arrays(self) -> tuple[str, ...]:
        return (self.dtype, "float32", "float32")

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        if self.feature == 1 or not self.tokens or self.tokens[-1][1][1] != 1:
            self.by_rows(machine, arrays)
        else:
            self.by_blocks(machine, arrays)

    def row(self, index: Array, at: Any) -> Any:
        """Where the row of a token begins in the table."""
        number = index[at]
        zero, last = const(0, self.dtype), const(self.rows - 1, self.dtype)
        number = tirx.Select(number < zero, number + const(self.rows, self.dtype), number)
        return tirx.Cast(INT32, tirx.Min(tirx.Max(number, zero), last)) * self.pitch

    def by_rows(self, machine: Machine, arrays: Sequence[Array]) -> None:
        index, table, y = arrays
        lanes = machine.lanes
        with units(extent(self.tokens), self.features, machine) as unit:
            at = placed(unit, self.tokens, [const(0), const(0)])
            start = Register(1, INT32)
            tir.buffer_store(start.buffer, self.row(index, at[0]), [const(0)])
            bases = [start.lane(const(0)), at[1]]
            if self.feature != 1:
                with loop(self.features) as feature:
                    y[bases[1] + feature * self.feature] = table[bases[0] + feature]
                return
            run, rest = across(self.features, (1, 1), lanes)

            def copy(left: int, places: list[Any]) -> None:
                put(y, places[1], fetch(table, places[0], lanes, 1, left), lanes, 1, left)

            walk((run,), bases, 4, lambda at, _: copy(lanes, at), (lambda at, _: copy(rest, at)) if rest else None)

    def by_blocks(self, machine: Machine, arrays: Sequence[Array]) -> None:
        index, table, y = arrays
        lanes = machine.lanes
        *slow, run = self.tokens

        def emit(bases: list[Any], start: Any, strip: Strip) -> None:
            starts = Register(lanes, INT32)
            for token in range(strip.left):
                tir.buffer_store(starts.buffer, self.row(index, bases[0] + token * run[1][0]), [const(token)])
            left = strip.left if self.guarded else None

            def block(start: Any, features: int) -> None:
                turn(
                    lanes,
                    strip.left,
                    features,
                    lambda token: fetch(table, starts.lane(const(token)) + start, lanes, 1, features),
                    lambda f, value: put(y, bases[1] + (start + f) * self.feature, value, lanes, 1, left),
                )

            blocks(self.features, lanes, block)

        sweep(machine, tuple(slow), run, 1, self.features, emit)
