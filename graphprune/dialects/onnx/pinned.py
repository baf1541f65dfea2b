"""Standard operators whose axes are all pinned, each with the reason. None of them stands between the layers of the
networks people prune; a rule for one is a row in its family's table and a line less here."""

from __future__ import annotations

from graphprune.dialects.onnx.operator import Operator
from graphprune.program import Node
from graphprune.rules.pointwise import opaque
from graphprune.rules.trace import Trace, Typed

_POSITIONS = "it works with positions in the whole tensor"
_SEQUENCE = "a sequence or optional hides the axes of its tensors"
_SIGNAL = "a transform of a signal needs all of it"
_TEXT = "it works on text"
_LOSS = "a loss is not part of inference"
_MADE = "it makes a tensor whose entries depend on its shape"
_TRAINING = "an optimiser step is not part of inference"
_STATE = "its state lives across calls"

REASONS: dict[str, str] = {
    **dict.fromkeys("AffineGrid CenterCropPad Col2Im Compress DeformConv Det MaxUnpool NonMaxSuppression NonZero".split(), _POSITIONS),
    **dict.fromkeys("TensorScatter Unique BitCast ImageDecoder".split(), _POSITIONS),
    **dict.fromkeys("ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert".split(), _SEQUENCE),
    **dict.fromkeys("SequenceLength SequenceMap SplitToSequence Optional OptionalGetElement OptionalHasElement".split(), _SEQUENCE),
    **dict.fromkeys("DFT STFT MelWeightMatrix BlackmanWindow HammingWindow HannWindow".split(), _SIGNAL),
    **dict.fromkeys("RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer".split(), _TEXT),
    **dict.fromkeys("NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss".split(), _LOSS),
    **dict.fromkeys("Multinomial RandomNormal RandomUniform".split(), _MADE),
    **dict.fromkeys("LinearAttention CausalConvWithState FlexAttention".split(), _STATE),
    **dict.fromkeys("Adagrad Adam Gradient Momentum".split(), _TRAINING),
}


def _pinned(trace: Trace, node: Node) -> list[Typed]:
    ranks = [None if value.shape is None else len(value.shape) for value in node.outputs]
    return opaque(trace, trace.operands(), ranks, "GP204", f"{node.op} needs it whole: {REASONS[node.op]}")


PINNED: dict[str, Operator] = {name: Operator(_pinned, pinned=reason) for name, reason in REASONS.items()}
