"""Which ATen operators are functions of one entry (see `graphprune.functions`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphprune.dialects.aten.call import At
from graphprune.functions import Function, Place
from graphprune.program import Node

_PLAIN = {
    "relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "erf": "erf", "exp": "exp", "mish": "mish", "silu": "silu",
    "hardswish": "hard_swish", "hardsigmoid": "hard_sigmoid", "selu": "selu", "abs": "abs", "sqrt": "sqrt",
    "square": "square", "neg": "neg", "clone": "same", "contiguous": "same", "detach": "same", "alias": "same",
    "dropout": "same", "feature_dropout": "same", "alpha_dropout": "same",
}  # fmt: skip
_PAIRS = {"add": "add", "sub": "sub", "mul": "mul", "multiply": "mul", "div": "div", "divide": "div"}
# The arguments of others, with the names that they have in `graphprune.functions`.
_WITH: dict[str, tuple[str, dict[str, str]]] = {
    "leaky_relu": ("leaky_relu", {"negative_slope": "alpha"}),
    "elu": ("elu", {"alpha": "alpha", "scale": "scale", "input_scale": "inside"}),
    "celu": ("celu", {"alpha": "alpha"}),
    "softplus": ("softplus", {"beta": "beta"}),
    "hardtanh": ("clip", {"min_val": "low", "max_val": "high"}),
    "clamp": ("clip", {"min": "low", "max": "high"}),
    "clamp_min": ("clip", {"min": "low"}),
    "clamp_max": ("clip", {"max": "high"}),
    "relu6": ("clip", {}),
}
_USUAL = {"hardtanh": {"low": -1.0, "high": 1.0}, "relu6": {"low": 0.0, "high": 6.0}}


def function(node: Node) -> Function | None:
    """What a node computes entry by entry; ``None`` where it is none of these, or not known."""
    if not node.op.startswith("aten."):
        return None
    name, given = node.op.split(".")[1].removesuffix("_"), node.attributes
    x = given.get("self", given.get("input"))
    if not isinstance(x, At) or given.get("train") or given.get("training"):
        return None
    first = Place(x.index)
    if name in _PAIRS or name == "pow":
        plain = given.get("alpha", 1) == 1 and given.get("rounding_mode") is None
        return _two(_PAIRS.get(name, "power"), first, given.get("other", given.get("exponent"))) if plain else None
    return _one(name, first, given)


def _one(name: str, first: Place, given: Mapping[str, Any]) -> Function | None:
    if name in _PLAIN:
        return Function(_PLAIN[name], (first,))
    if name == "gelu":
        return Function("gelu_tanh" if given.get("approximate") == "tanh" else "gelu", (first,))
    if name not in _WITH:
        return None
    found, known = _WITH[name]
    numbers = {to: given[of] for of, to in known.items() if given.get(of) is not None}
    if any(not isinstance(each, int | float) for each in numbers.values()):
        return None
    return Function(found, (first,), {**_USUAL.get(name, {}), **numbers})


def _two(name: str, first: Place, other: Any) -> Function | None:
    if isinstance(other, At):
        return Function(name, (first, Place(other.index)))
    return Function(name, (first, float(other))) if isinstance(other, int | float) else None
