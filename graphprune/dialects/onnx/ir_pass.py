"""Any pass of graphprune as a pass of onnx-ir, for pipelines made of those.

from onnx_ir.passes import Sequential
Sequential(as_ir_pass(Clean()), as_ir_pass(Width(macs=0.6)))(model)
"""

from __future__ import annotations

import onnx_ir as ir

from graphprune.pipeline import Pass


class IrPass(ir.passes.InPlacePass):
    """Runs a pass of graphprune and moves what it made into the model that came in; `modified` is what it says."""

    def __init__(self, pass_: Pass) -> None:
        self.pass_ = pass_

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change `model`. Raises what the pass raises; the model is then as it was."""
        result = self.pass_.apply(model)
        if result.modified:
            _move(result.model, model)
        return ir.passes.PassResult(model, result.modified)

    def __repr__(self) -> str:
        return f"IrPass({self.pass_})"


def as_ir_pass(pass_: Pass) -> IrPass:
    """The pass in the convention of onnx-ir: in place, called with a model or a PassResult."""
    return IrPass(pass_)


def _move(source: ir.Model, target: ir.Model) -> None:
    """Make `target` what `source` is; `source` must not be used afterwards, since they share their graphs."""
    target.graph = source.graph
    target.functions.clear()
    target.functions.update(source.functions)
    target.ir_version = source.ir_version
    target.metadata_props.clear()
    target.metadata_props.update(source.metadata_props)
