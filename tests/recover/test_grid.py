"""Weights that are stored as codes: what is written is on their grid, and is fitted all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune as gp
from graphprune.fidelity import Fidelity
from graphprune.layers import layers
from graphprune.recover.grid import Grid, grid_of
from tests.recover.networks import data, model

LAYERS = (("a", 12, 3), ("b", 12, 12), ("c", 6, 12))


def quantised(kind: str = "channel", bits: int = 8, zero: bool = False, biases: bool = True) -> ir.Model:
    """Three convolutions with ReLUs between them, their weights behind DequantizeLinear."""
    rng, nodes, tensors, last = np.random.default_rng(0), [], [], "x"
    for name, outputs, inputs in LAYERS:
        weight = rng.standard_normal((outputs, inputs, 3, 3)) / np.sqrt(9 * inputs)
        most = (1 << (bits - 1)) - 1
        peak = np.abs(weight).max(axis=(1, 2, 3)) if kind == "channel" else np.abs(weight).max()
        scale = np.float32(peak / most)
        codes = np.clip(np.rint(weight / np.reshape(scale, (-1, 1, 1, 1))), -most, most)
        offset = 128 if zero else 0
        tensors.append(numpy_helper.from_array((codes + offset).astype(np.uint8 if zero else np.int8), f"{name}.q"))
        tensors.append(numpy_helper.from_array(scale, f"{name}.s"))
        at = [f"{name}.q", f"{name}.s"]
        if zero:
            points = np.full(np.shape(scale), offset, np.uint8)
            tensors.append(numpy_helper.from_array(points, f"{name}.z"))
            at.append(f"{name}.z")
        nodes.append(helper.make_node("DequantizeLinear", at, [f"{name}.w"], axis=0))
        given = [last, f"{name}.w"]
        if biases:
            own = np.float32(scale * 0.01)
            tensors.append(
                numpy_helper.from_array(
                    np.rint(0.3 * rng.standard_normal(outputs) / own).astype(np.int32), f"{name}.bq"
                )
            )
            tensors.append(numpy_helper.from_array(own, f"{name}.bs"))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}.bq", f"{name}.bs"], [f"{name}.b"], axis=0))
            given.append(f"{name}.b")
        made = f"{name}.y" if name != "c" else "y"
        nodes.append(helper.make_node("Conv", given, [made], pads=[1, 1, 1, 1]))
        last = f"{name}.r"
        if name != "c":
            nodes.append(helper.make_node("Relu", [made], [last]))
    return model(nodes, tensors, ("n", 3, 8, 8))


def codes_of(made: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in made.graph.initializers.items()}


KINDS: dict[str, dict[str, Any]] = {
    "per channel": {}, "per tensor": {"kind": "tensor"}, "unsigned": {"zero": True}, "no biases": {"biases": False},
}  # fmt: skip


@pytest.mark.parametrize("recover", ["least_squares", "mask_tuning", "gauss_newton"])
@pytest.mark.parametrize("case", KINDS)
def test_codes_are_fitted(case: str, recover: str) -> None:
    dense = quantised(**KINDS[case])
    options: dict[str, Any] = {"macs": 0.5, "criterion": "l1", "calibration": data()}
    plain = gp.prune(dense, **options)
    better = gp.prune(dense, **options, recover=recover)
    assert better.plan.groups == plain.plan.groups
    fidelity = Fidelity(gp.analyze(dense), data(3, seed=7))
    before, after = (fidelity.error(fidelity.outputs(each.model)) for each in (plain, better))
    assert after < (0.95 if recover == "mask_tuning" else 0.5) * before
    old, new = codes_of(plain.model), codes_of(better.model)
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert {"b.q", "c.q"} <= changed <= {"a.q", "b.q", "c.q", "a.bq", "b.bq", "c.bq"}
    for name in changed:
        assert new[name].dtype == old[name].dtype
    assert "GP705 it has no weight of its own" not in str(better.report)


def test_the_error_that_is_told_is_that_of_the_codes() -> None:
    """Held-out data judges what is stored: on a grid of three numbers nothing is better than what was there."""
    fine, coarse = (
        gp.prune(
            quantised(bits=bits, biases=False), macs=0.5, criterion="l1", calibration=data(), recover="least_squares"
        )
        for bits in (8, 2)
    )
    assert "2 of 2 fits applied" in str(fine.report)
    for made in (fine, coarse):
        for name, numbers in codes_of(made.model).items():
            if name.endswith(".q"):
                assert np.abs(numbers.astype(int)).max() <= (127 if made is fine else 1)
    fidelity = Fidelity(gp.analyze(quantised(bits=2, biases=False)), data(3, seed=7))
    plain = gp.prune(quantised(bits=2, biases=False), macs=0.5, criterion="l1", calibration=data())
    errors = [fidelity.error(fidelity.outputs(each.model)) for each in (plain, coarse)]
    assert errors[1] <= 1.05 * errors[0]


def test_the_nearest_code_within_the_range_of_the_layer() -> None:
    analysis = gp.analyze(quantised(zero=True))
    first = layers(analysis)[0]
    grid = grid_of(analysis, first.weight)
    assert grid is not None and first.stored is None
    codes = grid.stored.read()
    floats = grid.floats(codes)
    constant = np.asarray(analysis.program.dialect.constant(first.weight))
    np.testing.assert_allclose(floats, constant, rtol=1e-6)
    assert np.array_equal(grid.codes(floats), codes)
    step = np.broadcast_to(grid.scale, codes.shape)
    moved = np.clip(floats + 0.4 * step, -grid.most * step, grid.most * step)
    assert np.array_equal(grid.codes(moved), codes)
    assert not np.array_equal(grid.codes(floats + 0.6 * step), codes)
    assert int(grid.codes(np.full_like(floats, 1e6)).max()) == 128 + grid.most
    assert int(grid.codes(np.full_like(floats, -1e6)).min()) == 128 - grid.most
    few = replace(grid, most=3)
    assert np.abs(few.codes(floats).astype(int) - 128).max() == 3


def test_what_is_shared_or_computed_has_no_grid() -> None:
    made = quantised(biases=False)
    analysis = gp.analyze(made)
    assert all(isinstance(grid_of(analysis, layer.weight), Grid) for layer in layers(analysis))
    assert grid_of(analysis, layers(analysis)[1].activation) is None
    shared = ir.to_proto(made)
    shared.graph.node.append(helper.make_node("Cast", ["b.q"], ["seen"], to=TensorProto.FLOAT))
    shared.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))
    analysis = gp.analyze(ir.from_proto(shared))
    found = {layer.name: grid_of(analysis, layer.weight) for layer in layers(analysis)}
    assert found["b.w"] is None and found["c.w"] is not None
