"""The test cases that the onnx package ships for implementers of ONNX: one small model with inputs each.

May import onnx and numpy. Must never import graphprune.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

# What is run as files ship it; "real" models are listed there but have to be fetched.
FILES = ("simple", "pytorch-operator", "pytorch-converted")


@dataclass(frozen=True, eq=False)
class Case:
    """One model with concrete inputs by name and the outputs it must have. ``operator`` is what the case is about: the
    operator of a single node (of which an expanded case holds the function body), else the name of the collection."""

    name: str
    operator: str
    model: onnx.ModelProto = field(repr=False)
    inputs: dict[str, Any] = field(repr=False)
    outputs: list[Any] = field(repr=False)

    @property
    def single(self) -> bool:
        """Whether the model is the operator and nothing else."""
        return len(self.model.graph.node) == 1 and self.model.graph.node[0].op_type == self.operator


@functools.cache
def node_cases() -> dict[str, list[Case]]:
    """The cases of single operators, by operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow and divide by zero on purpose
        tests = load_model_tests(kind="node")
    single = {test.name: _main_operator(test.model) for test in tests if "_expanded" not in test.name}
    found: dict[str, list[Case]] = {}
    for test in tests:
        operator = single.get(test.name.partition("_expanded")[0]) or _main_operator(test.model)
        names = [value.name for value in test.model.graph.input]
        inputs = dict(zip(names, map(_array, test.data_sets[0][0]), strict=False))
        outputs = [_array(value) for value in test.data_sets[0][1]]
        found.setdefault(operator, []).append(Case(test.name, operator, test.model, inputs, outputs))
    return dict(sorted(found.items()))


def _main_operator(model: onnx.ModelProto) -> str:
    """The operator that a case is about: the one that is no constant; of several the first."""
    names = [node.op_type for node in model.graph.node if node.op_type != "Constant"]
    return names[0] if names else "Constant"


@functools.cache
def file_cases(kind: str) -> list[Case]:
    """The cases of one collection of files."""
    found = []
    for test in load_model_tests(kind=kind):
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        stored = {tensor.name for tensor in model.graph.initializer}
        values = [value for value in model.graph.input if value.name not in stored]
        inputs = {value.name: _read(folder, "input", place, value) for place, value in enumerate(values)}
        outputs = [_read(folder, "output", place, value) for place, value in enumerate(model.graph.output)]
        found.append(Case(test.name, kind, model, inputs, outputs))
    return found


def _read(folder: Path, kind: str, place: int, value: onnx.ValueInfoProto) -> Any:
    content = (folder / "test_data_set_0" / f"{kind}_{place}.pb").read_bytes()
    if value.type.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))


def _array(value: Any) -> Any:
    """Tensors as arrays; sequences and absent optionals stay what they are."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value
