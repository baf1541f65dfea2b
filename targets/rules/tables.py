"""Weights as tables of what is there, and the register tiles that a product with them could use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphprune.targets.kernels.sliding import shared
from graphprune.targets.kernels.terms import TERMS
from graphprune.targets.kernels.tir import Machine
from graphprune.targets.network.layout import NotMine, View
from graphprune.targets.rules import deep
from graphprune.targets.rules.estimate import CACHE, CLOSE, COPY, LINE, entries, read, sliding
from graphprune.targets.rules.packing import Packing, packing

ROWS = (1, 2, 4, 6, 8, 12, 16)
VECTORS = (1, 2, 3, 4, 6, 8)
FEW = 32  # vectors of a run: tiles of one size then divide it
PARTS = (CLOSE, 3 * CLOSE, 9 * CLOSE)  # bytes of x that one part may have
WORTH = 1.5  # forms whose estimate is within this of the best are worth a measurement
FORMS = 6  # and no more than these


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

    def stored(self, rows: int, depth: int = 1) -> int:
        """Weights in the table when `rows` outputs share a list of entries of `depth` inputs, the zeros among them
        too."""
        if (rows, depth) not in self._stored:
            outputs, inputs = self.weights.shape
            padded = np.zeros((-(-outputs // rows) * rows, inputs), bool)
            np.not_equal(self.weights, 0, out=padded[:outputs])
            blocks = np.logical_or.reduce(padded.reshape(-1, rows, inputs // depth, depth), axis=(1, 3))
            self._stored[rows, depth] = rows * depth * int(np.count_nonzero(blocks))
        return self._stored[rows, depth]

    def down(self, depth: int) -> int:
        """How far apart `depth` neighbouring inputs lie, where that is the same for all; 0 where it is not."""
        steps = np.diff(self.offsets.reshape(-1, depth), axis=1)
        return int(steps[0, 0]) if (steps == steps[0, 0]).all() else 0

    def taps(self) -> tuple[int, ...]:
        """Of products of one channel, how far the inputs of an output lie from the first of them."""
        return tuple(int(tap) for tap in self.offsets.reshape(-1, self.weights.shape[1])[0] - self.offsets.flat[0])

    def starts(self) -> np.ndarray:
        """Where the taps of one channel begin."""
        taps = self.weights.shape[1] // self.channels
        return np.asarray(self.x.offset + self.offsets.reshape(-1, taps, self.channels)[0, :, 0])

    def held(self, numbers: int) -> int:
        """Bytes of x in the cache lines that so many neighbours of the run are made of."""
        starts, line = self.starts(), LINE // 4
        read = {place for first in starts for place in range(first // line, -(-(first + numbers) // line))}
        return len(read) * LINE * self.channels

    def split(self, lanes: int) -> float:
        """The share of the vectors of x that lie in two cache lines."""
        return float(np.count_nonzero(self.starts() % lanes) / len(self.starts())) * lanes * 4 / LINE

    _stored: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Tile:
    """Output rows that share a list of entries, and vectors of the run, in registers; `full` keeps weights of zero, and
    `parts` cuts the inputs so that those of one part stay in the first-level cache. With `pixels` vectors lie across
    the outputs, for that many neighbours of the run. With a `depth` an entry is that many neighbouring inputs. `packed`
    copies what a part reads to whole cache lines; `slides` reads each vector once for all taps of a row of pixels."""

    rows: int
    vectors: int
    full: bool = False
    parts: int = 1
    pixels: int = 0
    depth: int = 0
    packed: Packing | None = None
    slides: bool = False


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
    known = [
        Tile(rows, vectors)
        for rows in ROWS
        if fits(product, rows)
        for vectors in widths(run.length, machine.lanes)
        if rows * vectors + vectors + 1 <= machine.registers
    ]
    known += [replace(tile, parts=parts) for tile in known for parts in divisions(product, tile, machine.lanes)]
    known += packings(product, known, machine.lanes)
    known += blocks(product, run, machine)
    known += slides(product, run, machine)
    found = [(cycles(product, run, tile, machine.lanes), tile) for tile in known] + across(product, run, machine)
    found.sort(key=lambda entry: entry[0])
    worth = [tile for estimate, tile in found if estimate <= WORTH * found[0][0]][:FORMS]
    if product.stored(1) < 0.9 * product.weights.size:
        whole = [replace(tile, full=True) for tile in known if tile.parts == 1]
        worth.append(min(whole, key=lambda tile: cycles(product, run, tile, machine.lanes)))
    return found[0][0], worth


def widths(length: int, lanes: int) -> Sequence[int]:
    """Vectors that a tile may have: those that divide a short run into tiles of one size, as far as that goes."""
    total = -(-length // lanes)
    if total > FEW:
        return VECTORS
    return sorted({-(-total // pieces) for pieces in range(1, total + 1)})


def divisions(product: Product, tile: Tile, lanes: int) -> list[int]:
    """Into how many parts the inputs may be cut: so that what a tile reads of one stays close."""
    if tile.rows > 2 or product.numbers == "int8":  # a part leaves its sums where the result will be
        return []
    held = product.held(tile.vectors * lanes)
    most = min(product.channels, product.stored(tile.rows) // (4 * product.weights.shape[0]))
    return sorted({parts for size in PARTS if 1 < (parts := -(-held // size)) <= most})


def packings(product: Product, known: Sequence[Tile], lanes: int) -> list[Tile]:
    """Those of the tiles with few rows that are worth a copy of what they read, with the copy."""
    found = []
    for tile in known:
        if tile.rows > 4 or tile.parts > 1 or product.numbers == "int8":
            continue
        copy = packing(product, tile.vectors, lanes)
        parts = copy.parts(product.channels) if copy else []
        found += [replace(tile, parts=each, packed=copy) for each in parts]
    return found


def cycles(product: Product, run: Run, tile: Tile, lanes: int) -> float:
    """What a tile should cost in all."""
    stored = product.weights.size if tile.full else product.stored(tile.rows, max(1, tile.depth))
    lists = -(-product.weights.shape[0] // tile.rows) * tile.parts
    if tile.depth:
        strips = -(-run.length // lanes)
        entered = stored / tile.rows / tile.depth
        return run.passes * deep.cycles(entered, lists, tile.rows // lanes, strips, tile.vectors)
    whole, rest = divmod(-(-run.length // lanes), tile.vectors)
    total = 0.0
    for count, vectors in ((whole, tile.vectors), (1, rest)):
        if count and vectors:
            if tile.slides:
                total += count * lists * sliding(shared(product.taps(), lanes), vectors, product.split(lanes))
                continue
            if tile.packed:
                copied = product.channels * tile.packed.size
                far = read(4 * copied / tile.parts, 0.0, lanes)
                total += count * COPY * copied / lanes
            else:
                far = read(product.held(vectors * lanes) / tile.parts, product.split(lanes), lanes)
            total += count * entries(stored / tile.rows, lists, tile.rows, vectors, far)
            if tile.parts > 1:
                total += count * lists * tile.rows * vectors
    return run.passes * total + 1e-6 * tile.rows


def blocks(product: Product, run: Run, machine: Machine) -> list[Tile]:
    """Tiles whose entries are blocks, on a machine that multiplies such."""
    if not machine.tiles or not TERMS[product.numbers].tiles:
        return []
    return [
        Tile(tall * machine.lanes, wide, depth=depth)
        for depth in deep.depths(product.channels)
        if product.down(depth)
        for tall, wide in deep.SHAPES
        if fits(product, tall * machine.lanes) and wide <= -(-run.length // machine.lanes)
    ]


def slides(product: Product, run: Run, machine: Machine) -> list[Tile]:
    """Tiles of one channel whose taps share vectors, on machines with vectors of a whole cache line: shorter ones
    seldom lie in two, and most take two instructions to be shuffled."""
    if product.channels > 1 or product.offsets.ndim == 1 or product.numbers != "float32" or 4 * machine.lanes < LINE:
        return []
    most = (machine.registers - 4) // 2  # sums and what is read
    return [Tile(1, wide, full=True, slides=True) for wide in widths(run.length, machine.lanes) if wide <= most]


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


def signature(product: Product) -> tuple[int, ...]:
    """What decides between forms: the sizes, and how many weights are there in twentieths."""
    size = product.weights.size
    shares = (round(20 * product.stored(rows) / size) for rows in (1, 4, 8, 16) if rows <= product.weights.shape[0])
    deepest = tuple(deep.depths(product.channels))[:1] if TERMS[product.numbers].tiles else ()
    blocks = (round(20 * product.stored(16, depth) / size) for depth in deepest)
    return (*product.weights.shape, product.group, *shares, *blocks)


def table(product: Product, tile: Tile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [entries][rows][depth], the offset of each entry, and where those of each group of rows begin."""
    if tile.packed:
        product = replace(product, offsets=tile.packed.offsets(product, tile.parts), _stored={})
    rows, depth = tile.rows, max(1, tile.depth)
    outputs, inputs = product.weights.shape
    groups = -(-outputs // rows)
    padded = np.zeros((groups * rows, inputs), product.weights.dtype)
    padded[:outputs] = product.weights
    blocks = padded.reshape(groups, rows, inputs // depth, depth)
    there = np.ones((groups, inputs // depth), bool) if tile.full else (blocks != 0).any(axis=(1, 3))
    present, columns = np.nonzero(there)
    values = blocks[present, :, columns]
    columns *= depth
    if product.offsets.ndim > 1:
        offsets = product.offsets[present * rows // product.group, columns]
    else:
        offsets = product.offsets[columns]
    # entries by part of the channels, then by group; columns are taps of all channels, one tap after the other
    part = columns % product.channels * tile.parts // product.channels
    order = np.lexsort((columns, present, part))
    values = np.ascontiguousarray(values[order]).reshape(-1)
    offsets = offsets[order]
    pointers = np.zeros(tile.parts * groups + 1, "int32")
    pointers[1:] = np.cumsum(np.bincount(part * groups + present, minlength=tile.parts * groups))
    if offsets.size and offsets.max() >= 1 << 31:
        raise NotMine("more than 2^31 numbers")
    if not values.size:
        values, offsets = np.zeros(rows * depth, product.weights.dtype), np.zeros(1, "int64")
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
