"""Functions of one entry: what activations compute, together with their slopes (automatic differentiation in forward
form). A dialect says which of these an operator is; what stands between two layers is evaluated here, in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class Place:
    """Input ``index`` of a node."""

    index: int


@dataclass(frozen=True)
class Function:
    """One operator call as an elementwise function.

    name:     a name of :data:`FUNCTIONS`
    operands: numbers, and the places of the inputs of the node that are broadcast against each other
    numbers:  what else the function takes, by name
    """

    name: str
    operands: tuple[Place | float, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Dual:
    """Values, and their derivative with respect to the one variable; 0 for constants.

    >>> square = Dual(np.array([3.0]), 1.0)
    >>> FUNCTIONS["mul"](square, square).slope.tolist()
    [6.0]
    """

    value: Array | float
    slope: Array | float = 0.0

    def through(self, value: Array, slope: Array) -> Dual:
        """A function of it that has this value and slope here."""
        return Dual(value, slope * self.slope)


_SQRT2, _SQRT_PI = math.sqrt(2), math.sqrt(math.pi)


def erf(x: Array) -> Array:
    """The error function to 1.5e-7 (Abramowitz & Stegun, 1964, 7.1.26)."""
    size = np.abs(x)
    t = 1 / (1 + 0.3275911 * size)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    found: Array = np.sign(x) * (1 - series * np.exp(-size * size))
    return found


def _sigmoid_of(x: Array) -> Array:
    found: Array = 0.5 * (1 + np.tanh(0.5 * x))
    return found


def _softplus_of(x: Array) -> Array:
    found: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return found


def _array(x: Dual) -> Array:
    return np.asarray(x.value)


def _relu(x: Dual) -> Dual:
    on = _array(x) > 0
    return x.through(_array(x) * on, on)


def _leaky_relu(x: Dual, alpha: float = 0.01) -> Dual:
    return prelu(x, Dual(alpha))


def prelu(x: Dual, slope: Dual) -> Dual:
    """``x`` where it is positive, else ``slope x``; the slope is a constant."""
    factor = np.where(_array(x) > 0, 1, np.asarray(slope.value, _array(x).dtype)).astype(_array(x).dtype)
    return x.through(_array(x) * factor, factor)


def _elu(x: Dual, alpha: float = 1.0, scale: float = 1.0, inside: float = 1.0) -> Dual:
    """``scale x``, below zero ``scale alpha (exp(inside x) - 1)``."""
    below = np.exp(inside * np.minimum(_array(x), 0))
    positive = _array(x) > 0
    value = np.where(positive, scale * _array(x), scale * alpha * (below - 1))
    return x.through(value, np.where(positive, scale, scale * alpha * inside * below))


def _selu(x: Dual, alpha: float = 1.6732632423543772, scale: float = 1.0507009873554805) -> Dual:
    return _elu(x, alpha, scale)


def _celu(x: Dual, alpha: float = 1.0) -> Dual:
    return _elu(x, alpha, 1.0, 1 / alpha)


def _sigmoid(x: Dual) -> Dual:
    value = _sigmoid_of(_array(x))
    return x.through(value, value * (1 - value))


def _tanh(x: Dual) -> Dual:
    value = np.tanh(_array(x))
    return x.through(value, 1 - value * value)


def _erf(x: Dual) -> Dual:
    return x.through(erf(_array(x)), 2 / _SQRT_PI * np.exp(-np.square(_array(x))))


def _exp(x: Dual) -> Dual:
    value = np.exp(_array(x))
    return x.through(value, value)


def _softplus(x: Dual, beta: float = 1.0) -> Dual:
    return x.through(_softplus_of(beta * _array(x)) / beta, _sigmoid_of(beta * _array(x)))


def _mish(x: Dual) -> Dual:
    return _mul(x, _tanh(_softplus(x)))


def _gelu(x: Dual) -> Dual:
    inside = _erf(Dual(_array(x) / _SQRT2, 1 / _SQRT2))
    half = 0.5 * (1 + inside.value)
    return x.through(_array(x) * half, half + 0.5 * _array(x) * inside.slope)


def _gelu_tanh(x: Dual) -> Dual:
    factor, cubic, value = math.sqrt(2 / math.pi), 0.044715, _array(x)
    inside = np.tanh(factor * (value + cubic * value**3))
    rise = factor * (1 + 3 * cubic * np.square(value)) * (1 - inside * inside)
    return x.through(0.5 * value * (1 + inside), 0.5 * (1 + inside) + 0.5 * value * rise)


def _silu(x: Dual, alpha: float = 1.0) -> Dual:
    share = _sigmoid_of(alpha * _array(x))
    return x.through(_array(x) * share, share + alpha * _array(x) * share * (1 - share))


def _clip(x: Dual, low: float = -math.inf, high: float = math.inf) -> Dual:
    value = np.clip(_array(x), low, high)
    return x.through(value, (_array(x) > low) & (_array(x) < high))


def _hard_sigmoid(x: Dual, alpha: float = 1 / 6, beta: float = 0.5) -> Dual:
    found = _clip(Dual(alpha * _array(x) + beta, alpha), 0.0, 1.0)
    return x.through(np.asarray(found.value), np.asarray(found.slope))


def _hard_swish(x: Dual) -> Dual:
    return _mul(x, _hard_sigmoid(x))


def _abs(x: Dual) -> Dual:
    return x.through(np.abs(_array(x)), np.sign(_array(x)))


def _sqrt(x: Dual) -> Dual:
    value = np.sqrt(_array(x))
    return x.through(value, 0.5 / value)


def _square(x: Dual) -> Dual:
    return x.through(np.square(_array(x)), 2 * _array(x))


def _power(x: Dual, y: Dual) -> Dual:
    """A constant power."""
    return x.through(np.power(x.value, y.value), y.value * np.power(x.value, np.asarray(y.value) - 1))


def _neg(x: Dual) -> Dual:
    return Dual(-np.asarray(x.value), -np.asarray(x.slope))


def _same(x: Dual) -> Dual:
    return x


def _add(x: Dual, y: Dual) -> Dual:
    return Dual(x.value + y.value, x.slope + y.slope)


def _sub(x: Dual, y: Dual) -> Dual:
    return Dual(x.value - y.value, x.slope - y.slope)


def _mul(x: Dual, y: Dual) -> Dual:
    return Dual(x.value * y.value, x.slope * y.value + x.value * y.slope)


def _div(x: Dual, y: Dual) -> Dual:
    value = x.value / y.value
    return Dual(value, (x.slope - value * y.slope) / y.value)


FUNCTIONS: dict[str, Callable[..., Dual]] = {
    "same": _same, "relu": _relu, "leaky_relu": _leaky_relu, "prelu": prelu, "elu": _elu, "selu": _selu, "celu": _celu,
    "sigmoid": _sigmoid, "tanh": _tanh, "erf": _erf, "exp": _exp, "softplus": _softplus, "mish": _mish, "gelu": _gelu,
    "gelu_tanh": _gelu_tanh, "silu": _silu, "clip": _clip, "hard_sigmoid": _hard_sigmoid, "hard_swish": _hard_swish,
    "abs": _abs, "sqrt": _sqrt, "square": _square, "power": _power, "neg": _neg, "add": _add, "sub": _sub, "mul": _mul,
    "div": _div,
}  # fmt: skip
"""What is known, by name: operands as :class:`Dual`, then numbers."""

CONSTANT_SECOND = frozenset({"prelu", "power"})
"""Those of two operands of which the second must be a constant."""
