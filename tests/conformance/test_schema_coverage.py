"""Every standard operator has a row in the ONNX table, and so have those that onnxruntime's tools write."""

from __future__ import annotations

from collections.abc import Container

import onnx
import pytest

from graphprune.dialects.onnx.dialect import TABLE
from graphprune.dialects.onnx.pinned import REASONS

# The reader turns these into stored tensors; no rule ever sees one.
READ = {"Constant"}
MICROSOFT = """Attention BiasGelu EmbedLayerNormalization FastGelu FusedConv FusedMatMul Gelu GroupQueryAttention
MatMulNBits MultiHeadAttention QLinearAdd QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool
QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QGemm
SkipLayerNormalization"""


def gaps(table: Container[str]) -> list[str]:
    """The operators of the ai.onnx domain, of any operator set, that a table has no row for."""
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain in {"", "ai.onnx"}}
    return sorted(name for name in names - READ if name not in table)


def test_every_standard_operator_has_a_row() -> None:
    assert gaps(TABLE) == []


@pytest.mark.parametrize("name", ["Conv", "Upsample", "StringSplit"])
def test_a_missing_row_is_noticed(name: str) -> None:
    assert gaps(TABLE.keys() - {name}) == [name]


def test_rows_that_pin_everything_say_why() -> None:
    assert {name: row.pinned for name, row in TABLE.items() if row.pinned} == REASONS
    assert [name for name, reason in REASONS.items() if len(reason.split()) < 4] == []


@pytest.mark.parametrize("name", MICROSOFT.split())
def test_operators_of_onnxruntime_have_a_row(name: str) -> None:
    assert f"com.microsoft:{name}" in TABLE
    assert not TABLE[f"com.microsoft:{name}"].pinned
