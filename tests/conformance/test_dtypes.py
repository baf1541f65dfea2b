"""Data types that a file does not declare are those that its operators give."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from graphprune.dialects.onnx import reader

from .cases import Case, node_cases

# Of about 2,000 cases: windows, statistics of norms, sequences, and bodies that declare no types.
MOST_UNKNOWN = 70


def found_types(case: Case) -> list[tuple[str, str]]:
    """For each output the type that the case declares and the one that is found when it does not."""
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    del model.graph.value_info[:]
    outputs = [value for value in model.graph.output if value.type.HasField("tensor_type")]
    declared = [ir.DataType(value.type.tensor_type.elem_type).name.lower() for value in outputs]
    names = [value.name for value in outputs]
    for value in outputs:
        value.ClearField("type")
    made = {value.name: value.dtype for value in reader.read(ir.from_proto(model)).main.outputs if value is not None}
    return [(wanted, made[name]) for name, wanted in zip(names, declared, strict=True)]


def wrong_and_unknown() -> tuple[list[str], list[str]]:
    wrong, unknown = [], []
    for cases in node_cases().values():
        for case in cases:
            for wanted, found in found_types(case):
                if found != wanted:
                    (wrong if found else unknown).append(f"{case.name}: {found} instead of {wanted}")
    return wrong, unknown


def test_types_are_those_of_the_collection() -> None:
    wrong, unknown = wrong_and_unknown()
    assert wrong == []
    assert len(unknown) <= MOST_UNKNOWN, unknown


def test_a_wrong_type_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "result_type", lambda node, index: "float")
    assert len(wrong_and_unknown()[0]) > 100


def test_types_flow_through_operators_of_onnxruntime_and_functions() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "mine": 1]>
        net (float16[2, 4] x) => (y, z, place)
        {
            a = com.microsoft.Gelu(x)
            b = mine.twice(a)
            place = ArgMax <axis = 1> (b)
            y = Cast <to = 1> (b)
            z = Relu(b)
        }
        <domain: "mine", opset_import: ["": 17]>
        twice (x) => (y) { y = Add(x, x) }
    """)
    assert [value and value.dtype for value in reader.read(ir.from_proto(model)).main.outputs] == [
        "float",
        "float16",
        "int64",
    ]
