"""Elementwise operators on vectors: one row for each, exact where the operator is, stated error where it is not.

exp is 2^n times a polynomial of degree 6 on [-1/2, 1/2] (relative error 2e-7); erf and tanh are rational functions as
in Eigen and XLA (absolute error 4e-7 and 3e-7). All of them pass NaN on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from .tir import Register, const, splat, wide

LOG2E = 1.4426950408889634
EXP2 = (
    0.00015403530,
    0.0013333558146428443,
    0.009618129107628477,
    0.05550410866482158,
    0.2402265069591007,
    0.6931471805599453,
    1.0,
)
ERF_UP = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_DOWN = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
TANH_UP = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
TANH_DOWN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def horner(x: Any, coefficients: Sequence[float], lanes: int) -> Any:
    """A polynomial, the highest coefficient first."""
    value = splat(coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        value = value * x + splat(coefficient, lanes)
    return value


def named(value: Any, lanes: int, dtype: str = "float32") -> Any:
    """The value, computed once. Expressions are trees: what is used twice would be there twice, and compiled twice."""
    register = Register(lanes, dtype)
    if lanes == 1:
        T.buffer_store(register.buffer, value, [const(0)])
        return register.lane(const(0))
    register.set(value)
    return register.get()


def lower(a: Any, b: Any) -> Any:
    """The smaller of two, NaN where `a` is NaN."""
    return tirx.Select(b < a, b, a)


def upper(a: Any, b: Any) -> Any:
    """The larger of two, NaN where `a` is NaN."""
    return tirx.Select(a < b, b, a)


def either(chosen: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """One of two, NaN where any of them is."""
    return tirx.Select(tirx.isnan(b), b, chosen(a, b))


def within(x: Any, low: Any, high: Any, lanes: int) -> Any:
    """The number, or the nearest bound; the lower one where it is NaN."""
    above = named(tirx.Select(low < x, x, low), lanes)
    return tirx.Select(above < high, above, high)


def exp(lanes: int, x: Any) -> Any:
    above = named(upper(named(x * splat(LOG2E, lanes), lanes), splat(-150.0, lanes)), lanes)
    bound = named(lower(above, splat(128.5, lanes)), lanes)
    whole = named(tirx.nearbyint(bound), lanes)
    part = horner(named(bound - whole, lanes), EXP2, lanes)  # NaN where x is
    # 2^n in two factors: the results below 2^-126 and the infinite ones are right too
    n = named(tirx.Cast(wide("int32", lanes), whole), lanes, "int32")
    half = named(tirx.shift_right(n, splat(1, lanes, "int32")), lanes, "int32")
    return part * power(half, lanes) * power(n - half, lanes)


def power(n: Any, lanes: int) -> Any:
    """2^n of whole numbers from -126 to 127."""
    bits = tirx.shift_left(n + splat(127, lanes, "int32"), splat(23, lanes, "int32"))
    return tirx.reinterpret(wide("float32", lanes), bits)


def erf(lanes: int, x: Any) -> Any:
    a = named(upper(named(lower(named(x, lanes), splat(4.0, lanes)), lanes), splat(-4.0, lanes)), lanes)
    square = named(a * a, lanes)
    return a * horner(square, ERF_UP, lanes) / horner(square, ERF_DOWN, lanes)


def tanh(lanes: int, x: Any) -> Any:
    below = named(lower(named(x, lanes), splat(7.90531110763549805, lanes)), lanes)
    a = named(upper(below, splat(-7.90531110763549805, lanes)), lanes)
    square = named(a * a, lanes)
    return a * horner(square, TANH_UP, lanes) / horner(square, TANH_DOWN, lanes)


def sigmoid(lanes: int, x: Any) -> Any:
    return splat(1.0, lanes) / (splat(1.0, lanes) + exp(lanes, -x))


def gelu(lanes: int, x: Any) -> Any:
    x = named(x, lanes)
    return splat(0.5, lanes) * x * (splat(1.0, lanes) + erf(lanes, x * splat(0.7071067811865476, lanes)))


def relu(lanes: int, x: Any) -> Any:
    return upper(named(x, lanes), splat(0.0, lanes))


def softplus(lanes: int, x: Any) -> Any:
    x = named(x, lanes)
    small = tirx.log(splat(1.0, lanes) + exp(lanes, -tirx.abs(x)))
    return upper(x, splat(0.0, lanes)) + small


def inverted(flag: Any, lanes: int) -> Any:
    return tirx.Select(flag, splat(0, lanes, "bool"), splat(1, lanes, "bool"))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda n, a, b: a + b,
    "sub": lambda n, a, b: a - b,
    "mul": lambda n, a, b: a * b,
    "div": lambda n, a, b: a / b,
    "min": lambda n, a, b: either(lower, named(a, n), named(b, n)),
    "max": lambda n, a, b: either(upper, named(a, n), named(b, n)),
    "within": lambda n, x, low, high: within(named(x, n), low, high, n),
    "neg": lambda n, a: -a,
    "abs": lambda n, a: tirx.abs(a),
    "sqrt": lambda n, a: tirx.sqrt(a),
    "reciprocal": lambda n, a: splat(1.0, n) / a,
    "floor": lambda n, a: tirx.floor(a),
    "ceil": lambda n, a: tirx.ceil(a),
    "round": lambda n, a: tirx.nearbyint(a),
    "log": lambda n, a: tirx.log(a),
    "sin": lambda n, a: tirx.sin(a),
    "cos": lambda n, a: tirx.cos(a),
    "pow": lambda n, a, b: tirx.pow(a, b),
    "exp": exp,
    "erf": erf,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "gelu": gelu,
    "relu": relu,
    "softplus": softplus,
    "less": lambda n, a, b: a < b,
    "less_equal": lambda n, a, b: a <= b,
    "equal": lambda n, a, b: a == b,
    "is_nan": lambda n, a: tirx.isnan(a),
    "not": lambda n, a: inverted(a, n),
    "and": lambda n, a, b: tirx.Select(a, b, splat(0, n, "bool")),
    "or": lambda n, a, b: tirx.Select(a, splat(1, n, "bool"), b),
    "xor": lambda n, a, b: tirx.Select(a, inverted(b, n), b),
    "where": lambda n, c, a, b: tirx.Select(c, a, b),
}


@dataclass(frozen=True)
class Leaf:
    """The `index`-th operand of an expression."""

    index: int


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Apply:
    """A row of FUNCTIONS, or `cast:<type>`, on expressions."""

    function: str
    arguments: tuple[Expression, ...]


Expression = Leaf | Number | Apply
RESULT = Leaf(0)  # an epilogue that does nothing


def evaluate(expression: Expression, leaves: Sequence[Any], lanes: int) -> Any:
    """The expression on vectors; numbers in it are float32."""
    match expression:
        case Leaf(index):
            return leaves[index]
        case Number(value):
            return splat(value, lanes)
        case Apply(function, arguments):
            values = [evaluate(argument, leaves, lanes) for argument in arguments]
            if function.startswith("cast:"):
                return cast(values[0], function.removeprefix("cast:"), lanes)
            return FUNCTIONS[function](lanes, *values)


def cast(value: Any, dtype: str, lanes: int) -> Any:
    """Numbers as another type; as bool, whether they are other than zero."""
    if dtype == "bool":
        return value != splat(0, lanes, str(value.ty).split("x")[0])
    return tirx.Cast(wide(dtype, lanes), value)
