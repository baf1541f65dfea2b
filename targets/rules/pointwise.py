"""Elementwise operators: one row for each as an expression, chains of them as one step or as somebody's epilogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from graphprune.targets.kernels.functions import Apply, Expression, Leaf, Number
from graphprune.targets.kernels.tir import Kernel
from graphprune.targets.network.graph import Node, Value
from graphprune.targets.network.layout import NotMine, View
from graphprune.targets.network.lowering import Lowering

DEPTH = 12  # nodes that one expression may hold
EIGHT = ("float32", "uint8", "int8")  # what kernels that know 8-bit numbers read and write
STEPS = {"uint8": (0, 255), "int8": (-128, 127)}
MOST = 32  # functions in it: it is a tree, which doubles with every operator that reads its input twice


def of(function: str) -> Callable[[Node, list[Expression]], Expression]:
    return lambda node, arguments: Apply(function, tuple(arguments))


def nested(function: str) -> Callable[[Node, list[Expression]], Expression]:
    """Max, Min, Sum take any number of inputs."""

    def build(node: Node, arguments: list[Expression]) -> Expression:
        result = arguments[0]
        for argument in arguments[1:]:
            result = Apply(function, (result, argument))
        return result

    return build


def add(a: Expression, b: Expression) -> Expression:
    return Apply("add", (a, b))


def mul(a: Expression, b: Expression) -> Expression:
    return Apply("mul", (a, b))


def least(a: Expression, b: Expression) -> Expression:
    return Apply("min", (a, b))


def most(a: Expression, b: Expression) -> Expression:
    return Apply("max", (a, b))


def number(node: Node, name: str, default: float) -> Number:
    return Number(float(node.attributes.get(name, default)))


def clip(node: Node, arguments: list[Expression]) -> Expression:
    result = arguments[0]
    bounds = arguments[1:]
    low: Expression | None = bounds[0] if bounds else None
    high: Expression | None = bounds[1] if len(bounds) > 1 else None
    if "min" in node.attributes:
        low = Number(float(node.attributes["min"]))
    if "max" in node.attributes:
        high = Number(float(node.attributes["max"]))
    if len(node.inputs) > 1 and node.inputs[1] is None:
        low, high = None, low
    result = result if low is None else most(result, low)
    return result if high is None else least(result, high)


def leaky(node: Node, arguments: list[Expression]) -> Expression:
    x = arguments[0]
    slope = arguments[1] if len(arguments) > 1 else number(node, "alpha", 0.01)
    return Apply("where", (Apply("less", (x, Number(0.0))), mul(x, slope), x))


def elu(node: Node, arguments: list[Expression]) -> Expression:
    x = arguments[0]
    below = mul(number(node, "alpha", 1.0), Apply("sub", (Apply("exp", (x,)), Number(1.0))))
    return Apply("where", (Apply("less", (x, Number(0.0))), below, x))


def hard_sigmoid(node: Node, arguments: list[Expression]) -> Expression:
    line = add(mul(arguments[0], number(node, "alpha", 0.2)), number(node, "beta", 0.5))
    return least(most(line, Number(0.0)), Number(1.0))


def hard_swish(node: Node, arguments: list[Expression]) -> Expression:
    line = add(mul(arguments[0], Number(1 / 6)), Number(0.5))
    return mul(arguments[0], least(most(line, Number(0.0)), Number(1.0)))


def gelu(node: Node, arguments: list[Expression]) -> Expression:
    x = arguments[0]
    approximate = node.attributes.get("approximate", "none")
    if approximate in {"none", b"none"}:
        return Apply("gelu", (x,))
    inner = mul(Number(0.7978845608028654), add(x, mul(Number(0.044715), mul(x, mul(x, x)))))
    return mul(mul(Number(0.5), x), add(Number(1.0), Apply("tanh", (inner,))))


def power(node: Node, arguments: list[Expression]) -> Expression:
    base, exponent = arguments
    if isinstance(exponent, Number):
        match exponent.value:
            case 2.0:
                return mul(base, base)
            case 3.0:
                return mul(base, mul(base, base))
            case 0.5:
                return Apply("sqrt", (base,))
            case -1.0:
                return Apply("reciprocal", (base,))
    return Apply("pow", (base, exponent))


def cast(node: Node, arguments: list[Expression]) -> Expression:
    return Apply(f"cast:{node.outputs[0].dtype}", (arguments[0],))


def as_float(x: Expression) -> Expression:
    return x if isinstance(x, Number) else Apply("cast:float32", (x,))


def quantise(node: Node, arguments: list[Expression]) -> Expression:
    """The nearest step, ties to even, of those that there are; a NaN is the lowest."""
    x, scale, *more = arguments
    dtype = node.outputs[0].dtype
    low, high = STEPS[dtype]
    zero = more[0] if more else Number(0.0)
    if zero == Number(float(low)) and isinstance(x, Apply) and x.function == "relu":
        (x,) = x.arguments  # there is no step below zero
    step: Expression = Apply("round", (Apply("div", (x, scale)),))
    if zero != Number(0.0):
        step = add(step, as_float(zero))
    return Apply(f"cast:{dtype}", (Apply("within", (step, Number(float(low)), Number(float(high)))),))


def dequantise(node: Node, arguments: list[Expression]) -> Expression:
    """What `quantise` made on the way is a whole number already."""
    x, scale, *more = arguments
    zero = more[0] if more else Number(0.0)
    match x:
        case Apply("cast:uint8" | "cast:int8", (Apply("within", (Apply("add", (step, z)), Number(a), Number(b))),)) if (
            z == zero and isinstance(zero, Number)
        ):
            return mul(Apply("within", (step, Number(a - zero.value), Number(b - zero.value))), scale)
        case Apply("cast:uint8" | "cast:int8", (whole,)):
            stored = whole
        case _:
            stored = Apply("cast:float32", (x,))
    return mul(stored if zero == Number(0.0) else Apply("sub", (stored, as_float(zero))), scale)


POINTWISE: dict[str, Callable[[Node, list[Expression]], Expression]] = {
    "Abs": of("abs"),
    "Add": of("add"),
    "And": of("and"),
    "Cast": cast,
    "Ceil": of("ceil"),
    "Clip": clip,
    "Cos": of("cos"),
    "DequantizeLinear": dequantise,
    "Div": of("div"),
    "Elu": elu,
    "Equal": of("equal"),
    "Erf": of("erf"),
    "Exp": of("exp"),
    "Floor": of("floor"),
    "Gelu": gelu,
    "com.microsoft:Gelu": gelu,
    "Greater": lambda node, arguments: Apply("less", tuple(arguments[::-1])),
    "GreaterOrEqual": lambda node, arguments: Apply("less_equal", tuple(arguments[::-1])),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "IsNaN": of("is_nan"),
    "LeakyRelu": leaky,
    "Less": of("less"),
    "LessOrEqual": of("less_equal"),
    "Log": of("log"),
    "Max": nested("max"),
    "Min": nested("min"),
    "Mish": lambda node, arguments: mul(arguments[0], Apply("tanh", (Apply("softplus", (arguments[0],)),))),
    "Mul": of("mul"),
    "Neg": of("neg"),
    "Not": of("not"),
    "Or": of("or"),
    "Pow": power,
    "PRelu": leaky,
    "QuantizeLinear": quantise,
    "Reciprocal": of("reciprocal"),
    "Relu": of("relu"),
    "Round": of("round"),
    "Sigmoid": of("sigmoid"),
    "Sin": of("sin"),
    "Softplus": of("softplus"),
    "Softsign": lambda node, a: Apply("div", (a[0], add(Number(1.0), Apply("abs", (a[0],))))),
    "Sqrt": of("sqrt"),
    "Sub": of("sub"),
    "Sum": nested("add"),
    "Tanh": of("tanh"),
    "Where": of("where"),
    "Xor": of("xor"),
}
FLAGS = {"And", "Not", "Or", "Xor"}  # of nothing else
WHOLE = {"Add", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mul", "Sub"}  # of integers as well


@dataclass
class Fused:
    """An expression and what it reads; it makes `value`. Leaf 0 is the step's own result where there is one."""

    value: Value
    expression: Expression
    operands: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)


