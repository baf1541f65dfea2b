"""Weights as tables of what is there, and the register tiles that a product with them could use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from graphprune.targets.kernels.tir import Machine
from graphprune.targets.network.layout import NotMine, View

ROWS = (1, 2, 4, 6, 8, 12, 16)
VECTORS = (1, 2, 3, 4, 6, 8)
WORTH = 1.5  # forms whose estimate is within this of the best are worth a measurement
FORMS = 6  # and no more than these
CLOSE = 1 << 15  # bytes of x that stay in a first-level cache beside what is written
CACHE = 1 << 19  # bytes of x that stay close: a part of any second-level cache


@dataclass
class Product:
    """A contraction in the form of the kernel: weights [outputs, inputs] (of one kind of `numbers`, or words of them),
    the offset of each input row from the first, the run (and what is around it) in x, and how many outputs share a set
    of inputs (those of one group). Sums of integers become numbers by the `scale` of their output."""

    weights: np.ndarray
    offsets: np.ndarray
    bias: np.ndarray | None
    x: View  # with the axes of the run and around it only
    axis: int  # of the output rows in the result
    group: int
    channels: int  # rows of x that one group of outputs reads; taps of one channel lie in the same row
    numbers: str = "float32"
    scale: np.ndarray | None = None

    def stored(self, rows: int) -> int:
        """Weights in the table when `rows` outputs share a list of entries, the zeros among them too."""
        if rows not in self._stored:
            outputs, inputs = self.weights.shape
            padded = np.zeros((-(-outputs // rows) * rows, inputs), bool)
            np.not_equal(self.weights, 0, out=padded[:outputs])
            blocks = np.logical_or.reduce(padded.reshape(-1, rows, inputs), axis=1)
            self._stored[rows] = rows * int(np.count_nonzero(blocks))
        return self._stored[rows]

    _stored: dict[int, int] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Tile:
    """Output rows that share a list of entries, and vectors of the run, in registers; `full` keeps weights of zero, and
    `parts` cuts the inputs so that those of one part stay in the first-level cache. With `pixels` vectors lie across
    the outputs, for that many neighbours of the run."""

    rows: int
    vectors: int
    full: bool = False
    parts: int = 1
    pixels: int = 0


@dataclass(frozen=True)
class Run:
    """How many numbers lie side by side and how often: with the gaps between rows of pixels, and without."""

    length: int
    passes: int
    row: int
    row_passes: int


def tiles(product: Product, run: Run, machine: Machine) -> tuple[float, list[Tile]]:
    """What the best tile should cost, and tiles by that, the cheapest first; where weights are zero, the best that
    ignores it is last."""
    length = run.length
    found = [
        (run.passes * cost(product.stored(rows), rows, vectors, length, machine.lanes), Tile(rows, vectors))
        for rows in ROWS
        if fits(product, rows)
        for vectors in VECTORS
        if rows * vectors + vectors + 1 <= machine.registers and vectors <= -(-length // machine.lanes)
    ]
    found += across(product, run, machine)
    found.sort(key=lambda entry: entry[0])
    sums = product.numbers != "int8"  # a part leaves its sums where the result will be
    worth = [tile for estimate, tile in found if estimate <= WORTH * found[0][0]][:FORMS]
    for tile in list(worth):
        parts = -(-product.channels * tile.vectors * machine.lanes * 4 // CLOSE)
        if 1 < parts <= product.channels // 16 and tile.rows <= 2 and not tile.pixels and sums:
            worth.append(replace(tile, parts=parts))
    if product.stored(1) < 0.9 * product.weights.size:
        whole = min(
            (tile for _, tile in found if not tile.pixels),
            key=lambda tile: cost(product.weights.size, tile.rows, tile.vectors, length, machine.lanes),
        )
        worth.append(Tile(whole.rows, whole.vectors, full=True))
    return found[0][0], worth


def across(product: Product, run: Run, machine: Machine) -> list[tuple[float, Tile]]:
    """Tiles whose vectors lie across the outputs, with what they should cost."""
    found = []
    for vectors in (1, 2, 3, 4):
        rows = vectors * machine.lanes
        most = min(run.row, (machine.registers - 1 - vectors) // vectors)
        if rows > product.weights.shape[0] or not fits(product, rows) or most < 1:
            continue
        pixels = -(-run.row // -(-run.row // most))  # tiles of one size, as far as that goes
        whole, rest = divmod(run.row, pixels)
        cycles = sum(
            count * (max(vectors * wide / 2, (vectors + wide) / 2, 4.0) + 1.0)
            for count, wide in ((whole, pixels), (1, rest))
            if wide
        )
        found.append((run.row_passes * cycles * product.stored(rows) / rows, Tile(rows, vectors, pixels=pixels)))
    return found


def fits(product: Product, rows: int) -> bool:
    """Whether rows of one group have the same inputs to choose from."""
    return rows == 1 or (rows <= product.weights.shape[0] and (product.offsets.ndim == 1 or product.group % rows == 0))


def cost(weights: int, rows: int, vectors: int, length: int, lanes: int) -> float:
    """Cycles, roughly: two multiply-adds and two loads a cycle, a chain of adds that needs eight in flight, and one
    cycle for the entry."""
    whole, rest = divmod(-(-length // lanes), vectors)
    total = 0.0
    for count, wide in ((whole, vectors), (1, rest)):
        if wide:
            total += count * (max(rows * wide / 2, (rows + wide) / 2, 4.0) + 1.0)
    return total * weights / rows + 1e-6 * rows


def signature(product: Product) -> tuple[int, ...]:
    """What decides between forms: the sizes, and how many weights are there in twentieths."""
    size = product.weights.size
    shares = (round(20 * product.stored(rows) / size) for rows in (1, 4, 8, 16) if rows <= product.weights.shape[0])
    return (*product.weights.shape, product.group, *shares)


def table(product: Product, tile: Tile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [entries][rows], the offset of each entry, and where the entries of each group of rows begin."""
    rows = tile.rows
    outputs, inputs = product.weights.shape
    groups = -(-outputs // rows)
    padded = np.zeros((groups * rows, inputs), product.weights.dtype)
    padded[:outputs] = product.weights
    blocks = padded.reshape(groups, rows, inputs)
    there = np.ones((groups, inputs), bool) if tile.full else (blocks != 0).any(axis=1)
    present, columns = np.nonzero(there)
    values = np.ascontiguousarray(blocks[present, :, columns]).reshape(-1)
    if product.offsets.ndim > 1:
        offsets = product.offsets[present * rows // product.group, columns]
    else:
        offsets = product.offsets[columns]
    # entries by part of the channels, then by group; columns are taps of all channels, one tap after the other
    part = columns % product.channels * tile.parts // product.channels
    order = np.lexsort((columns, present, part))
    values = values.reshape(-1, rows)[order].reshape(-1)
    offsets = offsets[order]
    pointers = np.zeros(tile.parts * groups + 1, "int32")
    pointers[1:] = np.cumsum(np.bincount(part * groups + present, minlength=tile.parts * groups))
    if offsets.size and offsets.max() >= 1 << 31:
        raise NotMine("more than 2^31 numbers")
    if not values.size:
        values, offsets = np.zeros(rows, product.weights.dtype), np.zeros(1, "int64")
    return values, offsets.astype("int32"), pointers


def division(passes: int, tiles: int, most: int, groups: int, threads: int) -> tuple[int, int]:
    """How many tiles of the run are one task, `most` at most, and into how many pieces the output rows are cut, so that
    the threads end at the same time: of the divisions whose slowest thread is within a twentieth of the best, the one
    with the fewest tasks. `passes` are runs, `groups` groups of output rows."""
    found: list[tuple[int, int, int, int]] = []
    least = -(-tiles // most)
    enough = -(-8 * threads // passes)  # tasks of a run beyond which nothing is gained
    for blocks in range(least, max(least, min(tiles, enough)) + 1):
        block = -(-tiles // blocks)
        for pieces in range(1, max(1, min(groups, enough // blocks)) + 1):
            count = passes * -(-tiles // block) * pieces
            found.append((slowest(passes, tiles, block, groups, pieces, threads), count, block, pieces))
    bound = min(found)[0]
    _, _, block, pieces = min((each for each in found if 20 * each[0] <= 21 * bound), key=lambda each: each[1])
    return block, pieces


def slowest(passes: int, tiles: int, block: int, groups: int, pieces: int, threads: int) -> int:
    """Tiles times groups of the thread that has the most. Every thread has a range of tasks that are neighbours, of the
    same number but for the last, as `T.parallel` divides them."""
    piece = -(-groups // pieces)
    row = [max(0, min(piece, groups - number * piece)) for number in range(pieces)]
    run = [min(block, tiles - start) for start in range(0, tiles, block)]
    tasks = [strip * rows for strip in run for rows in row] * passes
    share = -(-len(tasks) // threads)
    return max(sum(tasks[start : start + share]) for start in range(0, len(tasks), share))


def close(product: Product, tile: int) -> int:
    """Tiles of so many numbers whose inputs stay close while a group of rows walks them."""
    return max(1, CACHE // (product.channels * tile * 4))
