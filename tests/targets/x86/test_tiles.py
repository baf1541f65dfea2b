"""Variants for processors with AMX, built on any: what is in them, what is said of them, who runs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

pytest.importorskip("tvm")
pytest.importorskip("onnxruntime")

import graphprune as gp
from graphprune.errors import GraphPruneError
from graphprune.runtime import cpu
from tests.targets.kernels import amx
from tests.targets.network.net import Net
from tests.targets.network.steps import integers, rounded, weight


def network(integers_: bool) -> onnx.ModelProto:
    """64 tokens of 64 features, in bfloat16 or in 8 bits."""
    net = Net()
    if not integers_:
        return net.model(net.op("MatMul", net.op("Tanh", net.input(64, 64)), net.weight(64, 64)))
    x, (w, _) = rounded(net, net.input(64, 64)), weight(net, integers(net, 64, 64), 1)
    ends = net.constant(0.1, "float32"), net.constant(0, "uint8")
    return net.model(net.op("QuantizeLinear", net.op("MatMul", x, w), *ends))


@pytest.mark.parametrize(
    ("variant", "precision", "code"), [("v4-amx", "bfloat16", "c4e24a5cc4"), ("v4-amx-int8", "float32", "c4e24a5ec4")]
)
def test_tiles_are_built_for_processors_that_this_one_is_not(
    variant: str, precision: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code is that of `tdpbf16ps` and `tdpbsud` with the tiles 0, 4 and 6. What cannot be run is not compared, and
    the next variant is taken."""
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v4")
    model = network(variant == "v4-amx-int8")
    built = gp.build(model, tmp_path / "model.gp", variants=[variant, "v1"], precision=precision, tune=0)
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


@pytest.mark.skipif(not amx.MACHINES, reason="this processor has no AVX512_BF16")
@pytest.mark.parametrize(("variant", "precision"), [("v4-amx", "bfloat16"), ("v4-amx-int8", "float32")])
def test_on_such_a_processor_they_are_built_and_compared(
    variant: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the features that the operating system tells to the artifact that runs; the instructions are emulated."""
    here = cpu.cpu()
    tiles = {"amx_tile", "amx_bf16", "amx_int8"}
    there = replace(here, features=(here.features or frozenset()) | tiles)
    monkeypatch.setattr(cpu, "_found", lambda: there)
    with amx.emulated(amx.MACHINES[0]):
        built = gp.build(network(variant == "v4-amx-int8"), tmp_path / "model.gp", precision=precision, tune=0)
    rows = {row["variant"]: row["ok"] for row in built.manifest.verification}
    assert next(iter(rows)) == variant and all(rows.values())
    assert built.load().variant == variant
    monkeypatch.setattr(cpu, "_found", lambda: cpu.permitted(there, lambda: False))
    assert built.load().variant in {"v4-bf16", "v4-vnni"}
