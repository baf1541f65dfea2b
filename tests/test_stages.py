"""Models in stages: the same results as in one go, stops where asked, weights that change on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.analysis import Analysis
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.layers import layers
from tests import execution
from tests.models import CASES

# Models without a weight contraction in their main graph have nothing to stop at, which is a case of its own.
NAMES = sorted(CASES)


@pytest.mark.parametrize("name", NAMES)
def test_stages_compute_what_the_model_computes(name: str) -> None:
    proto = CASES[name].build()
    expected = execution.session(proto).run(None, feeds := execution.feeds(proto))
    analysis = gp.analyze(ir.from_proto(proto))
    found = layers(analysis)
    staged = tools_of(analysis.program.native).staged(
        analysis.program, [layer.node for layer in found], [layer.result for layer in found]
    )
    state = staged.begin(feeds)
    for layer in found:
        staged.step(state)
        assert staged.read(state, layer.activation).size
    staged.step(state)
    for layer in found:
        assert np.isfinite(staged.read(state, layer.result)).all()
    for a, b in zip(expected, staged.outputs(state), strict=True):
        assert np.allclose(a, b, atol=1e-4)


def test_weights_beside_the_file_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = CASES["residual"].build() if "residual" in CASES else CASES["squeeze_excite"].build()
    ir.save(ir.from_proto(proto), tmp_path / "model.onnx", external_data="model.data", size_threshold_bytes=0)
    monkeypatch.chdir(tmp_path.parent)
    analysis = gp.analyze(gp.load(tmp_path / "model.onnx"))
    assert any(
        isinstance(each.const_value, ir.ExternalTensor) for each in analysis.program.native.graph.initializers.values()
    )
    staged = tools_of(analysis.program.native).staged(analysis.program, [layers(analysis)[-1].node])
    state = staged.begin(execution.feeds(proto))
    for _ in range(staged.stages):
        staged.step(state)
    expected = execution.session(proto).run(None, execution.feeds(proto))
    assert np.allclose(staged.outputs(state)[0], expected[0], atol=1e-4)


def two_layers() -> tuple[Analysis, dict[str, np.ndarray]]:
    proto = CASES["residual"].build() if "residual" in CASES else CASES["squeeze_excite"].build()
    return gp.analyze(ir.from_proto(proto)), execution.feeds(proto)


def test_a_weight_that_is_written_counts_from_then_on_and_the_model_is_not_changed() -> None:
    analysis, feeds = two_layers()
    native = analysis.program.native
    before = tools_of(native).runner(native)(feeds)
    found = [layer for layer in layers(analysis) if layer.stored is not None]
    staged = tools_of(native).staged(analysis.program, [found[-1].node])
    state = staged.begin(feeds)
    staged.step(state)
    fork = staged.fork(state)
    staged.step(state)
    stored = found[-1].stored
    assert stored is not None
    new = stored.read() * 2
    staged.write(stored, new)
    staged.step(fork)
    changed = [not np.allclose(a, b) for a, b in zip(staged.outputs(state), staged.outputs(fork), strict=True)]
    assert any(changed)
    assert all(
        np.allclose(a, b, atol=1e-5) for a, b in zip(before, tools_of(native).runner(native)(feeds), strict=True)
    )
    written = tools_of(native).with_stored(analysis.program, {stored.name: new})
    for a, b in zip(tools_of(native).runner(written)(feeds), staged.outputs(fork), strict=True):
        assert np.allclose(a, b, atol=1e-4)


def test_what_is_not_known_yet_cannot_be_read() -> None:
    analysis, feeds = two_layers()
    found = layers(analysis)
    staged = tools_of(analysis.program.native).staged(analysis.program, [found[0].node], [found[-1].result])
    state = staged.begin(feeds)
    staged.step(state)
    with pytest.raises(GraphPruneError, match="GP402"):
        staged.read(state, found[-1].result)
