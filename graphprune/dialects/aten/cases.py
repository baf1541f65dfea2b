"""What a captured model is run on where two of its forms are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from graphprune.dialects.aten.capture import Captured

Case = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""

_BATCH, _TOKENS = 4, 32
"""The most entries along an open axis: along the first of an input (a batch), and along the second of token ids. Every
entry of a batch goes through the same computation, and what is compared takes a dozen runs."""


def cases(model: Captured, seed: int, count: int) -> Iterator[list[Case]]:
    """The example inputs, and others of their shapes with new standard normal numbers; the example alone, where it has
    no numbers to draw. With few entries along open axes first, and then as it was given."""
    whole: Case = (model.args, model.kwargs)
    short = shortened(model)
    for case in [whole] if short is None else [short, whole]:
        yield [case, *_others(case, seed, count - 1)]


def shortened(model: Captured) -> Case | None:
    """The first entries of the example inputs along their open axes; `None` where those are short already."""
    leaves, tree = pytree.tree_flatten((model.args, model.kwargs))
    formal = [node.meta.get("val") for node in model.graph.graph.nodes if node.op == "placeholder"]
    most = _most(formal)
    found = [_narrowed(given, value, most) for value, given in zip(formal, leaves, strict=True)]
    if all(new is old for new, old in zip(found, leaves, strict=True)):
        return None
    case: Case = pytree.tree_unflatten(found, tree)
    return case


def _most(formal: list[Any]) -> dict[str, int]:
    """How many entries to leave along open axes, by symbol. A symbol is left out where other sizes follow from it, and
    where it counts steps of a signal: too few of them would leave nothing to compare."""
    most: dict[str, int] = {}
    whole: set[str] = set()
    for value in formal:
        sizes = value.shape if isinstance(value, torch.Tensor) else (value,)
        for axis, size in enumerate(sizes):
            if not isinstance(size, torch.SymInt):
                continue
            if not isinstance(value, torch.Tensor) or not size.node.expr.is_Symbol:
                whole |= {str(symbol) for symbol in size.node.expr.free_symbols}
            elif axis == 0:
                most[str(size)] = max(most.get(str(size), 0), _BATCH)
            elif value.is_floating_point():
                whole.add(str(size))
            else:
                most[str(size)] = _TOKENS
    return {name: number for name, number in most.items() if name not in whole}


def _narrowed(given: Any, formal: Any, most: Mapping[str, int]) -> Any:
    if not isinstance(given, torch.Tensor) or not isinstance(formal, torch.Tensor):
        return given
    for axis, size in enumerate(formal.shape):
        number = most.get(str(size), given.shape[axis])
        if number < given.shape[axis]:
            given = given.narrow(axis, 0, number)
    return given


def _others(case: Case, seed: int, count: int) -> Iterator[Case]:
    if not any(isinstance(each, torch.Tensor) and each.is_floating_point() for each in pytree.tree_leaves(case)):
        return
    for place in range(1, count + 1):
        rng = np.random.Generator(np.random.PCG64(seed + place))
        yield pytree.tree_map(lambda each, rng=rng: _drawn(each, rng), case)


def _drawn(each: Any, rng: np.random.Generator) -> Any:
    if not isinstance(each, torch.Tensor) or not each.is_floating_point():
        return each
    drawn = torch.as_tensor(rng.standard_normal(tuple(each.shape)))
    return drawn.to(each.dtype).to(each.device)
