"""What onnxruntime's optimiser and quantisers write is understood as well as what they were given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

import graphprune as gp
from tests.execution import feeds
from tests.models import CASES


class Batches(CalibrationDataReader):
    """Two batches of random inputs."""

    def __init__(self, model: onnx.ModelProto):
        self.left = iter([feeds(model, seed=seed) for seed in range(2)])

    def get_next(self) -> Any:
        return next(self.left, None)


def optimise(source: Path, out: Path, model: onnx.ModelProto) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def quantise_qdq(source: Path, out: Path, model: onnx.ModelProto) -> None:
    quantize_static(source, out, Batches(model), quant_format=QuantFormat.QDQ, per_channel=True)


def quantise_operators(source: Path, out: Path, model: onnx.ModelProto) -> None:
    quantize_static(source, out, Batches(model), quant_format=QuantFormat.QOperator)


def quantise_as_it_runs(source: Path, out: Path, model: onnx.ModelProto) -> None:
    quantize_dynamic(source, out)


def quantise_rows_as_it_runs(source: Path, out: Path, model: onnx.ModelProto) -> None:
    quantize_dynamic(source, out, per_channel=True)


def sizes(model: onnx.ModelProto) -> list[tuple[int, str]]:
    return sorted((group.size, group.kind) for group in gp.analyze(ir.from_proto(model)).groups)


# The quantisers write operators of com.microsoft: QLinearAdd, QLinearConcat, DynamicQuantizeLSTM and others.
@pytest.mark.parametrize(
    "tool", [optimise, quantise_qdq, quantise_operators, quantise_as_it_runs, quantise_rows_as_it_runs]
)
@pytest.mark.parametrize(
    "case",
    [
        "squeeze_excite",
        "c2f_block",
        "heads_through_reshape",
        "stacked_lstm_with_peepholes",
        "stacked_bidirectional_lstm",
        "shifted_windows",
    ],
)
def test_the_same_groups_are_found_and_pruned(
    case: str, tool: Callable[[Path, Path, onnx.ModelProto], None], tmp_path: Path
) -> None:
    model = CASES[case].build()
    onnx.save(model, tmp_path / "dense.onnx")
    tool(tmp_path / "dense.onnx", tmp_path / "made.onnx", model)
    made = onnx.load(tmp_path / "made.onnx")
    assert {node.op_type for node in made.graph.node} != {node.op_type for node in model.graph.node} or tool is optimise
    assert sizes(made) == sizes(model)
    result = gp.prune(gp.load(tmp_path / "made.onnx"), ratio=0.4, criterion="random")
    assert result.verification is not None and result.verification.ok


def test_a_file_that_was_laid_out_for_a_processor_is_told_as_such(tmp_path: Path) -> None:
    onnx.save(CASES["squeeze_excite"].build(), tmp_path / "dense.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "made.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(tmp_path / "dense.onnx", options, providers=["CPUExecutionProvider"])
    if "com.microsoft.nchwc" not in {node.domain for node in onnx.load(tmp_path / "made.onnx").graph.node}:
        pytest.skip("this processor has no layout of its own")
    kept = {refusal.code: refusal.reason for refusal in gp.analyze(gp.load(tmp_path / "made.onnx")).refusals}
    assert "prune the file from before that" in kept["GP203"]
