"""Layers and networks timed with onnxruntime: what is run, and what of it counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphprune.allocate.bounds import bounds
from graphprune.cost import Costing
from graphprune.dialects.onnx import stopwatch
from graphprune.latency.layers import Layer, coarser, shapes_of
from tests.models.case import seeded
from tests.planning import analysed
from tests.test_latency import CONV, MLP

pytest.importorskip("onnxruntime")


def watched(text: str) -> tuple[Any, list[list[Layer]]]:
    """What measures a model on one thread, and its layers at all widths, by node."""
    analysis = analysed(seeded(text))
    allowed = coarser(analysis.groups, bounds(analysis, analysis.groups, align=8))
    shapes = shapes_of(Costing(analysis, {}), analysis.groups, allowed)
    return stopwatch.OnnxStopwatch(analysis.program, 1, 0, {}), [list(shape.layers()) for shape in shapes]


@pytest.mark.parametrize("text", [MLP, CONV])
def test_layers_of_all_kinds_are_timed(text: str) -> None:
    """Real runs: that each can be run by itself, and takes some time."""
    watch, nodes = watched(text)
    for layers in nodes:
        times = watch.layers(layers, 0.01)
        assert len(times) == len(layers)
        assert all(each >= 0 for each in times)
    watch.network(watch.model)()
    assert "1 thread" in watch.machine


def test_convolutions_of_what_others_made_are_fed_by_one(tmp_path: Path) -> None:
    watch, nodes = watched(CONV)
    prepared = [watch._prepared(layers[0], str(tmp_path / "profile")) for layers in nodes]
    assert [list(inputs) for _, inputs in prepared] == [["x0"], ["x"], ["x"]]
    assert [inputs["x"].shape for _, inputs in prepared[1:]] == [(1, 1, 8, 8)] * 2
    for session, inputs in prepared:
        session.run(None, inputs)
        session.end_profiling()


def event(begins: int, takes: int, name: str, operator: str = "") -> dict[str, Any]:
    return {"ts": begins, "dur": takes, "name": name, "args": {"op_name": operator}}


@pytest.mark.parametrize(("fed", "counted"), [(True, 12e-6), (False, 14e-6)])
def test_what_lies_between_two_layers_counts(fed: bool, counted: float, tmp_path: Path) -> None:
    kernels = [("ReorderInput", 1), ("Conv", 2), ("ReorderOutput", 4), ("Conv", 8), ("ReorderOutput", 16)]
    events = []
    for run in range(4):
        events.append(event(100 * run, 60, "model_run"))
        events += [event(100 * run + 2 + k, dur, f"{k}_kernel_time", op) for k, (op, dur) in enumerate(kernels)]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(events))
    assert stopwatch._kernel_seconds(str(path), fed) == pytest.approx(counted)


def test_a_kernel_that_begins_with_its_run_belongs_to_it(tmp_path: Path) -> None:
    """Times are whole microseconds, and onnxruntime writes what ends first before what begins first."""
    events = []
    for run in range(8):
        at = 10 * run
        events += [event(at + run % 2, 3, "node_kernel_time", "Gemm"), event(at, 7, "model_run")]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(events))
    assert stopwatch._kernel_seconds(str(path), False) == pytest.approx(3e-6)