def pointwise(node: Node) -> bool:
    """Whether a node is a row here, in types that the rows compute in."""
    if node.op not in POINTWISE or len(node.outputs) != 1:
        return False
    types = [entry.dtype for entry in node.inputs if entry is not None]
    if node.op in {"QuantizeLinear", "DequantizeLinear"}:
        return quantisation(node)
    if node.op == "Cast":
        return types[0] in CASTS and node.outputs[0].dtype in CASTS
    if node.op == "Where":
        return types[0] == "bool" and node.outputs[0].dtype in {"float32", *INTEGERS}
    kinds = {"bool"} if node.op in FLAGS else {"float32", *INTEGERS} if node.op in WHOLE else {"float32"}
    return types[0] in kinds and all(kind == types[0] for kind in types)


def quantisation(node: Node) -> bool:
    """Whether a node has one scale for all numbers, and types of which there are numbers here."""
    x, scale = node.inputs[:2]
    assert x is not None and scale is not None
    kinds = (x.dtype, node.outputs[0].dtype)
    known = kinds in (
        {("float32", kind) for kind in STEPS}
        if node.op == "QuantizeLinear"
        else {(kind, "float32") for kind in (*STEPS, "int32")}
    )
    return known and scale.dtype == "float32" and prod(scale.shape) == 1


