"""Runs a pruned graph in place of the dense one that Dynamo knows, and follows the dense weights when they change.

Holds no dense weight that the module no longer has. Imports torch, and Dynamo.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from graphprune.cuts import Cuts
from graphprune.dialects.aten.gather import gathered
from graphprune.torch.compile import dynamo
from graphprune.torch.tensors import plain_mode


class Follower:
    """The dense weights that a pruned graph was made of, watched for changes.

    small:  the pruned graph, which holds smaller copies
    cuts:   what is kept of each weight
    holds:  whether new weights may be cut in the same way
    usable: whether the last ones may
    """

    def __init__(self, traced: dynamo.Traced, small: GraphModule, cuts: Cuts, holds: Callable[[], bool] | None):
        self.traced = traced
        self.places = [(weight.place, weight.name) for weight in traced.weights]
        self.small = small
        self.cuts = cuts
        self.holds = holds
        self.usable = True
        self.seen: list[tuple[int, weakref.ref[Tensor], tuple[int, int]]] = []
        self.constants: dict[int, Tensor] = {}
        self._see([weight.tensor for weight in traced.weights])
        traced.forget_weights()

    def _see(self, tensors: Sequence[Tensor]) -> None:
        self.seen = [
            (place, weakref.ref(tensor), _state(tensor))
            for (place, _), tensor in zip(self.places, tensors, strict=True)
        ]
        named = {name: tensor for (_, name), tensor in zip(self.places, tensors, strict=True)}
        with plain_mode():
            self.constants = self.traced.constants(named)

    def check(self, inputs: Sequence[Any]) -> None:
        """Take over the weights among the inputs of a call, where they are not those of the last call."""
        for place, known, state in self.seen:
            now: Tensor = inputs[place]
            if now is not known() or _state(now) != state:
                self._follow([inputs[place] for place, _ in self.places])
                return

    def _follow(self, tensors: Sequence[Tensor]) -> None:
        graph = self.traced.captured.graph
        with plain_mode():
            if self.holds is not None:
                for (_, name), tensor in zip(self.places, tensors, strict=True):
                    dynamo.replace(graph, name, tensor)
                self.usable = self.holds()
                self.traced.forget_weights()
            for (_, name), tensor in zip(self.places, tensors, strict=True):
                held = self.small.get_buffer(name)
                if name in self.cuts:
                    held.copy_(gathered(tensor, self.cuts[name]))
                else:
                    held.data = tensor.detach()
        self._see(tensors)


def runner(
    compiled: Callable[..., Any], dense: Callable[..., Any], follower: Follower, traced: dynamo.Traced
) -> Callable[..., Any]:
    """What Dynamo calls: takes all inputs of the dense graph, returns all its outputs.

    compiled: the pruned graph, as the next backend compiled it
    dense:    the graph as it came, for weights that no longer allow the cut
    """
    given, fixed, total = traced.given, frozenset(traced.fixed), traced.outputs
    warned = False

    def run(*inputs: Any) -> Any:
        nonlocal warned
        follower.check(inputs)
        if not follower.usable:
            if not warned:
                warned = True
                what = "entries that were dead when the module was compiled are no longer, so the dense graph is run"
                warnings.warn(f"graphprune: {what}; call torch._dynamo.reset() to compile anew", stacklevel=2)
            return dense(*inputs)
        found = compiled(*[inputs[place] for place in given])
        if not fixed:
            return found
        others = iter(found if isinstance(found, tuple | list) else (found,))
        return tuple(follower.constants[place] if place in fixed else next(others) for place in range(total))

    return run


def _state(tensor: Tensor) -> tuple[int, int]:
    """What changes when a tensor is written in place, or is given other memory (`tensor.data = ...`). Inference tensors
    do not count what is written in place; nor does any tensor what is written through its `.data`."""
    return -1 if tensor.is_inference() else tensor._version, tensor.data_ptr()
