"""Attention and recurrent layers, which ATen has as single operators."""

from __future__ import annotations

from graphprune.dialects.aten.call import Call
from graphprune.dims import Axis, Prod, find
from graphprune.program import Contraction, Node
from graphprune.rules import pointwise
from graphprune.rules.attention import Side, attend
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Operand, Trace, Typed

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _attention(trace: Trace, node: Node) -> list[Typed]:
    """``... h q d, ... k t d, ... k t e -> ... h q e``: one head for each key head, or (grouped) several."""
    call = Call(trace, node)
    query, key, value = (call.tensor(name) for name in ("query", "key", "value"))
    for x in (query, key, value) if call.given.get("dropout_p") else ():
        pointwise.per_element_random(trace, x)  # it is not told whether it is trained
    if query.rank != 4 or key.rank != 4 or value.rank != 4:
        return [_batched(trace, call, [query, key, value])]
    sides = [_side(x) for x in (query, key, value)]
    for side in sides[1:]:
        if side.heads.size == 1 and sides[0].heads.size != 1:
            side.heads = sides[0].heads  # one head for all, by broadcasting
        if side.batch.size == 1:
            side.batch = sides[0].batch
    attend(trace, *sides, scaled=call.given.get("scale") is not None, biases=[call.optional("attn_mask")])
    return [Typed([sides[0].batch, sides[0].heads, sides[0].positions, sides[2].width])]


def _side(x: Operand) -> Side:
    batch, heads, positions, width = x.axes
    return Side(batch, heads, positions, width, ((x.use, 3, width),), x.use)


def _batched(trace: Trace, call: Call, operands: list[Operand]) -> Typed:
    """Without an axis of heads: everything before the last two axes is batch."""
    query, key, value = operands
    lead = trace.broadcast([x.axes[:-2] for x in operands])
    batch = find(Prod(lead))
    from graphprune.dims import UNIT

    sides = [Side(batch, UNIT, x.axes[-2], x.axes[-1], ((x.use, x.rank - 1, x.axes[-1]),), x.use) for x in operands]
    attend(trace, *sides, scaled=call.given.get("scale") is not None)
    mask = call.optional("attn_mask")
    if mask is not None:
        trace.broadcast([[*lead, query.axes[-2], key.axes[-2]], mask.axes])
    return Typed([*lead, query.axes[-2], value.axes[-1]])


def _recurrent(trace: Trace, node: Node) -> list[Typed]:
    """All layers and directions of an LSTM, GRU or plain RNN in one call: they share one hidden axis, because their
    states are one tensor. Layer after the first read ``(d h)``, both directions side by side."""
    call = Call(trace, node)
    name = node.op.split(".")[1]
    x, params = call.tensor("input"), [p for p in call.tensors("params") if p is not None]
    layers, directions = call.number("num_layers"), 2 if call.flag("bidirectional") else 1
    each = len(params) // (layers * directions)
    if each not in {2, 4} or x.rank not in {2, 3}:
        raise ValueError("recurrent layers with projections are not followed")
    hidden, steps = params[1].axes[1], x.axes[:-1]
    reads: Axis = x.axes[-1]
    for place in range(layers):
        for direction in range(directions):
            at = (place * directions + direction) * each
            _cell(trace, params[at : at + each], _GATES[name], hidden, reads, steps, x if not place else None)
        reads = hidden if directions == 1 else find(Prod([trace.fixed(2, "directions"), hidden]))
    trace.whole(steps[-1] if call.flag("batch_first") and x.rank == 3 else steps[0], "the steps of a recurrence")
    batch = [] if x.rank == 2 else [steps[0] if call.flag("batch_first") else steps[1]]
    states = [s for s in (call.tensors("hx") if isinstance(call.given["hx"], list) else [call.tensor("hx")]) if s]
    for state in states:
        for a, b in zip(state.axes[1:], [*batch, hidden], strict=True):
            trace.tie(a, b)
        trace.whole(state.axes[0], "layers and directions of a recurrence")
    final = Typed([trace.fixed(layers * directions, "layers and directions"), *batch, hidden])
    return [Typed([*steps, reads]), *(Typed(list(final.axes or [])) for _ in node.outputs[1:])]


def _step(trace: Trace, node: Node) -> list[Typed]:
    """One step of a cell: ``... i, ... h -> ... h`` (an LSTM has two states)."""
    call = Call(trace, node)
    x = call.tensor("input")
    params = [p for p in (call.optional(name) for name in ("w_ih", "w_hh", "b_ih", "b_hh")) if p is not None]
    state = [*x.axes[:-1], params[1].axes[1]]
    _cell(trace, params, _GATES[node.op.split(".")[1].removesuffix("_cell")], state[-1], x.axes[-1], x.axes[:-1], x)
    for before in call.tensors("hx") if isinstance(call.given["hx"], list) else [call.tensor("hx")]:
        if before is not None:
            state = trace.broadcast([state, before.axes])
    return [Typed(list(state)) for _ in node.outputs]


def _cell(
    trace: Trace, params: list[Operand], gates: int, hidden: Axis, reads: Axis, steps: list[Axis], x: Operand | None
) -> None:
    """``(g h) i, (g h) h, (g h)?, (g h)?``: the rows of all parameters are one block of units for each gate."""
    for parameter in params:
        outer, inner = trace.factor(parameter.axes[0], gates)
        trace.structural(outer, "one block for each gate of the cell")
        trace.tie(inner, hidden)
    for weight, reduced in ((params[0], reads), (params[1], hidden)):
        trace.tie(weight.axes[1], reduced)
        trace.contract(
            Contraction(
                trace.node,
                weight.use,
                tuple(weight.axes),
                out=(weight.axes[0],),
                reduced=(weight.axes[1],),
                stationary=(),
                macs=(*weight.axes, *steps),
                masks=((weight.use, 1, weight.axes[1]),),
                activation=x.use if x is not None and weight is params[0] else None,
            )
        )


CELLS: dict[str, Operator] = {
    "aten.scaled_dot_product_attention": Operator(_attention),
    **{f"aten.{name}": Operator(_recurrent) for name in _GATES},
    **{f"aten.{name}_cell": Operator(_step) for name in _GATES},
}
