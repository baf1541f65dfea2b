"""Broken models in unlimited supply: the case of a number and a seed is always the same bytes.

Every case takes a model that is whole and breaks it in one to three places, in the message or in its bytes.
May import onnx; must not import graphprune.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from google.protobuf.message import EncodeError
from onnx import ModelProto

from tests.models import CASES

from . import attributes, nesting, nodes, tensors  # noqa: F401  # each fills the table of mutations
from .message import MESSAGE

EXAMPLE = Path(__file__).parents[2] / "examples" / "super_resolution.onnx"

_SHARE_OF_BYTES = 0.25


def truncate(rng: Random, data: bytes, other: bytes) -> bytes:
    """Cut off at some place."""
    return data[: rng.randrange(len(data))]


def flip(rng: Random, data: bytes, other: bytes) -> bytes:
    """Up to 40 bytes changed, most of them where the graph is: weights hide damage."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 40)):
        changed[_place(rng, changed)] = rng.randrange(256)
    return bytes(changed)


def flip_bit(rng: Random, data: bytes, other: bytes) -> bytes:
    """One bit changed."""
    changed = bytearray(data)
    changed[_place(rng, changed)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def insert(rng: Random, data: bytes, other: bytes) -> bytes:
    """Bytes that do not belong there."""
    place = _place(rng, data)
    return data[:place] + rng.randbytes(rng.randrange(1, 64)) + data[place:]


def delete(rng: Random, data: bytes, other: bytes) -> bytes:
    """Bytes missing."""
    place = _place(rng, data)
    return data[:place] + data[place + rng.randrange(1, 256) :]


def splice(rng: Random, data: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def concatenate(rng: Random, data: bytes, other: bytes) -> bytes:
    """Two files in one: protobuf merges them into one model."""
    return data + other


BYTES: dict[str, Callable[[Random, bytes, bytes], bytes]] = {
    each.__name__: each for each in (truncate, flip, flip_bit, insert, delete, splice, concatenate)
}


def _place(rng: Random, data: bytes | bytearray) -> int:
    return rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(4096, len(data)))


@dataclass(frozen=True)
class Broken:
    """One case: `name` tells how it was made, for people; `content` is the file."""

    name: str
    content: bytes


class Sources:
    """Whole models to break: those of tests/models, the example, and the .onnx files of `folder`, smallest first."""

    def __init__(self, folder: Path | None = None, largest: int = 6_000_000) -> None:
        self.folder = folder
        self.largest = largest

    @cached_property
    def models(self) -> list[tuple[str, bytes]]:
        found = [(name, case.build().SerializeToString()) for name, case in sorted(CASES.items())]
        paths = [EXAMPLE, *(sorted(self.folder.glob("*.onnx")) if self.folder is not None else [])]
        return found + [(path.stem, path.read_bytes()) for path in paths if path.stat().st_size <= self.largest]

    def case(self, number: int, seed: int) -> Broken:
        """The broken model of this number."""
        rng = Random(f"graphprune {seed} {number}")
        name, data = rng.choice(self.models)
        if rng.random() < _SHARE_OF_BYTES:
            how = rng.choice(sorted(BYTES))
            return Broken(f"{name}: {how}", BYTES[how](rng, data, rng.choice(self.models)[1]))
        return mutated(rng, name, data, rng.choices(sorted(MESSAGE), k=rng.choice((1, 1, 2, 3))))


def mutated(rng: Random, name: str, data: bytes, kinds: Sequence[str]) -> Broken:
    """A model with these mutations of its message, one after the other."""
    model = ModelProto.FromString(data)
    for kind in kinds:
        with suppress(ValueError):  # what an earlier mutation left cannot be read, or holds text that is none
            MESSAGE[kind](rng, model)
    try:
        content = model.SerializeToString(deterministic=True)
    except EncodeError:  # protobuf itself refuses: nobody can be sent such a file
        content = data
    return Broken(f"{name}: {' + '.join(kinds)}", content)
