"""ATen operators that work entry by entry, and arithmetic on sizes."""

from __future__ import annotations

from graphprune.dialects.aten.call import At, Call, same
from graphprune.program import Node
from graphprune.rules import computed, pointwise
from graphprune.rules.numbers import Arith, Number, Opaque, SizeOf, now
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed
from graphprune.sizes import Extent

# Operators of one tensor; in-place forms (`relu_`) are the same operator.
UNARY = """_conj _neg_view _to_copy abs absolute acos acosh alias angle arccos arccosh arcsin arcsinh arctan arctanh
asin asinh atan atanh bitwise_not ceil celu clone conj conj_physical contiguous cos cosh deg2rad detach digamma elu
empty_like erf erfc erfinv exp exp2 expm1 fake_quantize_per_tensor_affine fill fix floor frac full_like gelu
hardshrink hardsigmoid hardswish hardtanh i0 imag isfinite isinf isnan isneginf isposinf isreal leaky_relu lgamma
lift lift_fresh lift_fresh_copy log log10 log1p log2 log_sigmoid logical_not logit mish mvlgamma nan_to_num neg
negative ones_like pin_memory polygamma positive quantize_per_tensor rad2deg real reciprocal relu relu6 resolve_conj
resolve_neg round rsqrt selu sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink special_airy_ai
special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_digamma special_entr special_erf
special_erfc special_erfcx special_erfinv special_exp2 special_expit special_expm1 special_gammaln special_i0
special_i0e special_i1 special_i1e special_log1p special_log_ndtr special_logit special_modified_bessel_i0
special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 special_multigammaln special_ndtr
special_ndtri special_polygamma special_psi special_round special_scaled_modified_bessel_k0
special_scaled_modified_bessel_k1 special_sinc special_spherical_bessel_j0 sqrt square tan tanh tanhshrink threshold
to trunc type_as zero zeros_like"""
BROADCAST = """__and__ __lshift__ __or__ __rshift__ __xor__ add addcdiv addcmul arctan2 atan2 bitwise_and
bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor clamp clamp_max clamp_min clip complex copy copysign
div divide eq expand_as float_power floor_divide fmax fmin fmod gcd ge greater greater_equal gt heaviside hypot
igamma igammac isclose lcm ldexp le lerp less less_equal logaddexp logaddexp2 logical_and logical_or logical_xor lt
masked_fill maximum minimum mul multiply ne nextafter not_equal polar pow remainder rsub special_gammainc
special_gammaincc special_xlog1py special_xlogy special_zeta sub subtract true_divide where xlogy"""
RANDOM = """bernoulli cauchy exponential geometric log_normal normal poisson rand_like randint_like randn_like
uniform"""
# Random only in training, and graphs are captured in evaluation mode.
DROPOUT = "dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout rrelu"
ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "floordiv": "/"}


def _unary(trace: Trace, node: Node) -> list[Typed]:
    return [same(trace.need(0)) for _ in node.outputs]


def _broadcast(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.broadcast(trace, trace.operands())]


def _add(trace: Trace, node: Node) -> list[Typed]:
    plain = node.attributes.get("alpha", 1) == 1
    return [(pointwise.add if plain else pointwise.broadcast)(trace, trace.operands())]


def _broadcast_each(trace: Trace, node: Node) -> list[Typed]:
    """Every operand broadcast against all others, one output for each."""
    found = pointwise.broadcast(trace, trace.operands()).axes or []
    return [Typed(list(found)) for _ in node.outputs]


def _random(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.per_element_random(trace, trace.need(0))]


