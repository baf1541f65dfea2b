"""Variants for processors with AMX, built on any: what is in them, what is said of them, who runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tvm")
pytest.importorskip("onnxruntime")

import graphprune as gp
from graphprune.errors import GraphPruneError
from tests.targets.network.net import Net
from tests.targets.network.steps import integers, rounded, weight


@pytest.mark.parametrize(
    ("variant", "precision", "code"), [("v4-amx", "bfloat16", "c4e24a5cc4"), ("v4-amx-int8", "float32", "c4e24a5ec4")]
)
def test_tiles_are_built_for_processors_that_this_one_is_not(
    variant: str, precision: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code is that of `tdpbf16ps` and `tdpbsud` with the tiles 0, 4 and 6. What cannot be run is not compared, and
    the next variant is taken."""
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v4")
    net = Net()
    if variant == "v4-amx":
        y = net.op("MatMul", net.op("Tanh", net.input(64, 64)), net.weight(64, 64))
    else:
        x, (w, _) = rounded(net, net.input(64, 64)), weight(net, integers(net, 64, 64), 1)
        y = net.op("QuantizeLinear", net.op("MatMul", x, w), net.constant(0.1, "float32"), net.constant(0, "uint8"))
    built = gp.build(net.model(y), tmp_path / "model.gp", variants=[variant, "v1"], precision=precision, tune=0)
    first, last = built.manifest.variants
    assert [layer.kernel for layer in first.layers if layer.kernel.startswith("tiles")] == ["tiles 32x2"]
    assert [layer.format.split()[0] for layer in first.layers if layer.density] == ["dense"]
    assert bytes.fromhex(code) in (built.path / first.library.file).read_bytes()
    assert bytes.fromhex(code) not in (built.path / last.library.file).read_bytes()
    rows = built.manifest.verification
    assert rows[0]["ok"] is None and "amx_int8, amx_tile" in rows[0]["note"] and rows[1]["ok"] is True
    assert built.load().variant == "v1"
    with pytest.raises(GraphPruneError, match=f"GP511 {variant} needs .*amx_tile"):
        built.load(variant=variant)
