"""Mutations of edges, nodes, names, the interface and versions. See message.py for what a mutation is."""

from __future__ import annotations

from random import Random

import onnx
from onnx import ModelProto, TensorProto, helper

from .message import NAMES, NUMBERS, graphs, mutation, names, nodes, pick

# Edges


@mutation
def input_to_anything(rng: Random, model: ModelProto) -> None:
    node = pick(rng, [node for node in nodes(model) if node.input])
    if node is not None:
        node.input[rng.randrange(len(node.input))] = rng.choice(names(model))


@mutation
def input_to_its_own_output(rng: Random, model: ModelProto) -> None:
    node = pick(rng, [node for node in nodes(model) if node.input and node.output])
    if node is not None:
        node.input[0] = node.output[0]


@mutation
def cycle(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    if len(graph.node) > 1:
        late = rng.randrange(1, len(graph.node))
        early = graph.node[rng.randrange(late)]
        if early.input and graph.node[late].output:
            early.input[0] = graph.node[late].output[0]


@mutation
def input_missing(rng: Random, model: ModelProto) -> None:
    node = pick(rng, [node for node in nodes(model) if node.input])
    if node is not None:
        del node.input[rng.randrange(len(node.input))]


@mutation
def input_left_out(rng: Random, model: ModelProto) -> None:
    node = pick(rng, [node for node in nodes(model) if node.input])
    if node is not None:
        node.input[rng.randrange(len(node.input))] = ""


@mutation
def input_added(rng: Random, model: ModelProto) -> None:
    node = pick(rng, nodes(model))
    if node is not None:
        node.input.extend(rng.choices([*names(model), ""], k=rng.choice((1, 2, 50))))


@mutation
def inputs_swapped(rng: Random, model: ModelProto) -> None:
    node = pick(rng, [node for node in nodes(model) if len(node.input) > 1])
    if node is not None:
        mixed = rng.sample(list(node.input), len(node.input))
        del node.input[:]
        node.input.extend(mixed)


@mutation
def output_missing(rng: Random, model: ModelProto) -> None:
    node = pick(rng, [node for node in nodes(model) if node.output])
    if node is not None:
        del node.output[rng.randrange(len(node.output))]


@mutation
def output_twice(rng: Random, model: ModelProto) -> None:
    node = pick(rng, [node for node in nodes(model) if node.output])
    if node is not None:
        node.output.append(rng.choice([node.output[0], *names(model)]))


@mutation
def output_added(rng: Random, model: ModelProto) -> None:
    node = pick(rng, nodes(model))
    if node is not None:
        node.output.extend(f"extra{k}" for k in range(rng.choice((1, 3, 300))))


# Nodes


@mutation
def nodes_shuffled(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    mixed = rng.sample(list(graph.node), len(graph.node))
    del graph.node[:]
    graph.node.extend(mixed)


@mutation
def node_dropped(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    if graph.node:
        del graph.node[rng.randrange(len(graph.node))]


@mutation
def node_twice(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    if graph.node:
        graph.node.add().CopyFrom(rng.choice(graph.node))


@mutation
def nodes_all_gone(rng: Random, model: ModelProto) -> None:
    del rng.choice(graphs(model)).node[:]


@mutation
def operator_of_another_node(rng: Random, model: ModelProto) -> None:
    found = nodes(model)
    if found:
        other = rng.choice(found)
        node = rng.choice(found)
        node.op_type, node.domain = other.op_type, other.domain


@mutation
def operator_of_any_kind(rng: Random, model: ModelProto) -> None:
    node = pick(rng, nodes(model))
    if node is not None:
        schema = rng.choice(onnx.defs.get_all_schemas())
        node.op_type, node.domain = schema.name, schema.domain


@mutation
def operator_unknown(rng: Random, model: ModelProto) -> None:
    node = pick(rng, nodes(model))
    if node is not None:
        node.op_type = rng.choice(("Nonsense", "conv", "", "Conv\n", *NAMES))
        node.domain = rng.choice(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "nowhere", "名前"))


@mutation
def name_of_a_node(rng: Random, model: ModelProto) -> None:
    node = pick(rng, nodes(model))
    if node is not None:
        node.name = rng.choice(NAMES)


@mutation
def names_renamed(rng: Random, model: ModelProto) -> None:
    """One value gets another name wherever it appears: a legal model, unless that name is taken."""
    found = names(model)
    if not found:
        return
    old, new = rng.choice(found), rng.choice([*NAMES, rng.choice(found)])
    for node in nodes(model):
        for place in (node.input, node.output):
            for k, name in enumerate(place):
                if name == old:
                    place[k] = new
    for graph in graphs(model):
        for each in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            if each.name == old:
                each.name = new


@mutation
def name_of_one_thing(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    each = pick(rng, [*graph.input, *graph.output, *graph.initializer, *graph.value_info])
    if each is not None:
        each.name = rng.choice([*NAMES, *names(model)[:20]])


# Interface


@mutation
def inputs_gone(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    if graph.input:
        del graph.input[rng.randrange(len(graph.input))]


@mutation
def outputs_gone(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    if graph.output:
        del graph.output[rng.randrange(len(graph.output))]


@mutation
def output_is_an_input(rng: Random, model: ModelProto) -> None:
    if model.graph.input:
        model.graph.output.add().CopyFrom(rng.choice(model.graph.input))


@mutation
def output_is_an_initializer(rng: Random, model: ModelProto) -> None:
    tensor = pick(rng, model.graph.initializer)
    if tensor is not None:
        model.graph.output.add().CopyFrom(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


@mutation
def output_is_inside(rng: Random, model: ModelProto) -> None:
    found = names(model)
    if found:
        model.graph.output.add(name=rng.choice(found))


@mutation
def output_listed_twice(rng: Random, model: ModelProto) -> None:
    if model.graph.output:
        model.graph.output.add().CopyFrom(rng.choice(model.graph.output))


@mutation
def input_is_an_initializer(rng: Random, model: ModelProto) -> None:
    tensor = pick(rng, model.graph.initializer)
    if tensor is not None:
        model.graph.input.add().CopyFrom(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


@mutation
def initializer_is_made_by_a_node(rng: Random, model: ModelProto) -> None:
    tensor, node = pick(rng, model.graph.initializer), pick(rng, model.graph.node)
    if tensor is not None and node is not None and node.output:
        tensor.name = node.output[0]


@mutation
def interface_without_type(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    each = pick(rng, [*graph.input, *graph.output, *graph.value_info])
    if each is not None:
        each.ClearField("type")


@mutation
def interface_of_another_type(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    each = pick(rng, [*graph.input, *graph.output, *graph.value_info])
    if each is None:
        return
    kind = rng.choice(("element", "sequence", "map", "optional", "sparse"))
    if kind == "element":
        each.type.tensor_type.elem_type = rng.choice((0, 1, 6, 7, 8, 9, 10, 11, 14, 16, 23, 99))
    elif kind == "sequence":
        each.type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    elif kind == "map":
        each.type.map_type.key_type = TensorProto.INT64
    elif kind == "optional":
        each.type.optional_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    else:
        each.type.sparse_tensor_type.elem_type = TensorProto.FLOAT


@mutation
def declared_shape(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    each = pick(rng, [*graph.input, *graph.output, *graph.value_info])
    if each is None:
        return
    shape = each.type.tensor_type.shape
    kind = rng.choice(("number", "name", "rank", "empty", "none"))
    if kind in {"number", "name"} and shape.dim:
        place = shape.dim[rng.randrange(len(shape.dim))]
        if kind == "number":
            place.dim_value = rng.choice(NUMBERS)
        else:
            place.dim_param = rng.choice(("batch", *NAMES))
    elif kind == "rank":
        for _ in range(rng.choice((1, 3, 200))):
            shape.dim.add().dim_value = rng.choice((1, 2, 3))
    elif kind == "empty":
        del shape.dim[:]
    else:
        each.type.tensor_type.ClearField("shape")


# The model


@mutation
def versions(rng: Random, model: ModelProto) -> None:
    if rng.random() < 0.3:
        model.ir_version = rng.choice((0, 1, 3, 4, 99, 2**62, -1))
    elif model.opset_import:
        rng.choice(model.opset_import).version = rng.choice(
            (0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 21, 24, 99, -1, 2**62)
        )


@mutation
def domains(rng: Random, model: ModelProto) -> None:
    kind = rng.randrange(3)
    if kind == 0:
        del model.opset_import[:]
    elif kind == 1 and model.opset_import:
        rng.choice(model.opset_import).domain = rng.choice(("", "ai.onnx", "nowhere", *NAMES))
    else:
        model.opset_import.add(domain=rng.choice(("", "ai.onnx", "com.microsoft")), version=rng.choice((1, 7, 13, 18)))


@mutation
def properties(rng: Random, model: ModelProto) -> None:
    model.metadata_props.add(key=rng.choice(NAMES), value=rng.choice(NAMES))
    model.metadata_props.add(key="same", value="1")
    model.metadata_props.add(key="same", value="2")
    model.doc_string = rng.choice(NAMES)
    model.graph.name = rng.choice(NAMES)


@mutation
def no_graph(rng: Random, model: ModelProto) -> None:
    model.ClearField("graph")
