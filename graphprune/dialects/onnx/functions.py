"""Which ONNX operators are functions of one entry (see `graphprune.functions`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphprune.functions import Function, Place
from graphprune.program import Array, Node, Value

Constant = Callable[[Value], "Array | None"]

_PLAIN = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Erf": "erf", "Exp": "exp", "Softplus": "softplus",
    "Mish": "mish", "HardSwish": "hard_swish", "Abs": "abs", "Sqrt": "sqrt", "Neg": "neg", "Identity": "same",
    "com.microsoft:Gelu": "gelu",
}  # fmt: skip
_PAIRS = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "PRelu": "prelu", "Pow": "power"}
# The attributes of others, with the names that they have in `graphprune.functions`, and what they are without.
_WITH: dict[str, tuple[str, dict[str, tuple[str, float]]]] = {
    "LeakyRelu": ("leaky_relu", {"alpha": ("alpha", 0.01)}),
    "Elu": ("elu", {"alpha": ("alpha", 1.0)}),
    "Celu": ("celu", {"alpha": ("alpha", 1.0)}),
    "Selu": ("selu", {"alpha": ("alpha", 1.6732632), "gamma": ("scale", 1.0507010)}),
    "HardSigmoid": ("hard_sigmoid", {"alpha": ("alpha", 0.2), "beta": ("beta", 0.5)}),
    "Swish": ("silu", {"alpha": ("alpha", 1.0)}),
    "com.microsoft:QuickGelu": ("silu", {"alpha": ("alpha", 1.702)}),
}


def function(node: Node, constant: Constant) -> Function | None:
    """What a node computes entry by entry; ``None`` where it is none of these, or not known."""
    if node.op in _PLAIN:
        return Function(_PLAIN[node.op], (Place(0),))
    if node.op in _PAIRS:
        legacy = node.version < 7 and ("axis" in node.attributes or node.op == "PRelu")
        return None if legacy else Function(_PAIRS[node.op], (Place(0), Place(1)))
    if node.op in _WITH:
        name, known = _WITH[node.op]
        return Function(name, (Place(0),), {to: _float(node, of, usual) for of, (to, usual) in known.items()})
    if node.op == "Gelu":
        name = "gelu_tanh" if _text(node.attributes.get("approximate")) == "tanh" else "gelu"
        return Function(name, (Place(0),))
    return _clip(node, constant) if node.op == "Clip" else None


def _clip(node: Node, constant: Constant) -> Function | None:
    """Bounds are attributes before version 11, and inputs since."""
    numbers = {}
    for place, (of, to) in enumerate((("min", "low"), ("max", "high")), 1):
        if of in node.attributes:
            numbers[to] = _float(node, of, 0.0)
        elif place < len(node.inputs) and (value := node.inputs[place]) is not None:
            found = constant(value)
            if found is None or found.size != 1:
                return None
            numbers[to] = float(found.reshape(()))
    return Function("clip", (Place(0),), numbers)


def _float(node: Node, name: str, usual: float) -> float:
    given: Any = node.attributes.get(name, usual)
    return float(given)


def _text(given: Any) -> str:
    return given.decode() if isinstance(given, bytes) else str(given or "")
