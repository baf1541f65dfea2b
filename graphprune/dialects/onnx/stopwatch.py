"""Times layers and networks with onnxruntime, for tables of latencies.

A layer is a model of one node. onnxruntime says itself how long its kernel took: what it does around it, such as
bringing numbers into the layout of its convolutions and back, happens once for many layers in a network. But a
convolution of few channels, or of a number that is no multiple of four, wants them back before every layer. So one that
reads images is fed by another, and what is done between the two is its own.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir import serde

from graphprune.dialects.onnx.runner import DYNAMIC_SIZES, cannot_run, feeds, onnxruntime_failures, session_of
from graphprune.errors import GraphPruneError
from graphprune.latency.layers import Layer
from graphprune.latency.stopwatch import Run, clock_of, machine_of, usual
from graphprune.program import Array, Program, Value

_AROUND = frozenset({"ReorderInput", "ReorderOutput"})
_FED, _FEEDING = "x", "feeding"
_LEAST_RUNS, _MOST_RUNS = 5, 100


class OnnxStopwatch:
    """See :class:`graphprune.latency.stopwatch.Stopwatch`. Raises GraphPruneError GP108 without onnxruntime."""

    def __init__(self, program: Program, threads: int | None, seed: int, sizes: Mapping[str, int]):
        try:
            import onnxruntime
        except ImportError as error:
            remedy = "pip install 'graphprune[ort]', or give a table that was measured elsewhere"
            raise GraphPruneError("GP108", "measuring latency needs onnxruntime", "", remedy) from error
        self.model: ir.Model = program.native
        self.is_constant = program.dialect.is_constant
        self.threads = threads
        self.seed = seed
        self.sizes = sizes
        self.clock = clock_of(threads)
        self.machine = machine_of(f"onnxruntime {onnxruntime.__version__}", threads)

    # ---------------------------------------------------------------- networks
    def network(self, model: ir.Model) -> Run:
        """Dynamic sizes that nobody gave are 1, or the first that runs."""
        session = session_of(model, self._options())
        failure: Exception | None = None
        for dynamic in (1, *DYNAMIC_SIZES):
            inputs = feeds(model, self.seed, self.sizes, dynamic)
            try:
                session.run(None, inputs)
            except onnxruntime_failures() as error:
                failure = failure or error
            else:
                return partial(session.run, None, inputs)
        raise cannot_run(failure, str(model.graph.name))

    def _options(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = self.threads or 0
        return options

    # ---------------------------------------------------------------- layers
    def layers(self, layers: Sequence[Layer], seconds: float) -> list[float]:
        """Their kernels alone."""
        ends = time.perf_counter() + seconds
        with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
            found = [self._prepared(layer, str(Path(folder, str(place)))) for place, layer in enumerate(layers)]
            for round_ in range(_MOST_RUNS):
                if round_ >= _LEAST_RUNS and time.perf_counter() > ends:
                    break
                for layer, (session, inputs) in zip(layers, found, strict=True):
                    try:
                        session.run(None, inputs)
                    except onnxruntime_failures() as error:
                        raise cannot_run(error, str(layer.node)) from error
            return [_kernel_seconds(session.end_profiling(), _FED in inputs) for session, inputs in found]

    def _prepared(self, layer: Layer, profile: str) -> tuple[Any, dict[str, Array]]:
        """A session of the layer, and what it is fed."""
        node = serde.serialize_node(layer.node.native)
        _write_numbers(node, layer)
        nodes, weights, inputs = [node], [], {}
        for place, (value, shape) in enumerate(zip(layer.node.inputs, layer.shapes, strict=True)):
            node.input[place] = "" if value is None else f"x{place}"
            if value is None or shape is None:
                continue
            array = _numbers(value, shape)
            if self.is_constant(value):
                weights.append(serde.serialize_tensor(ir.Tensor(array, name=f"x{place}")))
            elif _is_fed(layer, place):
                feeding = np.ones((shape[1], 1, 1, 1), array.dtype)
                nodes.insert(0, onnx.helper.make_node("Conv", [_FED, _FEEDING], ["x0"], _FEEDING))
                weights.append(serde.serialize_tensor(ir.Tensor(feeding, name=_FEEDING)))
                inputs[_FED] = array[:, :1]
            else:
                inputs[f"x{place}"] = array
        for place, _ in enumerate(node.output):
            node.output[place] = f"y{place}" if node.output[place] else ""
        given = [
            onnx.helper.make_tensor_value_info(name, serde.serialize_tensor(ir.Tensor(each)).data_type, each.shape)
            for name, each in inputs.items()
        ]
        made = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = onnx.helper.make_graph(nodes, "layer", given, made, weights)
        imports = [onnx.helper.make_opsetid(domain, number) for domain, number in self.model.opset_imports.items()]
        model = onnx.helper.make_model(graph, opset_imports=imports)
        model.ir_version = max(8, self.model.ir_version)
        return self._session(model.SerializeToString(), profile, str(layer.node)), inputs

    def _session(self, content: bytes, profile: str, where: str) -> Any:
        import onnxruntime

        options = self._options()
        options.enable_profiling = True
        options.profile_file_prefix = profile
        # Many sessions take turns: threads that go on waiting for one would take the time of the next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except onnxruntime_failures() as error:
            raise cannot_run(error, where) from error


def _write_numbers(node: onnx.NodeProto, layer: Layer) -> None:
    changed = {str(slot.key) for slot in layer.numbers}
    for attribute in node.attribute:
        if attribute.name in changed:
            attribute.CopyFrom(onnx.helper.make_attribute(attribute.name, layer.attributes[attribute.name]))


def _numbers(value: Value, shape: tuple[int, ...]) -> Array:
    """The first numbers of a stored tensor; elsewhere such as are not denormal."""
    stored = value.stored
    if stored is not None and not stored.empty:
        return np.ascontiguousarray(stored.read()[tuple(map(slice, shape))])
    kind = ir.DataType[(stored.dtype if stored is not None else value.dtype).upper()].numpy()
    return np.full(shape, 0.5 if kind.kind not in "iub" else 1, kind)


def _is_fed(layer: Layer, place: int) -> bool:
    """Whether it is a convolution of images that others made."""
    value, shape = layer.node.inputs[place], layer.shapes[place]
    fed = layer.node.op == "Conv" and place == 0 and value is not None and value.producer is not None
    return fed and shape is not None and len(shape) == 4


def _kernel_seconds(path: str, fed: bool) -> float:
    """What the kernels of one run take, from what onnxruntime wrote about all runs: without the layouts that inputs and
    outputs of the model have, and the kernel that feeds the layer."""
    events = json.loads(Path(path).read_text(encoding="utf-8"))
    runs: list[list[tuple[str, float]]] = []
    # Times are whole microseconds: a run and its first kernel may begin at the same one.
    for event in sorted(events, key=lambda event: (event["ts"], event.get("name") != "model_run")):
        name = str(event.get("name", ""))
        if name == "model_run":
            runs.append([])
        elif name.endswith("_kernel_time") and runs:
            runs[-1].append((event["args"].get("op_name"), event["dur"]))
    return usual([_between(kernels, fed) for kernels in runs[1:]]) * 1e-6


def _between(kernels: Sequence[tuple[str, float]], fed: bool) -> float:
    """
    >>> _between([("ReorderInput", 1), ("Conv", 2), ("ReorderOutput", 4), ("Conv", 8), ("ReorderOutput", 16)], True)
    12
    """
    own = [place for place, (name, _) in enumerate(kernels) if name not in _AROUND]
    first = own[0] + 1 if fed else own[0]
    return sum(taken for _, taken in kernels[first : own[-1] + 1])
