"""Pruning as a pass of torch.fx, for those who have a pass manager: a GraphModule in, a `PassResult` out."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from graphprune.torch.pruning import prune


class PrunePass(PassBase):
    """Prunes the graph that it is called with; the graph itself is not changed.

        manager = PassManager(passes=[PrunePass(example_inputs, macs=0.5)])

    example_inputs, options: those of :func:`graphprune.torch.pruning.prune`
    """

    def __init__(self, example_inputs: Any, **options: Any):
        super().__init__()
        self.example_inputs = example_inputs
        self.options = options

    def call(self, graph_module: GraphModule) -> PassResult:
        """The pruned graph, and whether it lost anything. Raises GraphPruneError as `prune` does."""
        result = prune(graph_module, self.example_inputs, **self.options)
        return PassResult(result.model, result.report.cut > 0)
