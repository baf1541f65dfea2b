"""Operators whose axes are all pinned, each with the reason. None of the standard ones stands between the layers of the
networks people prune; a rule for one is a row in its family's table and a line less here."""

from __future__ import annotations

from graphprune.program import Node
from graphprune.rules.operator import Operator
from graphprune.rules.pointwise import opaque
from graphprune.rules.trace import Trace, Typed

_POSITIONS = "it works with positions in the whole tensor"
_SEQUENCE = "a sequence or optional hides the axes of its tensors"
_SIGNAL = "a window or filter bank is made whole"
_TEXT = "it works on text"
_LOSS = "a loss is not part of inference"
_MADE = "it makes a tensor whose entries depend on its shape"
_TRAINING = "an optimiser step is not part of inference"
_BODIES = "its bodies compute with all scores at once"
_LAID_OUT = "onnxruntime laid the file out for one processor (ORT_ENABLE_ALL): prune the file from before that"

_BY_REASON = {
    _POSITIONS: "MaxUnpool NonMaxSuppression NonZero Unique ImageDecoder",
    _SEQUENCE: """ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert
        SequenceLength SequenceMap SplitToSequence Optional OptionalGetElement OptionalHasElement""",
    _SIGNAL: "MelWeightMatrix BlackmanWindow HammingWindow HannWindow",
    _TEXT: "StringNormalizer StringSplit TfIdfVectorizer",
    _LOSS: "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    _MADE: "Multinomial RandomNormal RandomUniform",
    _BODIES: "FlexAttention",
    _TRAINING: "Adagrad Adam Gradient Momentum",
    _LAID_OUT: """com.microsoft.nchwc:AveragePool com.microsoft.nchwc:Conv com.microsoft.nchwc:GlobalAveragePool
        com.microsoft.nchwc:GlobalMaxPool com.microsoft.nchwc:MaxPool com.microsoft.nchwc:ReorderInput
        com.microsoft.nchwc:ReorderOutput com.microsoft.nchwc:Upsample""",
}
REASONS = {name: reason for reason, names in _BY_REASON.items() for name in names.split()}


def _pinned(trace: Trace, node: Node) -> list[Typed]:
    trace.skipped.append(node)  # its weights are among those that are told to be kept
    ranks = [None if value.shape is None else len(value.shape) for value in node.outputs]
    code = "GP203" if REASONS[node.op] is _LAID_OUT else "GP204"
    return opaque(trace, trace.operands(), ranks, code, f"{node.op} needs it whole: {REASONS[node.op]}")


PINNED: dict[str, Operator] = {name: Operator(_pinned, pinned=reason) for name, reason in REASONS.items()}
