"""The samples that PyTorch ships for testers of its operators, each captured as a graph of ATen operators.

A sample is a call of one function of PyTorch with small tensors. Its aliases and its in-place form are called with the
same tensors, and some samples are captured a second time with the operators that composite ones are lowered to.

May import torch and numpy. Must never import graphprune.
"""

from __future__ import annotations

import functools
import random
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import SampleInput
from torch.utils import _pytree as pytree

from .own import OWN

# How many samples of one function are taken, spread evenly over those that have axes to gather along, and of each other
# form of it.
SAMPLES = 3
OTHER_FORMS = 1

# In the order in which they are preferred.
TYPES = (torch.float32, torch.int64, torch.bool, torch.complex64)

# What PyTorch raises for a call that cannot be captured: it is sparse, or made for another device, or reads a number
# out of a tensor.
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NotImplementedError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """One call as a graph whose inputs are all its tensors."""

    name: str
    graph: GraphModule = field(repr=False)
    tensors: tuple[torch.Tensor, ...] = field(repr=False)

    @property
    def operators(self) -> list[str]:
        """The operators of the graph without their overloads (``aten.add``), sorted."""
        return sorted({_bare(str(call)) for call in self._calls})

    @property
    def composite(self) -> bool:
        """Whether some operator of the graph may be lowered to others."""
        key = "CompositeImplicitAutograd"
        return any(torch._C._dispatch_has_kernel_for_dispatch_key(call.name(), key) for call in self._calls)

    @property
    def _calls(self) -> list[torch._ops.OpOverload]:
        return [node.target for node in self.graph.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]


def _bare(name: str) -> str:
    """``aten.add_.Tensor`` without its overload, and torchvision's operators as the reader names them."""
    space, _, rest = name.partition(".")
    plain = rest.partition(".")[0]
    return f"aten.{plain}" if space == "aten" else f"{space}::{plain}"


@dataclass(frozen=True)
class Form:
    """One way to call a function: its name, what is called, and whether it writes to its first tensor."""

    name: str
    call: Callable[..., Any]
    in_place: bool = False


@functools.cache
def functions() -> dict[str, Any]:
    """The entries of PyTorch's database by their names, those of variants after a dot."""
    return {entry.name + (f".{entry.variant_test_name}" if entry.variant_test_name else ""): entry for entry in op_db}


@functools.lru_cache(maxsize=1)
def cases(name: str, every: bool = False) -> list[Case]:
    """The captured samples of one function, of PyTorch's database or our own; ``every``: all, instead of some."""
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(zlib.crc32(name.encode()))
    if name in OWN:
        call, arguments = OWN[name]
        return list(_cases(Form(name, call), [SampleInput(first, args=tuple(rest)) for first, *rest in arguments()]))
    entry = functions()[name]
    given = _samples(entry, every)
    found = list(_cases(Form(name, entry.op), given))
    known = {operator for case in found for operator in case.operators}
    for form, lowered in _other_forms(entry):
        if lowered and not any(case.composite for case in found):
            continue
        for case in _cases(form, given if every else sorted(given, key=_axes)[-OTHER_FORMS:], lowered):
            if not known.issuperset(case.operators):
                found.append(case)
    return found


def _samples(entry: Any, every: bool) -> list[SampleInput]:
    dtype = next((dtype for dtype in TYPES if dtype in entry.dtypes), None)
    # All of them, though few are used: a generator left open would switch gradients while a graph is captured.
    found = [] if dtype is None else list(entry.sample_inputs("cpu", dtype))
    if every:
        return found
    found = [sample for sample in found if _axes(sample)] or found
    return [found[place * len(found) // SAMPLES] for place in range(SAMPLES)] if len(found) > SAMPLES else found


def _axes(sample: SampleInput) -> int:
    """How many axes there are to gather along: none where a tensor is empty."""
    shapes = [
        leaf.shape
        for leaf in pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
        if isinstance(leaf, torch.Tensor) and not leaf.is_nested
    ]
    return 0 if any(0 in shape for shape in shapes) else sum(size > 1 for shape in shapes for size in shape)


def _other_forms(entry: Any) -> Iterator[tuple[Form, bool]]:
    """Aliases and in-place forms, and the function itself with composite operators lowered."""
    yield Form(f"{entry.name} lowered", entry.op), True
    for alias in entry.aliases:
        yield Form(alias.name, alias.op), False
    if entry.inplace_variant is not None:
        yield Form(f"{entry.name}_", entry.inplace_variant, in_place=True), False


def _cases(form: Form, samples: list[SampleInput], lowered: bool = False) -> Iterator[Case]:
    for place, sample in enumerate(samples):
        leaves, structure = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        at = [k for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        if all(leaves[k].layout == torch.strided and not leaves[k].is_nested for k in at):
            call = _with_tensors(form, leaves, structure, at)
            try:
                yield _captured(f"{form.name} {place}", call, tuple(leaves[k] for k in at), lowered)
            except FAILURES:
                continue


def _with_tensors(form: Form, leaves: list[Any], structure: Any, at: list[int]) -> Callable[..., Any]:
    """A function of the tensors of a sample alone."""

    def call(*tensors: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(at, tensors, strict=True):
            filled[place] = tensor
        first, args, kwargs = pytree.tree_unflatten(filled, structure)
        return form.call(first.clone() if form.in_place else first, *args, **kwargs)

    return call


def _captured(name: str, call: Callable[..., Any], tensors: tuple[torch.Tensor, ...], lowered: bool) -> Case:
    """A call as torch.export captures one: composite operators stay, unless they are to be ``lowered``."""
    tensors = tuple(tensor.detach() for tensor in tensors)
    copies = [tensor.clone() for tensor in tensors]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        graph = make_fx(call, pre_dispatch=not lowered)(*copies)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        graph(*(tensor.clone() for tensor in tensors))  # a few calls can be captured and not run
    return Case(name, graph, tensors)