def _dropout(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    if call.flag("train") or call.flag("training"):
        pointwise.per_element_random(trace, trace.need(0))
    return [same(trace.need(0)) for _ in node.outputs]


def _prelu(trace: Trace, node: Node) -> list[Typed]:
    """``n c ..., c -> n c ...``, or one slope for all."""
    call = Call(trace, node)
    x, slope = call.tensor("self"), call.tensor("weight")
    if slope.rank == 1 and x.rank > 1:
        return [pointwise.broadcast_from(trace, x, slope, 1)]
    return [pointwise.broadcast(trace, [x, slope])]


def _glu(trace: Trace, node: Node) -> list[Typed]:
    """``(2 c) -> c``: the halves are a value and its gate, entry by entry."""
    call = Call(trace, node)
    x = call.tensor("self")
    at = call.number("dim", -1) % x.rank
    halves, inner = trace.factor(x.axes[at], 2)
    trace.structural(halves, "values and their gates")
    return [Typed([inner if k == at else axis for k, axis in enumerate(x.axes)])]


def _size(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    return [Typed([], [SizeOf(x.axes[call.number("dim") % x.rank])])]


def _count(trace: Trace, node: Node) -> list[Typed]:
    return [computed.size_of(trace, trace.need(0))]


def _arithmetic(trace: Trace, node: Node) -> list[Typed]:
    """Python's operators on sizes; what is not followed is a number of its own, and its operands must not move."""
    name = node.op.rpartition(".")[2]
    call = Call(trace, node)
    if name not in ARITHMETIC or any(not isinstance(each, int | At) for each in call.given.values()):
        return _opaque(trace, node)
    left, right = call.entry("0"), call.entry("1")
    if left is None or right is None:
        return _opaque(trace, node)
    entry = Arith(ARITHMETIC[name], left, right)
    traced = _traced(node)
    if isinstance(traced, int) and isinstance(now(entry), int):
        return [Typed([], [entry if isinstance(now(entry), int) else Number(traced)])]
    return [Typed([], [entry])] if now(entry) == traced else _opaque(trace, node)


def _opaque(trace: Trace, node: Node) -> list[Typed]:
    for operand in trace.operands():
        for entry in (operand.typed.entries if operand is not None else None) or []:
            trace.hold(entry, f"{node.op} computes a number from it")
    return [Typed([], [Opaque(_traced(node))]) for _ in node.outputs]


def _traced(node: Node) -> Extent:
    found: Extent = node.outputs[0].native[2][0] if node.outputs and node.outputs[0].native[2] else 0
    return found


def _number_of_data(trace: Trace, node: Node) -> list[Typed]:
    """`item` and its kin: an entry of a tensor becomes a number, so nothing of the tensor may move."""
    for operand in trace.operands():
        for axis in operand.axes if operand is not None else []:
            trace.whole(axis, "an entry of it is read as a number")
    return [Typed([], [Opaque(_traced(node))]) for _ in node.outputs]


def _nothing(trace: Trace, node: Node) -> list[Typed]:
    return []


_PYTHON = "add sub mul floordiv truediv mod pow neg eq ne lt le gt ge and_ or_ not_"
_MATH = "ceil floor trunc sqrt log log2 exp pow"
_SYMBOLIC = "sym_max sym_min sym_ite sym_not sym_float sym_int sym_sqrt sym_sum _sym_sqrt"

ELEMENTWISE: dict[str, Operator] = {
    **{f"aten.{name}": Operator(_unary) for name in UNARY.split()},
    **{f"aten.{name}": Operator(_broadcast) for name in BROADCAST.split()},
    "aten.add": Operator(_add),
    "aten.broadcast_tensors": Operator(_broadcast_each),
    **{f"aten.{name}": Operator(_random) for name in RANDOM.split()},
    **{f"aten.{name}": Operator(_dropout) for name in DROPOUT.split()},
    "aten.prelu": Operator(_prelu),
    "aten._prelu_kernel": Operator(_broadcast),
    "aten.glu": Operator(_glu),
    "aten.sym_size": Operator(_size, sizes=True),
    "aten.sym_numel": Operator(_count, sizes=True),
    "aten.sym_storage_offset": Operator(_opaque, sizes=True),
    "aten.sym_stride": Operator(_opaque, sizes=True),
    "aten.item": Operator(_number_of_data),
    "aten._local_scalar_dense": Operator(_number_of_data),
    **{f"operator.{name}": Operator(_arithmetic, sizes=True) for name in _PYTHON.split()},
    **{f"math.{name}": Operator(_opaque, sizes=True) for name in _MATH.split()},
    **{f"torch.{name}": Operator(_opaque, sizes=True) for name in _SYMBOLIC.split()},
    **{f"torch.sym.{name}": Operator(_opaque, sizes=True) for name in _SYMBOLIC.split()},
}
