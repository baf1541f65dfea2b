"""Derivatives of a loss by the weights of a captured model: what criteria that need gradients ask for.

The graph runs as it was captured, in evaluation mode, over leaves that share the numbers of the model's tensors; the
module itself never gets a gradient. Sums are float64.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from graphprune.calibrate import Calibration
from graphprune.dialects.aten.capture import CAPTURE_FAILS, Captured, cannot_run
from graphprune.dialects.aten.dialect import _evaluated
from graphprune.dialects.aten.stages import mutates
from graphprune.dialects.aten.writer import put
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.program import Array, Program, Stored, Value
from graphprune.torch.losses import Function, loss_of

Tensors = dict[str, Tensor]

# Vectors of random signs in all, at least one for each batch: with them the variance of an estimated diagonal falls.
_PROBES = 16


def derivatives(
    program: Program, kind: str, calibration: Calibration | None, seed: int
) -> Iterator[Mapping[str, Array]]:
    """See :meth:`graphprune.dialects.tools.Tools.derivatives`."""
    if kind == "synaptic flow":
        from graphprune.dialects.aten.synaptic_flow import synaptic_flow

        yield Checked(synaptic_flow(program), kind)
        return
    if kind not in _KINDS:
        raise GraphPruneError("GP106", f"there is no derivative {kind!r}", remedy=did_you_mean(kind, _KINDS))
    if calibration is None:
        raise GraphPruneError("GP704", f"a {kind} needs calibration data", "option calibration")
    with _differentiating():
        network = _Network(program, calibration)
        for found in _KINDS[kind](network, seed):
            yield Checked(found, kind)


@contextmanager
def _differentiating() -> Iterator[None]:
    """Gradients, and second ones, whatever the caller has switched off: fused attention has no second derivatives."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


@dataclass(frozen=True, eq=False)
class Checked(Mapping[str, Array]):
    """Derivatives by name, converted and checked when they are asked for: an embedding that nobody scores can be larger
    than all other weights, and with one derivative for each sample that adds up.

    Raises GraphPruneError GP703 for numbers that are not finite.
    """

    tensors: Tensors
    kind: str

    def __getitem__(self, name: str) -> Array:
        tensor = self.tensors[name]
        if not bool(torch.isfinite(tensor).all()):
            raise GraphPruneError("GP703", f"its {self.kind} has numbers that are not finite", name)
        found: Array = tensor.detach().double().cpu().numpy()
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


# ---------------------------------------------------------------- the network
Nodes = Mapping[torch.fx.Node, torch.fx.Node]
"""The nodes of a twin by those of the original."""


def leaves_of(program: Program, graph: GraphModule, twins: Nodes, made: Callable[[Tensor], Tensor]) -> Tensors:
    """Put a leaf in the place of every weight of a twin, by name: parameters (tied ones are one leaf), and what is
    computed of parameters alone, as it is used: a transposed weight, or a normalised one."""
    found: Tensors = {}
    parameters = set()
    for stored in program.stored:
        old: Tensor = operator.attrgetter(stored.native[0])(graph)
        if not isinstance(old, nn.Parameter) or not old.is_floating_point():
            continue
        if old.is_meta:
            raise GraphPruneError(
                "GP103", "a tensor on the meta device has no numbers to differentiate at", stored.name
            )
        leaf = nn.Parameter(made(old.detach()))
        for name in stored.native:
            put(graph, name, leaf)
        found[stored.name] = leaf
        parameters.add(stored)
    for value in _computed(program, parameters):
        with torch.no_grad():
            leaf = nn.Parameter(made(_evaluated(value)))
        node = _node_of(value, twins)
        name = f"_computed_{len(found)}"
        graph.register_parameter(name, leaf)
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))
        found[value.name] = leaf
    graph.recompile()
    return found


def _computed(program: Program, parameters: set[Stored]) -> list[Value]:
    """What is computed of constants, some of them parameters, and read by what is not."""
    learned: set[Value] = set()
    found: dict[Value, None] = {}
    for node in program.main.nodes:
        read = [each for each in node.inputs if each is not None]
        constant = bool(node.outputs) and all(map(program.dialect.is_constant, node.outputs))
        if constant and any(each in learned or each.stored in parameters for each in read):
            learned.update(node.outputs)
        elif not constant:
            found.update(dict.fromkeys(each for each in read if each in learned))
    return [value for value in found if isinstance(value.native[1], Tensor) and value.native[1].is_floating_point()]