INTEGERS = ("int32", "int64")
CASTS = {"float32", *INTEGERS, "bool"}


def fused(at: Lowering, value: Value, leaves: int, limit: int = DEPTH, types: Sequence[str] = ()) -> Fused:
    """The elementwise nodes behind `value` that can join its step: those that read nothing but it, what they make
    of it, and what is there already, and whose one result is all that anybody else needs. Results are of one of the
    types, or of that of the value, flags on the way aside; numbers that are quantised stay so as long as nobody asks
    for others."""
    types = types or (value.dtype,)
    best = Fused(value, Leaf(0))
    made: dict[Value, Expression] = {value: Leaf(0)}
    operands: list[Value] = []
    nodes: list[Node] = []
    while len(nodes) < limit:
        node = following(at, made, nodes)
        if node is None or node.outputs[0].shape != value.shape:
            break
        dtype = node.outputs[0].dtype
        if dtype not in (*types, "bool"):
            break
        grown = expression(at, node, made, operands, leaves)
        if size(grown) > MOST:
            break
        nodes.append(node)
        made[node.outputs[0]] = grown
        outside = [entry for entry in made if entry in at.graph.outputs or set(entry.users) - set(nodes)]
        stored = node.op == "DequantizeLinear" and node.outputs[0] not in at.graph.outputs
        if outside == [node.outputs[0]] and not stored and dtype in types:
            best = Fused(node.outputs[0], made[node.outputs[0]], list(operands), list(nodes))
    return best


def with_most_fused(
    at: Lowering, node: Node, limits: Sequence[int], emit: Callable[[Fused], None], types: Sequence[str] = ()
) -> None:
    """Calls `emit` with what can join the step of `node`, less of it each time that raises NotMine; the last limit is
    no node at all."""
    for limit in limits:
        found = fused(at, node.outputs[0], 1, limit, types)
        try:
            emit(found)
            return
        except NotMine:
            if not found.nodes:
                raise


def others_of(at: Lowering, found: Fused, types: Sequence[str] = ("float32",)) -> list[View]:
    """The other operands of an epilogue, in the shape of its result. Raises NotMine where a kernel cannot read them."""
    others = [at.of(entry).expand(found.value.shape) for entry in found.operands]
    types = (*types, "int32") if "int8" in types else types
    if any(view.dtype not in types or view.storage.kind == "input" for view in others):
        raise NotMine("an operand of another type, or an input of the network")
    return others


def call_fused(at: Lowering, node: Node, found: Fused, kernel: Kernel, views: Sequence[View]) -> None:
    """The step of a node and of all that joined it; the last view is the result."""
    at.call(kernel, views, node, "+".join([node.op, *(other.op for other in found.nodes)]))
    at.views[found.value] = views[-1]
    at.done.update(found.nodes)


def size(expression: Expression) -> int:
    """How many functions an expression holds."""
    return 1 + sum(map(size, expression.arguments)) if isinstance(expression, Apply) else 0


