"""`flex_attention`: attention whose scores a graph of its own changes, one score at a time.

The bodies get the numbers of the batch entry, the head, the query and the key. A table that is read at the number of
the head (`slopes[h]`) has an entry for each head, and is cut with them; whatever else is made of that number counts on
all heads being there.
"""

from __future__ import annotations

from graphprune.dialects.aten.call import At, Call
from graphprune.dims import Axis
from graphprune.program import Block, Node, Value
from graphprune.rules import indexing
from graphprune.rules.attention import attend, split_heads
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed

_LOOKUP = "higher_order.flat_apply"


def flex_attention(trace: Trace, node: Node) -> list[Typed]:
    """``flex_attention(query, key, value, score, (lengths, blocks, mask), scale, options, read by score, by mask)``:
    ``b h q d, b k t d, b k t e -> b h q e, b h q, b h q``, with sums and largest scores beside the output."""
    call = Call(trace, node)
    query, key, value = (split_heads(call.tensor(name)) for name in "012")
    for side in (key, value):
        if side.batch.size == 1:
            side.batch = query.batch
    trace.whole(query.batch, "its entries are numbered for the scores")
    attend(trace, query, key, value, scaled=True)
    for blocks in call.tensors("4"):
        if blocks is not None and blocks.rank > 1 and blocks.axes[1].size != 1:
            trace.whole(query.heads, "each head has a mask of its own")
    for name, first in (("3", 1), ("4", 0)):  # the score comes first where it is changed
        if name in node.blocks:
            _numbered(trace, node.blocks[name], first, query.heads)
    out = [query.batch, query.heads, query.positions]
    return [Typed([*out, value.width]), Typed(out), Typed(list(out))]


def _numbered(trace: Trace, body: Block, first: int, heads: Axis) -> None:
    """Walk a body of ``[score,] entry, head, query, key`` and what it reads."""
    node = trace.node
    for formal in body.inputs[: first + 4]:
        trace.types[formal] = Typed([])
    number = body.inputs[first + 1]
    trace.counters[number] = heads
    if number in body.outputs or any(_computes_with(each, number) for each in body.nodes):
        trace.whole(heads, "something is computed from the number of the head")
    trace.walk(body)
    trace.node = node


def _computes_with(node: Node, number: Value) -> bool:
    """Whether a node reads the number of the head for anything but its place in a table."""
    return number in (node.inputs[:1] if node.op == _LOOKUP else node.inputs)


def _lookup(trace: Trace, node: Node) -> list[Typed]:
    """``flat_apply(_, _, "...ModIndex", table, numbers...)``: an entry of a table, or a part of it, by numbers."""
    if not str(node.attributes.get("2")).endswith(".ModIndex"):
        raise ValueError(f"{node.attributes.get('2')} is not followed")
    call = Call(trace, node)
    table, places = call.tensor("3"), sorted(int(name) for name in node.attributes if name.isdigit() and int(name) > 3)
    for axis, place in zip(table.axes, places, strict=False):
        given = node.attributes[str(place)]
        number = node.inputs[given.index] if isinstance(given, At) else None
        heads = None if number is None else trace.counters.get(number)
        if heads is None:
            trace.pin(axis, "GP207", indexing.INDEXED)
        else:
            trace.tie(axis, heads)
    return [Typed(table.axes[len(places) :])]


LOOKUPS: dict[str, Operator] = {_LOOKUP: Operator(_lookup)}
