"""What onnxscript can do to a model before it is analysed: fold constants, convert to another opset."""

from __future__ import annotations

import onnx_ir as ir

from graphprune.dialects.onnx import files
from graphprune.errors import GraphPruneError

# What its passes raise on models they cannot handle.
_FAILS = (
    ir.passes.PassError,
    ir.serde.SerdeError,
    AssertionError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def prepare(model: ir.Model, *, optimize: bool = False, opset: int | None = None) -> ir.Model:
    """A copy of the model, optimised or converted to `opset` by onnxscript, or both; the model itself stays as it is.

    Raises GraphPruneError GP103 where onnxscript cannot do it, GP107 where there is no such opset.
    """
    import onnx
    from onnxscript import optimizer, version_converter

    newest = onnx.defs.onnx_opset_version()
    if opset is not None and opset > newest:
        raise GraphPruneError("GP107", f"there is no opset {opset}", "option --opset", f"the newest is {newest}")
    prepared = model.clone()
    files.carry(model, prepared)
    step = "optimised"
    try:
        if optimize:
            optimizer.optimize(prepared)
        if opset is not None:
            step = f"converted to opset {opset}"
            version_converter.convert_version(prepared, opset, fallback=True)
    except _FAILS as error:
        what = f"onnxscript: it cannot be {step}: {type(error).__name__}: {error}"
        raise GraphPruneError("GP103", what, files.path_of(model) or "", "prune it without this step") from error
    if opset is not None and prepared.opset_imports.get("") != opset:
        what, remedy = f"onnxscript did not convert it to opset {opset}", f"export it for opset {opset}"
        raise GraphPruneError("GP103", what, files.path_of(model) or "", remedy)
    return prepared
