"""Of which numbers a product with constant weights is: the terms of its sums, one row for each kind.

`bfloat16` and `int8` come in words of two and of four neighbours, so that the kernels see numbers of 32 bits whichever
they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from . import pairs, quads
from .tir import INT32, Machine


@dataclass(frozen=True)
class Terms:
    """word: the type of x and of the weights; total: that of sums and of the bias; instructions: what statements that
    use `add` stand in; add: a sum, x, weights and the number of lanes to the next sum; tiles: the instruction that
    multiplies tiles of such words, with the weights on the left (see `tiles.py`)."""

    word: str
    total: str
    instructions: Callable[[Machine], AbstractContextManager[None]]
    add: Callable[[Any, Any, Any, int], Any]
    tiles: str = ""


TERMS = {
    "float32": Terms("float32", "float32", lambda machine: nullcontext(), lambda total, x, w, lanes: total + w * x),
    "bfloat16": Terms(
        INT32,
        "float32",
        lambda machine: pairs.instructions(),
        lambda total, x, w, lanes: pairs.dot(total, x, w),
        "tdpbf16ps",
    ),
    "int8": Terms(INT32, INT32, quads.instructions, quads.dot, "tdpbsud"),  # weights have signs, and x has none
}