def _node_of(value: Value, twins: Nodes) -> torch.fx.Node:
    """The node that a value is: of one of several results, the one that takes it."""
    node = twins[value.native[0]]
    if value.name == node.name:
        return node
    place = int(value.name.rpartition(".")[2])
    return next(user for user in node.users if user.target is operator.getitem and user.args[1] == place)


def _hardsigmoid(x: Tensor) -> Tensor:
    return nn.functional.relu6(x + 3) / 6


_DIFFERENTIABLE: dict[Any, Any] = {torch.ops.aten.hardsigmoid.default: _hardsigmoid}
"""What stands for operators that PyTorch has no second derivative of."""


class _Network:
    """A loss as a function of weights."""

    def __init__(self, program: Program, calibration: Calibration):
        captured: Captured = program.native
        self.captured = captured
        self.graph, twins = captured.twin()
        self.leaves = leaves_of(program, self.graph, twins, lambda old: old.clone() if old.is_inference() else old)
        self.function: Function = loss_of(calibration.loss)
        self.calibration = calibration
        labels = calibration.labels
        if labels is not None and len(labels) != len(calibration.cases):
            what = f"there are {len(calibration.cases)} batches, and labels for {len(labels)}"
            raise GraphPruneError("GP702", what, "calibration")
        if not len(calibration.cases):
            raise GraphPruneError("GP701", "there is not one batch of calibration data")
        for node in self.graph.graph.nodes:
            node.target = _DIFFERENTIABLE.get(node.target, node.target)
        self.graph.recompile()
        self.mutates = any(mutates(node) for node in self.graph.graph.nodes)
        if self.mutates:
            _write_to_copies(self.graph)

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Inputs and labels."""
        labels = self.calibration.labels
        for place, case in enumerate(self.calibration.cases):
            yield case, None if labels is None else labels[place]

    def samples(self) -> Iterator[tuple[Any, Any]]:
        """The same one by one, where the graph takes a batch of any size."""
        for case, labels in self.batches():
            size = _batch(case)
            if not size or not self._is_open():
                yield case, labels
                continue
            labels = torch.as_tensor(labels) if isinstance(labels, list) else labels
            for place in range(size):
                yield _sample((case, labels), place, size)

    def _is_open(self) -> bool:
        first = next(iter(self.graph.graph.find_nodes(op="placeholder")), None)
        value = None if first is None else first.meta.get("val")
        return isinstance(value, Tensor) and value.dim() > 0 and isinstance(value.shape[0], torch.SymInt)

    def gradient(self, case: Any, labels: Any, then: Tensors | None = None) -> Tensors:
        """The gradient of the loss of one batch; with ``then``, the Hessian's product with that vector instead."""
        weights = list(self.leaves.values())
        with self._mutation():
            loss = self._loss(case, labels)
            if not bool(torch.isfinite(loss)):
                raise GraphPruneError("GP703", f"the loss is {loss.item()}", "calibration")
            if not loss.requires_grad:
                raise GraphPruneError("GP704", "the loss does not depend on any weight in a way that has a gradient")
            with _gradients(self.captured):
                found = _first(loss, weights) if then is None else _second(loss, weights, list(then.values()))
        pairs = zip(self.leaves.items(), found, strict=True)
        return {name: torch.zeros_like(leaf) if each is None else each.detach() for (name, leaf), each in pairs}

    def mean(self, of: Callable[[Any, Any], Tensors]) -> Tensors:
        """The mean over all samples of something that is a mean over the samples of a batch."""
        total = {name: torch.zeros_like(leaf, dtype=torch.float64) for name, leaf in self.leaves.items()}
        count = 0
        for case, labels in self.batches():
            size = _batch(case) or 1
            count += size
            for name, each in of(case, labels).items():
                total[name].add_(each, alpha=size)
        return {name: each / count for name, each in total.items()}

    def _mutation(self) -> AbstractContextManager[Any]:
        return torch.autograd.graph.allow_mutation_on_saved_tensors() if self.mutates else nullcontext()

    def _loss(self, case: Any, labels: Any) -> Tensor:
        from graphprune.dialects.aten.tools import copied

        args, kwargs = copied(case)
        try:
            outputs = self.graph(*args, **kwargs)
        except CAPTURE_FAILS as error:
            raise cannot_run(self.graph, error) from error
        return self.function(outputs, labels)


