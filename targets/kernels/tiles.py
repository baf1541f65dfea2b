"""Products with constant weights by AMX: tiles of 16 rows of 64 bytes, a product of two of them in one instruction.

    C[16 outputs, 16 places] += A[16 outputs, depth words] * B[depth words, 16 places]

The words are those of `pairs.py` and `quads.py`. B is x as it lies, `depth` rows of words at one distance; A is a block
of weights, so that the entries of a table are blocks of 16 or 32 outputs by `depth` words, and a block that is not
there is not in the table. The sums go through memory into the epilogue of `contract.py`. (Intel, "Intel 64 and IA-32
Architectures Software Developer's Manual", volume 1, chapter "Programming with Intel Advanced Matrix Extensions".)

Of the eight tiles the first hold the sums, row by row of tiles, then come those of weights, then those of x. Tile
numbers are part of an instruction and TVM knows none of them, so that steps are functions in LLVM's own language. What
a tile is for is said once in each task, because the configuration belongs to the thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .contract import Contract, Sum
from .tir import INT32, Array, Machine, Register, const, room

SIDE = 16  # rows of a tile, and words of a row
TILES = 8
FEATURES = {"tdpbf16ps": "+amx-tile,+amx-bf16", "tdpbsud": "+amx-tile,+amx-int8"}


@cache
def code(dot: str, tall: int, wide: int, depth: int) -> str:
    """The functions for sums of `tall` by `wide` tiles: configure and release; for up to `wide` tiles of places clear,
    add the product of one entry, store. Pointers are to first words, `apart` are bytes between rows of x."""
    left, right = tall * wide, tall * wide + tall
    rows = [SIDE] * right + [depth] * wide
    across = [SIDE] * left + [depth] * tall + [SIDE] * wide
    missing = [0] * (TILES - len(rows))
    bytes_ = [part for words in across + missing for part in (4 * words, 0)]
    layout = [1, *[0] * 15, *bytes_, *[0] * 16, *rows, *missing, *[0] * 8]  # palette 1; bytes of a row, then rows
    sizes = ", ".join(f"i8 {byte}" for byte in layout)
    name = f"{dot}_{tall}x{wide}x{depth}"
    text = f"""
@graphprune_tiles_{name} = linkonce_odr hidden constant [64 x i8] [{sizes}], align 64
{function(f"configure_{name}", "", ["ldtilecfg(ptr @graphprune_tiles_" + name + ")"])}
{function(f"release_{name}", "", ["tilerelease()"])}"""
    for count in range(1, wide + 1):
        sums = [(row, column, row * wide + column) for row in range(tall) for column in range(count)]
        load = [f"tileloadd64(i8 {left + row}, ptr %w{row}, i64 {4 * depth})" for row in range(tall)]
        load += [f"tileloadd64(i8 {right + column}, ptr %x{column}, i64 %apart)" for column in range(count)]
        step = load + [f"{dot}(i8 {total}, i8 {left + row}, i8 {right + column})" for row, column, total in sums]
        store = [f"tilestored64(i8 {total}, ptr %c{total}, i64 {4 * SIDE})" for _, _, total in sums]
        pieces = [f"%c{total} = getelementptr i32, ptr %c, i64 {total * SIDE * SIDE}" for _, _, total in sums]
        places = [f"%w{row} = getelementptr i32, ptr %w, i64 {row * SIDE * depth}" for row in range(tall)]
        places += [f"%x{column} = getelementptr i32, ptr %x, i64 {column * SIDE}" for column in range(count)]
        text += function(f"clear_{name}_{count}", "", [f"tilezero(i8 {total})" for _, _, total in sums])
        text += function(f"step_{name}_{count}", "ptr %w, ptr %x, i64 %apart", step, places)
        text += function(f"store_{name}_{count}", "ptr %c", store, pieces)
    return f"""{text}
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilerelease()
declare void @llvm.x86.tilezero(i8 immarg)
declare void @llvm.x86.tileloadd64(i8 immarg, ptr, i64)
declare void @llvm.x86.tilestored64(i8 immarg, ptr, i64)
declare void @llvm.x86.{dot}(i8 immarg, i8 immarg, i8 immarg)
attributes #0 = {{ alwaysinline nounwind "target-features"="{FEATURES[dot]}" }}
"""


def function(name: str, arguments: str, calls: Sequence[str], before: Sequence[str] = ()) -> str:
    """A function of instructions of a processor."""
    body = [*before, *(f"call void @llvm.x86.{call}" for call in calls), "ret i32 0"]
    return f"define linkonce_odr i32 @graphprune_tiles_{name}({arguments}) #0 {{\n" + "\n".join(body) + "\n}\n"


@dataclass(frozen=True)
class Tiles(Contract):
    """As `Contract` for words, of which `depth` make an entry, `down` apart in x; `rows` are 16 or 32, and of the
    weights come [entries][rows][depth]."""

    depth: int = SIDE
    down: int = 0

    @property
    def tall(self) -> int:
        return self.rows // SIDE

    def __post_init__(self) -> None:
        if self.rows % SIDE or self.depth > SIDE or held(self.tall, self.vectors) > TILES or self.parts > 1:
            raise ValueError(f"no tiles for {self}")

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        assert machine.lanes == SIDE
        made = code(self.terms.tiles, self.tall, self.vectors, self.depth)
        with tir.attr(const(0), "pragma_import_llvm", made):
            self.walk(machine, arrays)

    @contextmanager
    def within(self) -> Iterator[Any]:
        """The thread of a task has its tiles, and memory that sums go through."""
        self.do("configure")
        with room(self.tall * self.vectors * SIDE * SIDE, self.terms.total) as sums:
            yield sums
            self.do("release")

    def do(self, what: str, *arguments: Any, number: int | None = None) -> None:
        end = "" if number is None else f"_{number}"
        name = f"{self.terms.tiles}_{self.tall}x{self.vectors}x{self.depth}"
        tir.evaluate(tirx.call_extern(INT32, f"graphprune_tiles_{what}_{name}{end}", *arguments))

    def tile(
        self,
        machine: Machine,
        arrays: Sequence[Array],
        bases: list[Any],
        where: tuple[Any, Any, Any],
        start: Any,
        vectors: int,
    ) -> None:
        x, weights, offsets, pointers, *_ = arrays
        _, group, sums = where
        first = pointers[group]
        apart = const(4 * self.down, "int64")
        self.do("clear", number=vectors)
        with tir.serial(0, pointers[group + 1] - first) as entry:
            block = address(weights, (first + entry) * (self.rows * self.depth))
            self.do("step", block, address(x, bases[0] + start + offsets[first + entry]), apart, number=vectors)
        self.do("store", tir.address_of(sums[const(0)]), number=vectors)
        total = self.terms.total
        for row in range(self.tall):
            with tir.serial(0, SIDE) as r:
                found = [
                    Sum(Register(SIDE, total), group * self.rows + row * SIDE + r, start + v * SIDE, SIDE)
                    for v in range(vectors)
                ]
                self.begin(found, arrays)
                for v, each in enumerate(found):
                    place = (row * self.vectors + v) * SIDE * SIDE + r * SIDE
                    each.register.set(each.register.get() + sums[tirx.Ramp(place, 1, SIDE)])
                self.end(found, arrays, bases)


def held(tall: int, wide: int) -> int:
    """Tiles for sums of `tall` by `wide` of them."""
    return tall * wide + tall + wide


def address(array: Array, index: Any) -> Any:
    return tir.address_of(array.buffer[array.offset + index])
