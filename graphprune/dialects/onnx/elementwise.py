"""ONNX operators that work entry by entry."""

from __future__ import annotations

from graphprune.program import Node
from graphprune.rules import computed, pointwise
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed

UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu
HardSigmoid HardSwish IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh
Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"""
BROADCAST = """And BitShift BitwiseAnd BitwiseOr BitwiseXor Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Or
Pow Sum Xor"""
RANDOM = "Bernoulli RandomNormalLike RandomUniformLike"
ARITHMETIC = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/"}


def _unary(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.same(trace, trace.need(0))]


def _broadcast(trace: Trace, node: Node) -> list[Typed]:
    if node.version < 7 and "axis" in node.attributes:
        return [pointwise.broadcast_from(trace, trace.need(0), trace.need(1), int(node.attributes["axis"]))]
    return [pointwise.broadcast(trace, trace.operands())]


def _random(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.per_element_random(trace, trace.need(0))]


def _same_numbers(trace: Trace, node: Node) -> list[Typed]:
    """Identity and Cast: entries that are sizes stay what they are."""
    x = trace.need(0)
    return [Typed(list(x.axes), trace.passed(x))]


def _arithmetic(trace: Trace, node: Node) -> list[Typed]:
    a, b = trace.need(0), trace.need(1)
    typed = pointwise.add(trace, [a, b]) if node.op == "Add" and node.version >= 7 else _broadcast(trace, node)[0]
    if not computed.carries_sizes([a, b]):
        return [typed]
    return [computed.arithmetic(trace, ARITHMETIC[node.op], a, b, typed.axes or [])]


def _equal(trace: Trace, node: Node) -> list[Typed]:
    a, b = trace.need(0), trace.need(1)
    typed = pointwise.broadcast(trace, [a, b])
    return [computed.equal(trace, a, b, typed.axes or [])] if computed.carries_sizes([a, b]) else [typed]


def _where(trace: Trace, node: Node) -> list[Typed]:
    condition, a, b = trace.need(0), trace.need(1), trace.need(2)
    typed = pointwise.broadcast(trace, [condition, a, b])
    if not computed.carries_sizes([condition, a, b]):
        return [typed]
    return [computed.where(trace, condition, a, b, typed.axes or [])]


def _prelu(trace: Trace, node: Node) -> list[Typed]:
    if node.version < 7 and trace.need(0).rank > 1 and trace.need(1).rank == 1:  # a slope per channel, or one for all
        return [pointwise.broadcast_from(trace, trace.need(0), trace.need(1), 1)]
    return [pointwise.broadcast(trace, [trace.need(0), trace.need(1)])]


def _dropout(trace: Trace, node: Node) -> list[Typed]:
    """In inference, which is what a file without a flag means, nothing is dropped."""
    x, training = trace.need(0), trace.operand(2)
    stored = None if training is None else training.value.stored
    if training is not None and (stored is None or stored.read().any()):
        pointwise.per_element_random(trace, x)
    return [Typed(list(x.axes)) for _ in node.outputs]


ELEMENTWISE: dict[str, Operator] = {
    **{name: Operator(_unary) for name in UNARY.split()},
    **{name: Operator(_broadcast) for name in BROADCAST.split()},
    **{name: Operator(_random) for name in RANDOM.split()},
    **{name: Operator(_arithmetic) for name in ARITHMETIC},
    "Identity": Operator(_same_numbers),
    "Cast": Operator(_same_numbers),
    "CastLike": Operator(_unary, operands=1),
    "Equal": Operator(_equal),
    "Where": Operator(_where),
    "PRelu": Operator(_prelu),
    "Dropout": Operator(_dropout),
}