def following(at: Lowering, made: dict[Value, Expression], nodes: list[Node]) -> Node | None:
    """The next elementwise node that reads what was made, and otherwise only what is there."""
    for entry in reversed(made):
        for user in entry.users:
            if user in nodes or user in at.done or not pointwise(user):
                continue
            if all(other in made or at.ready(other) for other in user.inputs if other is not None):
                return user
    return None


def expression(
    at: Lowering, node: Node, made: dict[Value, Expression], operands: list[Value], leaves: int
) -> Expression:
    """The node's row on its inputs; numbers are part of it, everything else is an operand."""
    arguments: list[Expression] = []
    steps = node.op in {"QuantizeLinear", "DequantizeLinear"}
    for entry in node.inputs:
        if entry is None:
            continue
        if entry in made:
            arguments.append(made[entry])
        elif entry.constant is not None and entry.constant.size == 1 and (entry.dtype == "float32" or steps):
            arguments.append(Number(float(entry.constant.reshape(-1)[0])))
        elif entry in at.later and entry not in at.views:  # read as it is stored
            assert entry.maker is not None
            arguments.append(expression(at, entry.maker, made, operands, leaves))
        else:
            if entry not in operands:
                operands.append(entry)
            arguments.append(Leaf(leaves + operands.index(entry)))
    return POINTWISE[node.op](node, arguments)


def elementwise(at: Lowering, node: Node) -> None:
    """The node and the elementwise ones behind it as one step."""
    if not pointwise(node):
        raise NotMine(f"{node.op} on {', '.join(str(entry.dtype) for entry in node.inputs if entry)}")
    operands: list[Value] = []
    first = expression(at, node, {}, operands, 0)
    value = node.outputs[0]
    found = joined(at, value, first, operands)
    views = [at.of(entry) for entry in found.operands]
    shape = found.value.shape
    pairs = zip(views, found.operands, strict=True)
    like = next((view for view, entry in pairs if entry.shape == shape and entry.constant is None), None)
    result = at.place(found.value, like)
    at.map(found.expression, views, result, node, "+".join([node.op, *(other.op for other in found.nodes)]))
    at.views[found.value] = result
    at.done.update(found.nodes)


def joined(at: Lowering, value: Value, first: Expression, operands: list[Value]) -> Fused:
    """The chain behind `value` where the value itself is an expression of operands."""
    types = (*EIGHT, "bool")
    chain = fused(at, value, 1, types=types if value.dtype in types else ())
    for entry in chain.operands:
        if entry not in operands:
            operands.append(entry)
    places = [operands.index(entry) for entry in chain.operands]
    return Fused(chain.value, replaced(chain.expression, first, places), operands, chain.nodes)


def replaced(expression: Expression, first: Expression, places: Sequence[int]) -> Expression:
    match expression:
        case Leaf(0):
            return first
        case Leaf(index):
            return Leaf(places[index - 1])
        case Apply(function, arguments):
            return Apply(function, tuple(replaced(argument, first, places) for argument in arguments))
    return expression


def batch_norm(at: Lowering, node: Node) -> None:
    """BatchNormalization with constant statistics: a x + b with one a and b a channel."""
    x, *others = node.inputs
    if x is None or any(entry is None or entry.constant is None for entry in others):
        raise NotMine("its statistics are not constant")
    scale, bias, mean, variance = (entry.constant.astype("float64") for entry in others)  # type: ignore[union-attr]
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    shape = (-1, *(1,) * (len(x.shape) - 2))
    extra = [
        Value(f"{node.name}.{what}", array.reshape(shape).shape, "float32", array.reshape(shape).astype("float32"))
        for what, array in (("factor", factor), ("shift", bias - mean * factor))
    ]
    operands: list[Value] = [x, *extra]
    first = add(mul(Leaf(0), Leaf(1)), Leaf(2))
    found = joined(at, node.outputs[0], first, operands)
    result = at.place(found.value, at.of(x))
    views: list[View] = [at.of(entry) for entry in found.operands]
    at.map(found.expression, views, result, node, "+".join([node.op, *(other.op for other in found.nodes)]))
    at.views[found.value] = result
    at.done.update(found.nodes)
