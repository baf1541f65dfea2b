"""Random networks for tests: graphs composed of blocks that are hard to prune, in the styles that exporters write.

A `Recipe` says everything about a network in a few words, so that a failure can be shrunk to the shortest list of
blocks that still fails. Must never import graphprune.
"""

from __future__ import annotations

from .blocks import BLOCKS, Block
from .builder import NAMED
from .recipe import OPSETS, Recipe, build, network, recipe, shrink
from .strategy import networks, recipes

__all__ = [
    "BLOCKS",
    "NAMED",
    "OPSETS",
    "Block",
    "Recipe",
    "build",
    "network",
    "networks",
    "recipe",
    "recipes",
    "shrink",
]
