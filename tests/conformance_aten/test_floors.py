"""Rules that are right because they pin everything, and an oracle that lets wrong rules pass, would be noticed; and so
would an operator of the table that nothing is known about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphprune.dialects.aten.call import Call
from graphprune.dialects.aten.dialect import TABLE
from graphprune.dims import Prod, Sum
from graphprune.program import Node
from graphprune.rules import pointwise, shape
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed

from .floors import FLOORS, by_operator, checked, count, shortfalls, usable

LEAST_FREE = 6_800
Rule = Callable[[Trace, Node], list[Typed]]

# Why there is no sample of an operator; all others of the table must have one.
_NO_SAMPLE_BY_REASON = {
    "it is arithmetic on sizes that are open in a graph, and the sizes of samples are numbers": """aten.sym_numel
        aten.sym_size aten.sym_storage_offset aten.sym_stride math.ceil math.exp math.floor math.log math.log2 math.pow
        math.sqrt math.trunc operator.add operator.and_ operator.eq operator.floordiv operator.ge operator.gt
        operator.le operator.lt operator.mod operator.mul operator.ne operator.neg operator.not_ operator.or_
        operator.pow operator.sub operator.truediv torch._sym_sqrt torch.sym._sym_sqrt torch.sym.sym_float
        torch.sym.sym_int torch.sym.sym_ite torch.sym.sym_max torch.sym.sym_min torch.sym.sym_not torch.sym.sym_sqrt
        torch.sym.sym_sum torch.sym_float torch.sym_int torch.sym_ite torch.sym_max torch.sym_min torch.sym_not
        torch.sym_sqrt torch.sym_sum""",
    "it reads a number out of a tensor, which only torch.export can capture": "aten.item aten._local_scalar_dense",
    "it runs on other devices only": "aten.cudnn_batch_norm aten.pin_memory",
    "it is written out, or replaced by its copying form, when it is captured": "aten.lift_fresh aten.tanhshrink",
    "its result is of a quantised type, which cannot be captured": "aten.quantize_per_tensor",
    "its rows must be multiples of 16 bytes long, which no draw of what is kept respects": """aten._grouped_mm
        transformers::grouped_mm_fallback""",
    "it takes functions, and is tested in tests/aten/test_flow.py": """higher_order.cond higher_order.while_loop
        higher_order.scan higher_order.map_impl""",
    "it takes functions, or reads for them, and is tested in tests/aten/test_flex.py": """higher_order.flex_attention
        higher_order.flat_apply""",
    "it says where vmap begins and ends, and is tested in tests/aten/test_flex.py and test_flow.py": """
        torch._functorch.predispatch._add_batch_dim torch._functorch.predispatch._remove_batch_dim
        torch._functorch.predispatch._vmap_decrement_nesting torch._functorch.predispatch._vmap_increment_nesting
        torch._functorch.predispatch.lazy_load_decompositions""",
    "it is of another library": """torchvision::deform_conv2d torchvision::ps_roi_align torchvision::ps_roi_pool
        torchvision::roi_align torchvision::roi_pool torchvision::nms torchvision::qnms""",
}
NO_SAMPLE = {name: reason for reason, names in _NO_SAMPLE_BY_REASON.items() for name in names.split()}

# Why the samples of an operator have no free dimension; all others must have some.
_NONE_BY_REASON = {
    "it draws random numbers": """cauchy exponential geometric log_normal normal poisson rand rand_like randint
        randint_like randn_like randperm uniform""",
    "it makes a tensor from numbers": """bartlett_window blackman_window eye hamming_window hann_window
        kaiser_window linspace logspace tril_indices triu_indices""",
    "it makes a whole matrix, or reads one": "diag",
}
NOTHING_FREE: dict[str, str] = {
    f"aten.{name}": reason for reason, names in _NONE_BY_REASON.items() for name in names.split()
}


def gaps() -> list[str]:
    """The operators of the table that there is neither a sample of, nor a reason why not."""
    return sorted(TABLE.keys() - by_operator(FLOORS).keys() - NO_SAMPLE.keys())


def test_every_operator_of_the_table_has_a_sample_or_a_reason() -> None:
    assert gaps() == []
    assert sorted(NO_SAMPLE.keys() & by_operator(FLOORS).keys()) == []
    assert sorted(NO_SAMPLE.keys() - TABLE.keys()) == []


def test_an_operator_without_a_sample_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, "aten.of_tomorrow", Operator(identity))
    assert gaps() == ["aten.of_tomorrow"]


def test_the_floors_are_worth_something() -> None:
    assert sum(sum(floor) for counts in FLOORS.values() for floor in counts.values()) >= LEAST_FREE
    pinned = {name for name, row in TABLE.items() if row.pinned}
    nothing = {name for name, floor in by_operator(FLOORS).items() if not any(floor)}
    assert nothing - pinned == set(NOTHING_FREE)


def everything_pinned(trace: Trace, node: Node) -> list[Typed]:
    ranks = [None if value.shape is None else len(value.shape) for value in node.outputs]
    return pointwise.opaque(trace, trace.operands(), ranks, "GP204", "it is easier")


def test_pinning_everything_falls_below_the_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, "aten.permute", Operator(everything_pinned))
    assert len(shortfalls("permute", FLOORS["permute"], count(usable("permute")))) == len(FLOORS["permute"])


def identity(trace: Trace, node: Node) -> list[Typed]:
    return [Typed(list(trace.need(0).axes)) for _ in node.outputs]


def backwards(trace: Trace, node: Node) -> list[Typed]:
    """What is laid end to end comes out the other way round."""
    axes = RIGHT["aten.cat"].rule(trace, node)[0].axes or []
    return [Typed([Sum(axis.parts[::-1]) if isinstance(axis, Sum) else axis for axis in axes])]


def block_first(trace: Trace, node: Node) -> list[Typed]:
    """``n (r q c) h w``, as others shuffle pixels."""
    x = trace.need(0)
    return [shape.depth_to_space(trace, x, Call(trace, node).number("upscale_factor"), False)]


def inner_first(trace: Trace, node: Node) -> list[Typed]:
    """Blocks the other way round: each entry of the second operand with all of the first."""
    axes = RIGHT["aten.kron"].rule(trace, node)[0].axes or []
    return [Typed([Prod(axis.parts[::-1]) if isinstance(axis, Prod) else axis for axis in axes])]


def unreduced(trace: Trace, node: Node) -> list[Typed]:
    """Rows and columns, and nothing about what is summed over."""
    a, b = trace.need(0), trace.need(1)
    for axis in (a.axes[-1], b.axes[-2]):
        trace.inexact(axis)
    return [Typed([*a.axes[:-1], b.axes[-1]])]


def untied(trace: Trace, node: Node) -> list[Typed]:
    """The axes of the first operand, whatever the others are."""
    for operand in trace.operands()[1:]:
        for axis in operand.axes if operand else []:
            trace.inexact(axis)
    return [Typed(list(trace.need(0).axes))]


def of_fixed_width(trace: Trace, node: Node) -> list[Typed]:
    """New axes of the sizes that are asked for, which no cut changes."""
    return [Typed([trace.free(size) for size in Call(trace, node).shape()])]


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
# The function whose samples are run, the operator, and a rule of it that is wrong.
WRONG: list[tuple[str, str, Rule]] = [
    ("add", "aten.add", untied),
    ("cat", "aten.cat", backwards),
    ("cumsum", "aten.cumsum", identity),
    ("flip", "aten.flip", identity),
    ("full", "aten.full", of_fixed_width),
    ("mm", "aten.mm", unreduced),
    ("mean", "aten.mean", exact_statistics("aten.mean")),
    ("nn.functional.layer_norm", "aten.layer_norm", exact_statistics("aten.layer_norm")),
    ("aten.pixel_shuffle", "aten.pixel_shuffle", block_first),
    ("aten.permute", "aten.permute", identity),
    ("renorm", "aten.renorm", exact_statistics("aten.renorm")),
    ("kron", "aten.kron", inner_first),
    ("softmax", "aten.softmax", identity),
    ("tril", "aten.tril", identity),
]


@pytest.mark.parametrize(("function", "operator", "rule"), WRONG, ids=[operator for _, operator, _ in WRONG])
def test_a_wrong_rule_is_caught(function: str, operator: str, rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(usable(function))[1] == []
    monkeypatch.setitem(TABLE, operator, Operator(rule, TABLE[operator].sizes))
    assert checked(usable(function))[1] != []


def test_numbers_that_do_not_follow_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(trace: Trace, node: Node) -> list[Typed]:
        typed = RIGHT["aten.view"].rule(trace, node)
        trace.requirements.clear()
        return typed

    monkeypatch.setitem(TABLE, "aten.view", Operator(wrong, sizes=True))
    assert checked(usable("view"))[1] != []


def test_a_contraction_without_masks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(trace: Trace, node: Node) -> list[Typed]:
        typed = RIGHT["aten.linear"].rule(trace, node)
        trace.contractions[-1].masks = ()
        return typed

    monkeypatch.setitem(TABLE, "aten.linear", Operator(wrong))
    assert checked(usable("nn.functional.linear"))[1] != []
