"""The register of blocks, by the world they live in.

A block takes a builder and a value and returns a value of the same rank; one that does not apply to a value (a window
of an odd height, say) returns it as it is. Must never import graphprune.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .builder import Builder, Tensor

BlockFunction = Callable[[Builder, Tensor], Tensor]


@dataclass(frozen=True)
class Block:
    """A named block: `world` is "image" for [N, C, H, W] or "sequence" for [N, S, C]."""

    name: str
    world: str
    build: BlockFunction


BLOCKS: dict[str, Block] = {}


def block(world: str) -> Callable[[BlockFunction], BlockFunction]:
    """Register a block under the name of its function."""

    def register(build: BlockFunction) -> BlockFunction:
        if build.__name__ in BLOCKS:
            raise ValueError(f"two blocks are called {build.__name__!r}")
        BLOCKS[build.__name__] = Block(build.__name__, world, build)
        return build

    return register
