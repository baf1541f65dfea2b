"""What a build says of quantised networks: the variant for them, and how many steps an output may be off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.runtime import cpu
from graphprune.runtime.artifact import Tensor
from graphprune.targets.building import chosen
from graphprune.targets.checking import Reference, counted
from graphprune.targets.quantised import is_quantised, steps
from graphprune.targets.x86.processors import PROCESSORS
from graphprune.targets.x86.target import X86
from tests.targets.network.net import Net
from tests.targets.network.steps import bias, integers, rounded, weight


def network(scale: float = 0.05) -> onnx.ModelProto:
    net = Net()
    x = rounded(net, net.input(1, 8, 6, 7))
    w, scales = weight(net, integers(net, 12, 8, 3, 3), 0)
    y = rounded(net, net.op("Relu", net.op("Conv", x, w, bias(net, 12, 0.05, scales), pads=[1] * 4)), scale, 0)
    return net.model(net.op("Flatten", y))


def test_only_quantised_networks_get_the_variant_of_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v4")
    assert [each.name for each in chosen(X86(), None)] == ["v4", "v3", "v1"]
    assert [each.name for each in chosen(X86(), None, integers=True)] == ["v4-vnni", "v4", "v3", "v1"]
    assert [each.name for each in chosen(X86(), ["v4-vnni"])] == ["v4-vnni"]
    net = Net()
    assert is_quantised(ir.from_proto(network()))
    assert not is_quantised(ir.from_proto(net.model(net.op("Relu", net.input(3)))))


def test_the_step_of_an_output_is_found_behind_what_moves_it() -> None:
    assert list(steps(ir.from_proto(network(0.25))).values()) == [0.25]
    net = Net()
    x = net.input(3)
    stored = net.op("QuantizeLinear", x, net.constant(0.1, "float32"), net.constant(0, "uint8"))
    assert steps(ir.from_proto(net.model(stored, net.op("Relu", x)))) == {stored: 1.0}


class Shifted:
    """A network that is off by some steps where it is off at all."""

    variant = "v4"

    def __init__(self, reference: Reference, shift: float) -> None:
        self.reference, self.shift = reference, shift

    def session(self) -> Shifted:
        return self

    def run(self, case: Any) -> dict[str, np.ndarray]:
        place = next(index for index, each in enumerate(self.reference.cases) if each is case)
        (output,) = self.reference.expected[place]
        moved = output.copy()
        moved[0, 3] += np.float32(self.shift)
        return {self.reference.names[0]: moved}


def test_two_steps_are_allowed_and_three_are_not() -> None:
    pytest.importorskip("onnxruntime")
    reference = Reference(ir.from_proto(network(0.25)), [Tensor("input1", "float32", (1, 8, 6, 7))], 0)
    found = {}
    for many in (0, 2, 3):
        (row,) = reference.compare(Shifted(reference, 0.25 * many), "float32")  # type: ignore[arg-type]
        found[many] = row["ok"], row["note"]
    assert found[0] == (True, "every number is the same step")
    assert found[2] == (True, "2 of 1008 numbers are off by up to 2 steps")
    assert found[3] == (False, "2 of 1008 numbers are off by up to 3 steps")


def test_twice_what_the_model_differs_from_itself_is_allowed() -> None:
    pytest.importorskip("onnxruntime")
    reference = Reference(ir.from_proto(network(0.25)), [Tensor("input1", "float32", (1, 8, 6, 7))], 0)
    largest = max(float(np.abs(outputs[0]).max()) for outputs in reference.expected)
    assert reference.scatter[0] <= 0.25 / largest * 2
    shifted = Shifted(reference, 5.0)
    for scatter, allowed in ((2.4, False), (2.6, True)):
        reference.scatter = [scatter / largest]
        (row,) = reference.compare(shifted, "float32")  # type: ignore[arg-type]
        assert row["ok"] == allowed
    net = Net()
    plain = Reference(ir.from_proto(net.model(net.op("Relu", net.input(3)))), [Tensor("input1", "float32", (3,))], 0)
    assert plain.scatter == [0.0]


def test_steps_are_counted() -> None:
    zeros, other = np.zeros(5, np.uint8), np.array([0, 0, 1, 0, 4], np.uint8)
    assert counted([zeros], [other], 1.0) == "2 of 5 numbers are off by up to 4 steps"
    assert counted([zeros], [zeros], 1.0) == "every number is the same step"
    assert counted([zeros], [other], None) == "" == counted([zeros], [zeros[:2]], 1.0)


def test_a_build_is_of_integers_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    pytest.importorskip("onnxruntime")
    here = [each.name for each in PROCESSORS if each.runs_on(cpu.cpu()) and each.rounding != "bfloat16"]
    built = gp.build(network(), tmp_path / "model.gp", variants=[here[0], "v1"], tune=0)
    for variant in built.manifest.variants:
        assert any(layer.format == "dense int8" for layer in variant.layers)
        assert not any(layer.fallback for layer in variant.layers)
    assert all(row["note"] == "every number is the same step" for row in built.manifest.verification)
