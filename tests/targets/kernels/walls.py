"""Runs kernels on arrays that lie right against memory that nobody may touch; a touch ends this process.

Every array is exactly as large as the kernel's docstring says, ends at the wall, then begins at it. The name of each
case is printed before it runs. `python -m tests.targets.kernels.walls NAME ...`; without names: all that keep inside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from graphprune.targets.kernels.across import Across
from graphprune.targets.kernels.contract import Contract
from graphprune.targets.kernels.copy import Turn
from graphprune.targets.kernels.gather import Gather
from graphprune.targets.kernels.gemv import Gemv
from graphprune.targets.kernels.halve import Halve
from graphprune.targets.kernels.normalize import Normalize
from graphprune.targets.kernels.packed import Packed
from graphprune.targets.kernels.reduce import Reduce
from graphprune.targets.kernels.sliding import Sliding
from graphprune.targets.kernels.softmax import Softmax
from graphprune.targets.kernels.strided import Strided
from graphprune.targets.kernels.take import Take
from graphprune.targets.kernels.tiles import Tiles
from graphprune.targets.kernels.tir import Kernel, Machine
from graphprune.targets.kernels.window import Window
from graphprune.targets.kernels.zip import Unzip, Zip
from tests.targets.kernels import amx, harness

Case = tuple[Kernel, list[np.ndarray]]


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def reduce(kept: bool, guarded: bool, length: int, step: int = 1) -> Case:
    pitch = length * step if guarded or not kept else harness.pitch(length)
    size = 5 * pitch - (step - 1)
    y = (length if guarded else harness.pitch(length)) if kept else 1
    kernel = Reduce("max", length, kept, (step, int(kept)), ((5, (pitch, 0)),), guarded=guarded)
    return kernel, [zeros(size), zeros(y)]


def softmax(kept: bool, length: int) -> Case:
    kernel = Softmax(length, kept, (1, 1), ((3, (length, length)),), ((2, (3 * length, 3 * length)),), guarded=kept)
    return kernel, [zeros(6 * length), zeros(6 * length)]


def normalize(kept: bool, length: int) -> Case:
    kernel = Normalize("layer", 1e-5, length, kept, (1, 0, 1, 1), ((3, (length, 1, 0, length)),), guarded=kept)
    return kernel, [zeros(3 * length), zeros(3), zeros(length), zeros(3 * length)]


def window(length: int, guarded: bool) -> Case:
    """Taps that reach 9 before and 9 behind: x begins there, and the run goes through to the end."""
    out = length if guarded else harness.pitch(length)
    kernel = Window(
        "max", (0, 9, 18), length, (1, 1, 1, 1), ((1, (0, 0, 0, 0)),), bordered=True, counted=True, guarded=guarded
    )
    return kernel, [zeros(out + 18), np.zeros(out, np.int32), zeros(out) + 1, zeros(out)]


def gather(tokens: int, features: int, columns: bool, guarded: bool) -> Case:
    pitch = (tokens if guarded else harness.pitch(tokens)) if columns else 1
    strides = (1, 1) if columns else (1, features)
    kernel = Gather(((tokens, strides),), features, 4, features, pitch, guarded=guarded)
    index = np.array([3, -4, 1 << 40, -(1 << 40)] * tokens)[:tokens]
    return kernel, [index, zeros(4, features), zeros(features * pitch if columns else tokens * features)]


def turn(rows: int, columns: int, guarded: bool) -> Case:
    pitch = rows if guarded else harness.pitch(rows)
    return Turn(rows, columns, columns, pitch, guarded=guarded), [zeros(rows, columns), zeros(columns, pitch)]


def gemv(outputs: int, dense: bool, lanes: int) -> Case:
    groups = -(-outputs // lanes)
    table = [] if dense else [np.array([2, 0] * groups, np.int32), np.arange(groups + 1, dtype=np.int32) * 2]
    entries = 3 if dense else 2
    kernel = Gemv(outputs, 3, 2, 3, outputs, dense, operands=((outputs, 1),))
    weights = zeros(groups * entries * lanes)
    return kernel, [zeros(6), weights, *table, zeros(outputs), zeros(2, outputs), zeros(2, outputs)]


def take(count: int, along: bool) -> Case:
    """Sums of two entries of nine, the last of them too; rows of 21 numbers, or the entries side by side."""
    run = (21, (1, 1)) if along else None
    kernel = Take(count, 21 if along else 1, ((2, (189, 21 * count)),) if along else ((42, (9, count)),), run, 2, True)
    places = np.array([8, 0] * count, np.int32) * (21 if along else 1)
    return kernel, [zeros(2 * 189), places, zeros(2 * count), zeros(42 * count)]


def contract(length: int, guarded: bool, outputs: int = 5) -> Case:
    pitch = harness.pitch(length)
    kernel = Contract(outputs, length, length if guarded else pitch, 2, 2, guarded=guarded)
    table = [np.array([0, 1] * 3, np.int32) * pitch, np.array([0, 2, 4, 6], np.int32)]
    y = zeros(outputs, length if guarded else pitch)
    return kernel, [zeros(2, pitch), zeros(12), *table, zeros(outputs), y]


def packed(length: int, guarded: bool, lanes: int) -> Case:
    """Two taps a vector apart, of two channels in two parts; the second begins 5 behind the channel."""
    pitch, plane = harness.pitch(length), 5 + lanes + harness.pitch(length)
    kernel = Packed(
        5, length, length if guarded else pitch, 2, 2,
        guarded=guarded, parts=2, channels=2, channel=plane, spans=((5, 1),), lanes=lanes,
    )  # fmt: skip
    table = [np.array([0, lanes] * 6, np.int32), np.arange(0, 14, 2, dtype=np.int32)]
    y = zeros(5, length if guarded else pitch)
    return kernel, [zeros(2, plane), zeros(24), *table, zeros(5), y]


def sliding(length: int, guarded: bool) -> Case:
    """Two taps that share vectors, and one by itself."""
    pitch, plane = harness.pitch(length), 40 + harness.pitch(length)
    kernel = Sliding(5, length, length if guarded else pitch, 1, 2, guarded=guarded, taps=(0, 2, 40))
    places = np.arange(5, dtype=np.int32)[:, None] * plane + np.array([0, 2, 40], np.int32)
    y = zeros(5, length if guarded else pitch)
    return kernel, [zeros(5, plane), zeros(15), places, np.arange(6, dtype=np.int32) * 3, zeros(5), y]


def tiles(length: int, outputs: int) -> Case:
    """Blocks of 32 outputs by 5 words, the first and the last of 10."""
    pitch, groups = harness.pitch(length), -(-outputs // 32)
    kernel = Tiles(outputs, length, length, 32, 2, guarded=True, numbers="int8", result="int32", depth=5, down=pitch)
    table = [np.array([0, 5] * groups, np.int32) * pitch, np.arange(groups + 1, dtype=np.int32) * 2]
    sizes = (10 * pitch, 2 * groups * 32 * 5), (outputs, outputs * length)
    x, weights, bias, y = (np.zeros(size, np.int32) for pair in sizes for size in pair)
    return kernel, [x, weights, *table, bias, y]


def across(length: int, outputs: int, lanes: int) -> Case:
    rows = 2 * lanes
    groups = -(-outputs // rows)
    table = [np.array([0, 1] * groups, np.int32) * length, np.arange(groups + 1, dtype=np.int32) * 2]
    kernel = Across(outputs, length, length, rows, 7)
    weights = zeros(2 * groups * rows)
    return kernel, [zeros(2, length), weights, *table, zeros(outputs), zeros(outputs, length)]


def by_two(length: int, zipped: bool) -> Case:
    if zipped:
        return Zip(length, length, ((2, (2 * length, 2 * length)),)), [zeros(4 * length), zeros(4 * length)]
    return Unzip(length, ((2, (2 * length - 1, length)),)), [zeros(2, 2 * length - 1), zeros(2 * length)]


def halve(width: int, padded: bool) -> Case:
    """Rows that lie side by side, so that the first and the last number of x are read and nothing beside them."""
    columns = (width + 2 * padded - 2) // 2 + 1
    kernel = Halve("max", (3, 2), (5, width), (2, columns), (1, 1) if padded else (0, 0), 2, (width, columns))
    return kernel, [zeros(5, width), zeros(2, columns)]


def strided(width: int, padded: bool) -> Case:
    """The same for a convolution."""
    columns = (width + 2 * padded - 2) // 2 + 1
    kernel = Strided("mean", (3, 2), (5, width), (2, columns), (1, 1) if padded else (0, 0), 2, (width, columns))
    return kernel, [zeros(5, width), zeros(6), zeros(1), zeros(2, columns)]


LENGTHS = (1, 23, 64)
TILES = amx.MACHINES[:1]
CASES: dict[str, Callable[[Machine], Case]] = {}
for _n in LENGTHS:
    for _flag in (True, False):
        CASES |= {
            f"reduce kept {_n} guarded {_flag}": lambda m, n=_n, f=_flag: reduce(True, f, n),
            f"reduce run {_n} step {1 if _flag else 3}": lambda m, n=_n, f=_flag: reduce(False, True, n, 1 if f else 3),
            f"softmax {_n} kept {_flag}": lambda m, n=_n, f=_flag: softmax(f, n),
            f"normalize {_n} kept {_flag}": lambda m, n=_n, f=_flag: normalize(f, n),
            f"window {_n} guarded {_flag}": lambda m, n=_n, f=_flag: window(n, f),
            f"gather {_n} columns {_flag}": lambda m, n=_n, f=_flag: gather(n, 19, f, f),
            f"turn {_n} guarded {_flag}": lambda m, n=_n, f=_flag: turn(n, 21, f),
            f"take {_n} along the run {_flag}": lambda m, n=_n, f=_flag: take(n, f),
            f"gemv {_n} dense {_flag}": lambda m, n=_n, f=_flag: gemv(n, f, m.lanes),
            **{f"tiles {_n} all {_flag}": lambda m, n=_n, f=_flag: tiles(n, 64 if f else 33) for _ in TILES},
            f"across {_n} all {_flag}": lambda m, n=_n, f=_flag: across(n, 4 * m.lanes if f else 5, m.lanes),
            f"by two {_n} zipped {_flag}": lambda m, n=_n, f=_flag: by_two(n, f),
            f"halve {_n} padded {_flag}": lambda m, n=_n, f=_flag: halve(n + 1, f),
            f"strided {_n} padded {_flag}": lambda m, n=_n, f=_flag: strided(n + 1, f),
            f"sliding {_n} guarded {_flag}": lambda m, n=_n, f=_flag: sliding(n, f),
            f"packed {_n} guarded {_flag}": lambda m, n=_n, f=_flag: packed(n, f, m.lanes),
            f"contract {_n} guarded {_flag}": lambda m, n=_n, f=_flag: contract(n, f),
        }


def one_too_far(case: Case, index: int) -> Case:
    """The same with one number less in one array, at the end of which the kernel then goes too far."""
    kernel, arrays = case
    short = list(arrays)
    short[index] = short[index].ravel()[:-1]
    return kernel, short


BROKEN: dict[str, Callable[[Machine], Case]] = {
    "reads one too far": lambda m: one_too_far(softmax(True, 23), 0),
    "reads one too far along the run": lambda m: one_too_far(softmax(False, 23), 0),
    "writes one too far": lambda m: one_too_far(gemv(23, True, m.lanes), -1),
    "copies one too far": lambda m: one_too_far(packed(16, True, m.lanes), 0),
    "slides one too far": lambda m: one_too_far(sliding(16, True), 0),
    "reads one before": lambda m: (Window("sum", (-1, 0), 23, (1, 1), guarded=True), [zeros(23), zeros(23)]),
}


def main(names: list[str]) -> None:
    for machine in [*harness.MACHINES[::2], *TILES]:
        for name in names or CASES:
            if (machine in TILES) != name.startswith("tiles"):
                continue
            kernel, arrays = {**CASES, **BROKEN}[name](machine)
            for at_end in (True, False):
                print(machine.lanes, name, "at the end" if at_end else "at the beginning", flush=True)
                with amx.emulated(machine):
                    harness.call(kernel, machine, [harness.walled(array, at_end) for array in arrays])
    print("all kept inside", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
