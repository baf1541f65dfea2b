"""What runs ONNX models: onnxruntime, and the reference evaluator for the rest."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

import graphprune as gp
from graphprune.dialects.onnx import runner
from graphprune.dialects.onnx.runner import Runner
from graphprune.errors import GraphPruneError

CONVOLVED = """
<ir_version: 10, opset_import: ["" : 22]>
convolved ({kind}[1, 2, 5, 5] x) => ({kind}[1, 3, 3, 3] y) { y = Conv (x, w) }
"""


def convolved(kind: str, dtype: type) -> ir.Model:
    """A convolution with seeded weights of a type."""
    model = ir.serde.deserialize_model(parser.parse_model(CONVOLVED.replace("{kind}", kind)))
    weights = np.random.default_rng(0).standard_normal((3, 2, 3, 3)).astype(dtype)
    node = model.graph.node(0)
    held = ir.Value(name="w", const_value=ir.tensor(weights, name="w"))
    model.graph.register_initializer(held)
    node.replace_input_with(1, held)
    return model


def test_bfloat16_runs_where_onnxruntime_has_no_kernel() -> None:
    short, full = convolved("bfloat16", ml_dtypes.bfloat16), convolved("float", np.float32)
    x = np.random.default_rng(1).standard_normal((1, 2, 5, 5)).astype(ml_dtypes.bfloat16)
    (y,), (expected,) = Runner(short)({"x": x}), Runner(full)({"x": x.astype(np.float32)})
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(y.astype(np.float32), expected, atol=0.1)


def test_what_onnxruntime_cannot_load_of_other_types_is_refused() -> None:
    model = convolved("float", np.float32)
    model.graph.node(0).op_type = "Convolve"
    with pytest.raises(GraphPruneError, match="onnxruntime cannot load it") as refused:
        Runner(model)
    assert refused.value.code == "GP402" and "graphprune[ort]" not in refused.value.remedy


def test_a_model_that_fails_when_it_is_optimised_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those with GatherND and IsNaN do, which transformers export: a fusion of onnxruntime asks for what is gone."""
    import onnxruntime

    session_of = runner.session_of

    def strict(model: ir.Model, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        if options.graph_optimization_level != onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL:
            raise GraphPruneError("GP402", "onnxruntime cannot load it: a fusion failed")
        return session_of(model, options)

    monkeypatch.setattr(runner, "session_of", strict)
    case = {"x": np.ones((1, 2, 5, 5), np.float32)}
    (y,) = Runner(convolved("float", np.float32), optimised=True)(case)
    assert y.shape == (1, 3, 3, 3)


def test_the_reference_evaluator_reads_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "external.onnx"
    ir.save(convolved("float", np.float32), path, external_data="external.data", size_threshold_bytes=0)
    case = {"x": np.ones((1, 2, 5, 5), np.float32)}
    (expected,) = Runner(gp.load(path))(case)
    monkeypatch.setattr(runner, "has_onnxruntime", lambda: False)
    (y,) = Runner(gp.load(path))(case)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
