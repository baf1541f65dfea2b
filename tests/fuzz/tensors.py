"""Mutations of stored tensors: shapes, data, types, the places of external data, and nodes that ask for much memory.

See message.py for what a mutation is. May import onnx and numpy; must not import graphprune.
"""

from __future__ import annotations

from random import Random

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from .message import NUMBERS, graphs, mutation, nodes, pick

# What stands beside the model in its folder and outside of it is up to harness.py.
PLACES = (
    "../secret", "/etc/passwd", "sub/../../secret", "link", "sub", "data", "./data", "nowhere", "", "data\0", "..", ".",
    "../model/data", "model.onnx", "~/secret", "file:///etc/passwd", "x" * 5000, "dangling", "pipe", "/dev/zero",
)  # fmt: skip


def stored(model: ModelProto) -> list[TensorProto]:
    """All stored tensors, in initializers and in attributes."""
    found = [tensor for graph in graphs(model) for tensor in graph.initializer]
    return found + [each.t for node in nodes(model) for each in node.attribute if each.type == AttributeProto.TENSOR]


@mutation
def tensor_dropped(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    if graph.initializer:
        del graph.initializer[rng.randrange(len(graph.initializer))]


@mutation
def tensors_all_dropped(rng: Random, model: ModelProto) -> None:
    del rng.choice(graphs(model)).initializer[:]


@mutation
def tensor_twice(rng: Random, model: ModelProto) -> None:
    graph = rng.choice(graphs(model))
    if graph.initializer:
        graph.initializer.add().CopyFrom(rng.choice(graph.initializer))


@mutation
def tensor_size(rng: Random, model: ModelProto) -> None:
    """An absurd size that the data does not fit."""
    tensor = pick(rng, [each for each in stored(model) if each.dims])
    if tensor is not None:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)


@mutation
def tensor_huge_and_empty(rng: Random, model: ModelProto) -> None:
    """Sizes whose product is zero, or overflows 64 bits to what fits."""
    tensor = pick(rng, stored(model))
    if tensor is not None:
        dims = rng.choice(([0, 2**62], [2**40, 0, 2**40], [2**32, 2**32], [-1, -1], [0], [2**63 - 1, 2**63 - 1]))
        kind, name = tensor.data_type, tensor.name
        tensor.Clear()
        tensor.name, tensor.data_type = name, kind
        tensor.dims.extend(dims)
        tensor.raw_data = b""


@mutation
def tensor_refitted(rng: Random, model: ModelProto) -> None:
    """Another shape that the same data does fit: a wrong rank or a wrong size, in a tensor that is whole."""
    tensor = pick(rng, stored(model))
    if tensor is None:
        return
    dims = list(tensor.dims)
    kind = rng.randrange(5)
    if kind == 0:
        dims = [*dims, 1]
    elif kind == 1:
        dims = [1, *dims]
    elif kind == 2:
        dims = [int(np.prod(dims, dtype=object))]
    elif kind == 3:
        rng.shuffle(dims)
    elif dims:
        dims = [*dims[:-2], int(np.prod(dims[-2:], dtype=object))]
    del tensor.dims[:]
    tensor.dims.extend(dims)


@mutation
def tensor_resized(rng: Random, model: ModelProto) -> None:
    """One axis is really longer, shorter or empty, with data to match."""
    floats = [each for each in stored(model) if each.dims and each.data_type == TensorProto.FLOAT]
    tensor = pick(rng, [each for each in floats if each.data_location != TensorProto.EXTERNAL])
    if tensor is None:
        return
    array = numpy_helper.to_array(tensor)
    axis = rng.randrange(array.ndim)
    size = rng.choice((0, 1, max(0, array.shape[axis] - 1), array.shape[axis] + 1, array.shape[axis] * 2))
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(np.resize(array, [*array.shape[:axis], size, *array.shape[axis + 1 :]])))
    tensor.name = name


@mutation
def tensor_numbers(rng: Random, model: ModelProto) -> None:
    """Weights that are not numbers, infinite, denormal; sizes in stored integers that are absurd."""
    tensor = pick(rng, stored(model))
    if tensor is None or tensor.data_type not in {TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32}:
        return
    array = numpy_helper.to_array(tensor).copy()
    if not array.size:
        return
    place = rng.randrange(array.size)
    if array.dtype == np.float32:
        array.flat[place] = rng.choice((np.nan, np.inf, -np.inf, 1e-45, 3e38))
        if rng.random() < 0.3:
            array[...] = rng.choice((np.nan, np.inf, 0.0, -0.0, 3e38))
    else:
        limits = np.iinfo(array.dtype)
        array.flat[place] = min(max(rng.choice(NUMBERS), limits.min), limits.max)
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(array))
    tensor.name = name


@mutation
def tensor_type(rng: Random, model: ModelProto) -> None:
    tensor = pick(rng, stored(model))
    if tensor is not None:
        tensor.data_type = rng.choice((*range(0, 28), 99, -1, 2**31 - 1))