Found = Sequence[Tensor | None]
"""A derivative for each weight; None where there is no way to it."""


def _first(loss: Tensor, weights: Sequence[Tensor], *, again: bool = False) -> Found:
    found: Found = torch.autograd.grad(loss, weights, create_graph=again, allow_unused=True)
    return found


def _second(loss: Tensor, weights: Sequence[Tensor], vector: Sequence[Tensor]) -> Found:
    """The product of the Hessian with a vector."""
    pairs = zip(_first(loss, weights, again=True), vector, strict=True)
    along = [(g * v.to(g.dtype)).sum() for g, v in pairs if g is not None and g.requires_grad]
    return _first(torch.stack(along).sum(), weights) if along else [None] * len(weights)


@contextmanager
def _gradients(captured: Captured) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        what = f"PyTorch has no such derivative of it: {str(error).strip().splitlines()[:1]}"
        raise GraphPruneError("GP704", what, type(captured.source or captured.graph).__name__) from error


def _write_to_copies(graph: GraphModule) -> None:
    """Let a graph that writes to tensors write to copies of those that it holds."""
    for node in graph.graph.find_nodes(op="get_attr"):
        if not isinstance(operator.attrgetter(str(node.target))(graph), Tensor):
            continue
        with graph.graph.inserting_after(node):
            copy = graph.graph.call_function(torch.ops.aten.clone.default, (node,))
        node.replace_all_uses_with(copy, delete_user_cb=lambda user, copy=copy: user is not copy)
    graph.recompile()


def _batch(case: Any) -> int:
    """How many samples a batch has; 0 where it has no tensor that says so."""
    first = next((each for each in pytree.tree_leaves(case) if isinstance(each, Tensor) and each.dim()), None)
    return 0 if first is None else int(first.shape[0])


def _sample(batch: Any, place: int, size: int) -> Any:
    def one(each: Any) -> Any:
        shape: Any = getattr(each, "shape", ())
        return each[place : place + 1] if len(shape) and shape[0] == size else each

    return pytree.tree_map(one, batch)


# ---------------------------------------------------------------- the kinds
def _gradient(network: _Network, _: int) -> Iterator[Tensors]:
    yield network.mean(network.gradient)


def _each_batch(network: _Network, _: int) -> Iterator[Tensors]:
    for case, labels in network.batches():
        yield network.gradient(case, labels)


def _each_sample(network: _Network, _: int) -> Iterator[Tensors]:
    for case, labels in network.samples():
        yield network.gradient(case, labels)


def _squared(network: _Network, _: int) -> Iterator[Tensors]:
    total: Tensors = {}
    for case, labels in network.batches():
        for name, each in network.gradient(case, labels).items():
            square = each.double().square()
            total[name] = total[name] + square if name in total else square
    yield {name: each / len(network.calibration.cases) for name, each in total.items()}


def _product(network: _Network, _: int) -> Iterator[Tensors]:
    gradient = network.mean(network.gradient)
    yield network.mean(lambda case, labels: network.gradient(case, labels, gradient))


def _diagonal(network: _Network, seed: int) -> Iterator[Tensors]:
    generator = torch.Generator().manual_seed(seed)

    def probe(case: Any, labels: Any) -> Tensors:
        signs = {
            name: (torch.randint(0, 2, leaf.shape, generator=generator) * 2 - 1).to(leaf.device, leaf.dtype)
            for name, leaf in network.leaves.items()
        }
        found = network.gradient(case, labels, signs)
        return {name: each.double() * signs[name] for name, each in found.items()}

    count = -(-_PROBES // len(network.calibration.cases))
    found = [network.mean(probe) for _ in range(count)]
    yield {name: torch.stack([each[name] for each in found]).mean(0) for name in network.leaves}


_KINDS: Mapping[str, Callable[[_Network, int], Iterator[Tensors]]] = {
    "gradient": _gradient,
    "gradient of each batch": _each_batch,
    "gradient of each sample": _each_sample,
    "squared gradient": _squared,
    "hessian-gradient product": _product,
    "hessian diagonal": _diagonal,
}
