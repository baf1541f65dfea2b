"""Mutations of the attributes of nodes. See message.py for what a mutation is."""

from __future__ import annotations

from random import Random

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from .message import NAMES, NUMBERS, REALS, mutation, nodes, pick


def _attribute(rng: Random, model: ModelProto) -> tuple[NodeProto, AttributeProto] | None:
    found = [(node, each) for node in nodes(model) for each in node.attribute]
    return pick(rng, found)  # type: ignore[no-any-return]


def _value(rng: Random) -> object:
    numbers = rng.choices(NUMBERS, k=rng.choice((1, 2, 4, 8)))
    reals = rng.choices(REALS, k=rng.choice((1, 2, 4)))
    return rng.choice(
        [rng.choice(NUMBERS), rng.choice(REALS), rng.choice(NAMES), numbers, reals, list(rng.choices(NAMES, k=2)),
         helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0]),
         helper.make_tensor_type_proto(TensorProto.FLOAT, [2])]
    )  # fmt: skip


@mutation
def attribute_of_another_type(rng: Random, model: ModelProto) -> None:
    found = _attribute(rng, model)
    if found is not None:
        name = found[1].name
        found[1].CopyFrom(helper.make_attribute(name, _value(rng)))


@mutation
def attribute_type_lies(rng: Random, model: ModelProto) -> None:
    found = _attribute(rng, model)
    if found is not None:
        found[1].type = rng.randrange(0, 15)


@mutation
def attribute_number(rng: Random, model: ModelProto) -> None:
    found = [each for node in nodes(model) for each in node.attribute if each.ints or each.HasField("i")]
    each = pick(rng, found)
    if each is None:
        return
    if each.ints:
        each.ints[rng.randrange(len(each.ints))] = rng.choice(NUMBERS)
    else:
        each.i = rng.choice(NUMBERS)


@mutation
def attribute_length(rng: Random, model: ModelProto) -> None:
    each = pick(rng, [each for node in nodes(model) for each in node.attribute if each.ints])
    if each is not None:
        kept = list(each.ints)[: rng.randrange(len(each.ints) + 1)]
        del each.ints[:]
        each.ints.extend(kept * rng.choice((1, 1, 2, 1000)))


@mutation
def attribute_missing(rng: Random, model: ModelProto) -> None:
    found = _attribute(rng, model)
    if found is not None:
        found[0].attribute.remove(found[1])


@mutation
def attribute_twice(rng: Random, model: ModelProto) -> None:
    found = _attribute(rng, model)
    if found is not None:
        found[0].attribute.add().CopyFrom(found[1])


@mutation
def attribute_added(rng: Random, model: ModelProto) -> None:
    """An attribute that the operator knows, with a value of some kind."""
    node = pick(rng, nodes(model))
    if node is None or not onnx.defs.has(node.op_type, node.domain):
        return
    known = sorted(onnx.defs.get_schema(node.op_type, domain=node.domain).attributes)
    if known:
        node.attribute.append(helper.make_attribute(rng.choice(known), _value(rng)))


@mutation
def attribute_refers(rng: Random, model: ModelProto) -> None:
    found = _attribute(rng, model)
    if found is not None:
        kind, name = found[1].type, found[1].name
        found[1].Clear()
        found[1].name, found[1].type, found[1].ref_attr_name = name, kind, rng.choice(("alpha", *NAMES))


@mutation
def attribute_not_text(rng: Random, model: ModelProto) -> None:
    each = pick(rng, [each for node in nodes(model) for each in node.attribute if each.HasField("s")])
    if each is not None:
        each.s = rng.choice((b"\xff\xfe", b"", b"SAME_UPPER\0", b"x" * 100_000, b"ij,jk->", b"...ij,...jk->...ik"))
