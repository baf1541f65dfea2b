"""The backend `graphprune-x86`: a frozen inference graph of Dynamo, built for this processor by TVM.

    torch.compile(model, backend="graphprune", options={"macs": 0.5, "then": "graphprune-x86"})    prune, then build
    torch.compile(model, backend="graphprune-x86")                                                  build alone

Weights become constants of the build, so Dynamo compiles anew for another instance; sizes are those of the first call,
so it does for others too (`dynamic=False`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

import graphprune
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.torch.compile import dynamo

_OPTIONS = ("threads", "tune", "verify")


def x86_backend(
    graph: GraphModule, inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """A function of the same inputs that runs the built network.

    options: `threads` (default: those of torch), `tune` (seconds, default: 60), `verify` (default: True; against
             onnxruntime)
    Raises GraphPruneError: GP107 for sizes that are not fixed and unknown options, GP112 where the graph cannot be
    exported, GP601 under gradients, and what `graphprune.targets.building.build` raises.
    """
    chosen = dict(options or {})
    for name in chosen:
        if name not in _OPTIONS:
            raise GraphPruneError("GP107", f"unknown option {name!r}", "graphprune-x86", did_you_mean(name, _OPTIONS))
    if any(dynamo.requires_gradient(graph)):
        raise GraphPruneError("GP601", "gradients are recorded, and a build has none", "graphprune-x86")
    frozen, places = _frozen(graph, inputs)
    given = tuple(inputs[place] for place in places)
    if any(not isinstance(value, Tensor) for value in given):
        what = "a size is open: a build has one size for everything"
        raise GraphPruneError("GP107", what, "graphprune-x86", "torch.compile(..., dynamic=False)")
    real = tuple(_plain(value) for value in given)
    frozen.eval()  # its operators say themselves what they compute; the exporter asks for the mode
    with torch.no_grad():
        built = graphprune.build(
            frozen, example_inputs=real, threads=chosen.get("threads", torch.get_num_threads()),
            tune=chosen.get("tune", 60.0), verify=chosen.get("verify", True),
        )  # fmt: skip
    network = built.load()

    def run(*arguments: Any) -> list[Tensor]:
        arrays = [arguments[place].detach().contiguous().numpy() for place in places]
        found = network(*arrays)
        return [torch.from_numpy(array) for array in found.values()]

    run.keeper = built  # type: ignore[attr-defined]  # the artifact is deleted with it
    return run


def _frozen(graph: GraphModule, inputs: Sequence[Any]) -> tuple[GraphModule, list[int]]:
    """The graph with its weights inside, and which inputs are left."""
    weights = dynamo.weights_of(graph, inputs, dynamo.owner_of_compilation())
    if not weights:
        return graph, list(range(len(inputs)))
    dynamo.guard_modules(graph, weights)
    frozen = GraphModule(graph, copied(graph.graph))
    nodes = list(frozen.graph.find_nodes(op="placeholder"))
    for number, weight in enumerate(weights):
        name = f"weight_{number}"
        frozen.register_buffer(name, weight.tensor.detach())
        node = nodes[weight.place]
        with frozen.graph.inserting_before(node):
            node.replace_all_uses_with(frozen.graph.get_attr(name))
        frozen.graph.erase_node(node)
    frozen.recompile()
    taken = {weight.place for weight in weights}
    return frozen, [place for place in range(len(inputs)) if place not in taken]


def copied(graph: Graph) -> Graph:
    """The same nodes in a graph of their own."""
    found = Graph()
    output = found.graph_copy(graph, {})
    found.output(output)
    return found


def _plain(value: Tensor) -> Tensor:
    """A real tensor of the size of an example, which may be a fake one."""
    return torch.zeros([int(size) for size in value.shape], dtype=value.dtype)