@mutation
def tensor_of_text(rng: Random, model: ModelProto) -> None:
    tensor = pick(rng, stored(model))
    if tensor is not None:
        count = min(1000, max(0, int(np.prod(tensor.dims, dtype=object))))
        name, dims = tensor.name, list(tensor.dims)
        tensor.Clear()
        tensor.name, tensor.data_type = name, TensorProto.STRING
        tensor.dims.extend(dims)
        tensor.string_data.extend([rng.choice((b"text", b"\xff", b""))] * count)


@mutation
def tensor_integers(rng: Random, model: ModelProto) -> None:
    """A weight of another type, whole: integers, halves, booleans where floats were."""
    tensor = pick(rng, [each for each in stored(model) if each.data_type == TensorProto.FLOAT])
    if tensor is not None:
        kind = rng.choice((np.int64, np.int8, np.float16, np.float64, np.bool_, np.complex64, np.uint32))
        name = tensor.name
        array = np.clip(np.nan_to_num(numpy_helper.to_array(tensor)), 0, 100)
        tensor.CopyFrom(numpy_helper.from_array(array.astype(kind)))
        tensor.name = name


@mutation
def tensor_data_length(rng: Random, model: ModelProto) -> None:
    tensor = pick(rng, [each for each in stored(model) if each.raw_data])
    if tensor is not None:
        data = tensor.raw_data
        tensor.raw_data = rng.choice((b"", data[:-1], data + b"\0", data[: len(data) // 2], data * 2))


@mutation
def tensor_data_in_both_places(rng: Random, model: ModelProto) -> None:
    tensor = pick(rng, stored(model))
    if tensor is not None:
        getattr(tensor, rng.choice(("float_data", "int32_data", "double_data"))).extend([1] * rng.choice((1, 5)))
        getattr(tensor, rng.choice(("int64_data", "uint64_data"))).extend([7])


@mutation
def tensor_in_fields(rng: Random, model: ModelProto) -> None:
    """The same numbers, not as bytes: the legal alternative."""
    tensor = pick(rng, [each for each in stored(model) if each.data_type == TensorProto.FLOAT and each.raw_data])
    if tensor is not None and len(tensor.raw_data) % 4 == 0:
        numbers = np.frombuffer(tensor.raw_data, np.float32).tolist()
        tensor.ClearField("raw_data")
        tensor.float_data.extend(numbers)


@mutation
def tensor_external(rng: Random, model: ModelProto) -> None:
    tensor = pick(rng, stored(model))
    if tensor is None:
        return
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=rng.choice(PLACES))
    for key in rng.sample(("offset", "length", "checksum", "basepath", "__class__", "location", "offset"), k=2):
        tensor.external_data.add(key=key, value=rng.choice(("0", "4", "-1", "many", "1e3", str(2**63), "data", "")))


@mutation
def tensor_sparse(rng: Random, model: ModelProto) -> None:
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("places", TensorProto.INT64, [1], [rng.choice((0, 5, 2**40, -1))])
    sparse = helper.make_sparse_tensor(values, indices, [rng.choice((4, 2**40, -1))])
    if rng.random() < 0.5:
        model.graph.sparse_initializer.append(sparse)
    else:
        model.graph.node.add(op_type="Constant", output=["sparse_constant"]).attribute.append(
            helper.make_attribute("sparse_value", sparse)
        )


@mutation
def tensor_in_segments(rng: Random, model: ModelProto) -> None:
    tensor = pick(rng, stored(model))
    if tensor is not None:
        tensor.segment.begin, tensor.segment.end = rng.choice(NUMBERS), rng.choice(NUMBERS)


@mutation
def node_asking_for_memory(rng: Random, model: ModelProto) -> None:
    """A few bytes of file that stand for terabytes of tensor, joined to a value of the model."""
    many = rng.choice((2**20, 2**40, 2**62))
    vector = numpy_helper.from_array(np.array([many, 8], np.int64), "many")
    scalars = [
        numpy_helper.from_array(np.array(n, np.int64), name) for n, name in ((0, "zero"), (many, "far"), (1, "one"))
    ]
    model.graph.initializer.extend([vector, *scalars])
    kinds = {
        "ConstantOfShape": ["many"],
        "Range": ["zero", "far", "one"],
        "Tile": ["one_vector", "many"],
        "Expand": ["one", "many"],
        "EyeLike": ["many"],
        "OneHot": ["zero", "far", "many"],
        "Pad": ["many", "many"],
    }
    kind = rng.choice(list(kinds))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1), np.float32), "one_vector"))
    made = helper.make_node(kind, kinds[kind], ["huge"])
    target = pick(rng, [each for each in model.graph.node if each.input])
    model.graph.node.insert(0, made)
    if target is not None and rng.random() < 0.8:
        target.input[rng.randrange(len(target.input))] = "huge"
    else:
        model.graph.output.add(name="huge")


@mutation
def constant_emptied(rng: Random, model: ModelProto) -> None:
    """A Constant without a value, with two, or with numbers in place of a tensor."""
    node = pick(rng, [each for each in nodes(model) if each.op_type == "Constant"])
    if node is None:
        return
    kind = rng.randrange(3)
    if kind < 2:
        del node.attribute[:]
    if kind:
        name, value = rng.choice(
            (("value_ints", [1, -1]), ("value_float", 1.0), ("value_string", b"\xff"), ("value_int", 2**62))
        )
        node.attribute.append(helper.make_attribute(name, value))
