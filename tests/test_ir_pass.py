"""Passes of graphprune inside pipelines of onnx-ir."""

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import CheckerPass

from graphprune import api
from graphprune.dialects.onnx.ir_pass import as_ir_pass
from graphprune.passes.clean import Clean
from graphprune.passes.width import Width

EXAMPLE = Path(__file__).parent.parent / "examples" / "super_resolution.onnx"


def widths(model: ir.Model) -> list[int]:
    shapes = [value.shape for name, value in model.graph.initializers.items() if name.endswith("weight")]
    return [int(shape[0]) for shape in shapes if shape is not None and isinstance(shape[0], int)]


def test_a_pass_changes_the_model_that_it_is_given() -> None:
    model = api.load(EXAMPLE)
    before = widths(model)
    result = ir.passes.Sequential(as_ir_pass(Width(macs=0.6)), CheckerPass(full_check=True))(model)
    assert result.modified
    assert result.model is model
    assert sum(widths(model)) < sum(before)
    assert widths(model) == widths(api.prune(api.load(EXAMPLE), macs=0.6, verify=False).model)


def test_modified_is_true_only_when_something_changed() -> None:
    model = api.load(EXAMPLE)
    first, second = as_ir_pass(Clean())(model), as_ir_pass(Clean())(model)
    assert (first.modified, second.modified) == (True, False)


def test_the_same_options_in_text() -> None:
    assert Width.from_text("width{macs=0.6, only=[conv1.weight]}") == Width(macs=0.6, only=("conv1.weight",))
    assert repr(as_ir_pass(Width(macs=0.6))) == "IrPass(width{macs=0.6})"
