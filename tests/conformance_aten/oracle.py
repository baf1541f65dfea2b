"""The gather oracle on captured samples: gather the tensors of a call along a free dimension, and its results must be
the gathered results.

A permutation must hold for every free dimension. A cut must hold for every exact one: where a contraction sums over
the dimension, against the call with the removed entries zeroed.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from graphprune.analysis import analyze_program
from graphprune.dialects.aten.capture import Captured
from graphprune.dialects.aten.dialect import TABLE
from graphprune.dialects.aten.masks import masked
from graphprune.dialects.aten.reader import read
from graphprune.dialects.aten.writer import write
from graphprune.dims import Dim, is_cut, leaves
from graphprune.program import Value
from graphprune.rules.trace import Typed
from tests.conformance.law import Arrays, Keep, Outcome, difference, gathered, keeps, removing

from .samples import FAILURES, Case

# They leave what the memory held before; only the shape of what they make can be compared.
UNINITIALISED = {f"aten.{name}" for name in ["empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"]}


def rows(case: Case) -> list[str]:
    """The rows of the operator table that the operators of a case have; in-place forms have that of the plain one."""
    found = {name if name in TABLE else name.removesuffix("_") for name in case.operators}
    return sorted(found & TABLE.keys())


class Subject:
    """One case with all its tensors stored (buffers), or fed (inputs). Nothing is pinned for being an input or an
    output of the graph."""

    def __init__(self, case: Case, *, stored: bool):
        self.case, self.stored = case, stored
        self.graph = _with_buffers(case) if stored else case.graph
        self.feeds = () if stored else case.tensors
        self.analysis = analyze_program(read(Captured(self.graph, self.feeds, {})), pin_interface=False)

    @cached_property
    def free(self) -> list[Dim]:
        """The free dimensions of everything that goes in and comes out."""
        axes = [axis for _, _, _, each in self.analysis.stored_axes() for axis in each]
        for value in [*self.analysis.program.main.inputs, *self._outputs]:
            axes += self._typed(value).axes or []
        return list(dict.fromkeys(leaf for axis in axes for leaf in leaves(axis) if leaf.pin is None))

    @property
    def _outputs(self) -> list[Value | None]:
        return self.analysis.program.main.outputs

    def _typed(self, value: Value | None) -> Typed:
        return self.analysis.trace.types.get(value, Typed(None)) if value is not None else Typed(None)

    def check(self, rounds: int = 1, *, each: bool = False) -> Outcome:
        """All dimensions permuted and cut at once, with as many draws of what is kept; ``each``: one by one as well."""
        outcome = Outcome(free=len(self.free))
        dense = _run(self.graph, self.feeds)
        outcome.mismatches += self._wrong_sizes(dense)
        if outcome.mismatches:  # there are no positions to gather
            return outcome
        for what, keep in keeps(self.case.name, self.free, self.analysis.inexact, rounds, each=each):
            outcome.checked += 1
            problem = self._compare(dense, keep)
            if problem:
                outcome.mismatches.append(f"{self._name}, {what}: {problem}")
        return outcome

    @property
    def _name(self) -> str:
        return f"{self.case.name} ({' '.join(rows(self.case))}, {'stored' if self.stored else 'fed'})"

    def _compare(self, dense: Arrays, keep: Keep) -> str | None:
        removes = removing(keep)
        try:
            pruned = _run(write(self.analysis, keep).graph, self._gathered_feeds(keep))
        except FAILURES as error:
            return f"it no longer runs: {type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
        if removes and self._reduces(removes):
            zeroed = masked(self.analysis, {dim: np.sort(kept) for dim, kept in removes.items()})
            dense = _run(zeroed.graph, self.feeds)
        for place, (value, before, after) in enumerate(zip(self._outputs, dense, pruned, strict=True)):
            expected = gathered(before, self._typed(value), keep)[0]
            if UNINITIALISED.intersection(self.case.operators) and expected.shape == after.shape:
                continue
            problem = difference(expected, after)
            if problem:
                return f"output {place}: {problem}"
        return None

    def _reduces(self, keep: Keep) -> bool:
        return any(is_cut(axis, keep) for contraction in self.analysis.contractions for _, _, axis in contraction.masks)

    def _gathered_feeds(self, keep: Keep) -> tuple[torch.Tensor, ...]:
        inputs = self.analysis.program.main.inputs if self.feeds else []
        found = (
            gathered(_array(feed), self._typed(value), keep)[0] for value, feed in zip(inputs, self.feeds, strict=True)
        )
        return tuple(torch.as_tensor(np.array(array, order="C")) for array in found)

    def _wrong_sizes(self, outputs: Arrays) -> Iterator[str]:
        """Ranks and sizes that the rules promise and the run does not show."""
        for place, (value, array) in enumerate(zip(self._outputs, outputs, strict=True)):
            axes = self._typed(value).axes
            if axes is None:
                continue
            promised = [axis.size for axis in axes]
            kept = len(promised) == array.ndim and all(
                size == now or not isinstance(size, int) for size, now in zip(promised, array.shape, strict=True)
            )
            if not kept:
                yield f"{self._name}: output {place} is {array.shape}, not {promised}"


def _with_buffers(case: Case) -> GraphModule:
    """The graph with its inputs made buffers."""
    graph = copy.deepcopy(case.graph)
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for place, (node, tensor) in enumerate(zip(inputs, case.tensors, strict=True)):
        graph.register_buffer(f"stored_{place}", tensor.clone())
        with graph.graph.inserting_before(node):
            buffer = graph.graph.get_attr(f"stored_{place}")
        buffer.meta = dict(node.meta)
        node.replace_all_uses_with(buffer)
        graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _run(graph: GraphModule, feeds: tuple[torch.Tensor, ...]) -> Arrays:
    """The outputs that are values of the graph, as arrays; always with the same random numbers. Neither the tensors of
    the graph nor the feeds are changed, whatever the call writes to."""
    saved = {name: buffer.clone() for name, buffer in graph.named_buffers()}
    torch.default_generator.manual_seed(0)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            results = pytree.tree_leaves(graph(*(feed.clone() for feed in feeds)))
            arrays = [_array(each) for each in results]
    finally:
        for name, buffer in graph.named_buffers():
            buffer.data = saved[name]
    output = next(node for node in graph.graph.nodes if node.op == "output")
    named = pytree.tree_leaves(output.args[0])
    return [array for array, node in zip(arrays, named, strict=True) if isinstance(node, torch.fx.Node)]


def _array(result: Any) -> np.ndarray:
    if not isinstance(result, torch.Tensor):
        return np.asarray(result)
    plain = result.detach().resolve_conj().resolve_neg()
    if plain.is_quantized:
        plain = plain.int_repr()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()
    return plain.to(torch.complex64).numpy() if plain.dtype == torch.complex32 else plain.contiguous().numpy()
