"""What a group is worth alone: errors and savings as a cut by hand has them, the most sensitive group first."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.cli import main
from graphprune.errors import GraphPruneError
from graphprune.sensitivity import sensitivity
from tests.models.case import seeded

DATA = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)


def dense() -> onnx.ModelProto:
    """Two branches; the second one hardly counts."""
    model = seeded("""
    branches (float[batch, 6] x) => (float[batch, 3] y)
    <float[6, 16] "first", float[16, 3] "second", float[6, 8] "third", float[8, 3] "fourth", float small = {0.01}>
    {
        a = MatMul(x, "first")
        b = Relu(a)
        c = MatMul(b, "second")
        d = MatMul(x, "third")
        e = Relu(d)
        f = MatMul(e, "fourth")
        g = Mul(f, small)
        y = Add(c, g)
    }""")
    return model


def test_errors_and_savings_are_those_of_a_cut_by_hand() -> None:
    analysis = gp.analyze(ir.from_proto(dense()))
    rows = sensitivity(analysis, calibration=DATA, criterion="l1")
    assert [row.size for row in rows] == [16, 8]
    assert rows[0].errors[0.25] < rows[0].errors[0.5] < rows[0].errors[0.75]
    arrays = {each.name: each.read() for each in analysis.program.stored}
    x = DATA.astype(np.float64)
    hidden, rest = np.maximum(x @ arrays["first"], 0), np.maximum(x @ arrays["third"], 0) @ arrays["fourth"] * 0.01
    y = hidden @ arrays["second"] + rest
    plan = gp.plan(analysis, ratio=0.5, criterion="l1", only=["first"])
    kept = np.array(next(each.keep for each in plan.groups if each.size == 16))
    other = hidden[:, kept] @ arrays["second"][kept] + rest
    assert rows[0].errors[0.5] == pytest.approx(np.square(other - y).sum() / np.square(y).sum(), rel=1e-4)
    assert rows[0].saved[0.5] == pytest.approx(8 * 9 / (24 * 9))


def test_what_is_too_small_is_not_measured() -> None:
    analysis = gp.analyze(ir.from_proto(dense()))
    rows = sensitivity(analysis, calibration=DATA, shares=(0.01,))
    assert all(math.isnan(row.errors[0.01]) and row.saved[0.01] == 0 for row in rows)


def test_what_goes_wrong() -> None:
    model = ir.from_proto(dense())
    for options, code in [({"shares": (1.0,)}, "GP107"), ({"calibration": None}, "GP704"), ({"only": ["x"]}, "GP106")]:
        with pytest.raises(GraphPruneError) as caught:
            sensitivity(model, **{"calibration": DATA, **options})  # type: ignore[arg-type]
        assert caught.value.code == code


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(dense(), tmp_path / "dense.onnx")
    np.save(tmp_path / "data.npy", DATA)
    monkeypatch.chdir(tmp_path)
    line = ["sensitivity", "dense.onnx", "--calibration", "data.npy"]
    assert main(line) == 0
    found = capsys.readouterr()
    assert found.out.split()[:4] == ["group", "size", "-25%:", "error"] and "[2/2]" in found.err
    assert main([*line, "--json", "--criterion", "wanda", "-q"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [each["share"] for each in rows[0]["removed"]] == [0.25, 0.5, 0.75]
    assert main(["sensitivity", "dense.onnx"]) == 2
    assert "GP704" in capsys.readouterr().err
