"""Rules that are right because they pin everything, and an oracle that lets wrong rules pass, would be noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphprune.dialects.onnx.dialect import TABLE
from graphprune.dims import find
from graphprune.program import Node
from graphprune.rules import pointwise
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed

from .cases import FILES, file_cases, node_cases
from .floors import FLOORS, FLOORS_OF_FILES, shortfalls
from .test_gather import mismatches

LEAST_FREE = 5_900
# Why the cases of an operator have no free dimension; all others must have some.
_NONE_BY_REASON = {
    "its cases have one channel and one sample; tests/test_ops.py has larger ones": """Conv DeformConv GridSample Loop
        QLinearConv Resize RoiAlign STFT Upsample""",
    "it makes a tensor from sizes": """BlackmanWindow ConstantOfShape EyeLike HammingWindow HannWindow MelWeightMatrix
        Range""",
    "it draws random numbers": "Bernoulli",
    "it works with positions in the whole tensor": "ImageDecoder MaxUnpool NonMaxSuppression NonZero Unique",
    "a sequence or optional hides the axes of its tensors": """OptionalGetElement OptionalHasElement SequenceInsert
        SequenceMap SplitToSequence""",
    "it is no part of inference": "Adagrad Adam Momentum SoftmaxCrossEntropyLoss",
    "it works on text": "StringNormalizer StringSplit TfIdfVectorizer",
    "it is of another domain": "ArrayFeatureExtractor Binarizer LabelEncoder TreeEnsemble",
}
NOTHING_FREE = {name: reason for reason, names in _NONE_BY_REASON.items() for name in names.split()}
Rule = Callable[[Trace, Node], list[Typed]]


def test_every_operator_of_the_collection_has_a_floor() -> None:
    assert sorted(FLOORS) == sorted(node_cases())


def test_as_many_dimensions_are_free_as_there_must_be() -> None:
    assert shortfalls(FLOORS, node_cases()) == []
    assert shortfalls(FLOORS_OF_FILES, {kind: file_cases(kind) for kind in FILES}) == []


def test_the_floors_are_worth_something() -> None:
    assert sum(map(sum, FLOORS.values())) >= LEAST_FREE
    assert {name for name, floor in FLOORS.items() if not any(floor)} == set(NOTHING_FREE)


def everything_pinned(trace: Trace, node: Node) -> list[Typed]:
    ranks = [None if value.shape is None else len(value.shape) for value in node.outputs]
    return pointwise.opaque(trace, trace.operands(), ranks, "GP204", "it is easier")


def test_pinning_everything_falls_below_the_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, "Transpose", Operator(everything_pinned))
    assert len(shortfalls({"Transpose": FLOORS["Transpose"]}, node_cases())) == 1


def identity(trace: Trace, node: Node) -> list[Typed]:
    return [Typed(list(trace.need(0).axes)) for _ in node.outputs]


def entry_by_entry(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.broadcast(trace, trace.operands())]


def untied(trace: Trace, node: Node) -> list[Typed]:
    """The axes of the first operand, whatever the second is."""
    for operand in trace.operands()[1:]:
        for axis in operand.axes if operand else []:
            trace.inexact(axis)
    return [Typed([find(axis) for axis in trace.need(0).axes])]


def exact_statistics(name: str) -> Rule:
    """The rule of an operator, without saying that what it computes depends on what is left."""

    def rule(trace: Trace, node: Node) -> list[Typed]:
        typed = RIGHT[name].rule(trace, node)
        for _, axis in trace.inexact_uses:
            typed.append(Typed([axis]))  # it seems to be handed on
        trace.inexact_uses.clear()
        return typed

    return rule


RIGHT = dict(TABLE)
WRONG = {
    "Transpose": identity,
    "Concat": entry_by_entry,
    "Slice": identity,
    "DepthToSpace": identity,
    "Softmax": identity,
    "CumSum": untied,
    "Add": untied,
    "MatMul": entry_by_entry,
    "Dropout": identity,
    "ReduceMean": exact_statistics("ReduceMean"),
    "LayerNormalization": exact_statistics("LayerNormalization"),
    "GlobalAveragePool": exact_statistics("GlobalAveragePool"),
}


@pytest.mark.parametrize("operator", sorted(WRONG))
def test_a_wrong_rule_is_caught(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, operator, Operator(WRONG[operator]))
    assert mismatches(node_cases()[operator]) != []


def test_a_contraction_without_masks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TABLE["Gemm"].rule

    def wrong(trace: Trace, node: Node) -> list[Typed]:
        typed = right(trace, node)
        trace.contractions[-1].masks = ()
        return typed

    monkeypatch.setitem(TABLE, "Gemm", Operator(wrong))
    assert mismatches(node_cases()["Gemm"]) != []
