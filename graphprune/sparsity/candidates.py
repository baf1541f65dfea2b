"""Which layers of a network get zeros, and for the others the code and the reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from graphprune.analysis import Analysis
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.formats.format import Format
from graphprune.layers import Layer, layers
from graphprune.program import Contraction, Node, Value

_FEW = 4
"""Channels of an image or a recording: a first convolution of more has weights enough to lose some."""


@dataclass(frozen=True)
class LeftDense:
    """A layer that gets no zeros: its weight, the code of the reason, and the reason."""

    name: str
    code: str
    reason: str


def candidates(
    analysis: Analysis, format: Format, only: Sequence[str] = (), ignore: Sequence[str] = ()
) -> tuple[list[Layer], list[LeftDense]]:
    """The layers that get zeros, in running order, and the weights that are left dense.

    only, ignore: patterns of weights or operators; what `only` names is also taken where it would be left on purpose
    Raises GraphPruneError GP106 for a pattern that matches nothing.
    """
    seen = {layer.contraction: layer for layer in layers(analysis)}
    chosen: list[Layer] = []
    left: list[LeftDense] = []
    names = _names(analysis)
    _check_patterns([*only, *ignore], names)
    flow = _Flow(analysis)
    for contraction, (weight, place) in names.items():
        layer = seen.get(contraction)
        named = _matches(only, weight, place)
        if _matches(ignore, weight, place) or (only and not named):
            left.append(LeftDense(weight, "GP211", "it is left alone on request"))
        elif layer is None:
            left.append(LeftDense(weight, "GP803", f"{contraction.node} is not seen as a matrix"))
        elif reason := _unwritable(layer):
            left.append(LeftDense(weight, "GP803", reason))
        elif reason := "" if named else flow.on_purpose(layer):
            left.append(LeftDense(weight, "GP802", reason))
        elif reason := format.misfit(*_sizes(layer)):
            left.append(LeftDense(weight, "GP801", reason))
        else:
            chosen.append(layer)
    order = {node: place for place, node in enumerate(analysis.program.main.nodes)}
    return sorted(chosen, key=lambda layer: order[layer.node]), left


def _sizes(layer: Layer) -> tuple[int, int, int]:
    """Outputs, taps and channels of a group."""
    _, outputs, inputs = layer.shape
    return outputs, layer.taps, inputs // layer.taps


def _names(analysis: Analysis) -> dict[Contraction, tuple[str, str]]:
    """Of every contraction with constant weights, the name of these and the place of the operator."""
    found = {}
    for contraction in analysis.contractions:
        use = contraction.weight
        value = None if use is None else use.node.inputs[use.index]
        if value is not None and analysis.trace.is_constant(value):
            found[contraction] = (value.name, contraction.node.place)
    return found


def _matches(patterns: Sequence[str], weight: str, place: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (weight, place))


def _check_patterns(patterns: Sequence[str], names: dict[Contraction, tuple[str, str]]) -> None:
    for pattern in patterns:
        if not any(_matches([pattern], *each) for each in names.values()):
            what = f"no weight and no operator matches {pattern!r}"
            known = [weight for weight, _ in names.values()]
            raise GraphPruneError("GP106", what, "options only and ignore", did_you_mean(pattern, known))


def _unwritable(layer: Layer) -> str:
    if layer.stored is None:
        return "its weights are shared, computed or quantised"
    if layer.stored.empty:
        return "its weights have no numbers yet"
    if not np.isfinite(layer.stored.read().astype(np.float64)).all():
        return "its weights are not all finite"
    return ""


class _Flow:
    """Where the inputs of the model go, and where its outputs come from."""

    def __init__(self, analysis: Analysis):
        self.constant = analysis.trace.is_constant
        main = analysis.program.main
        self.inputs = {value for value in main.inputs if value.stored is None}
        self.outputs = {value for value in main.outputs if value is not None}
        self.readers = Counter(value for node in main.nodes for value in node.inputs if value is not None)
        self.next = {value: node for node in main.nodes for value in node.inputs if value is not None}
        self.contracting = {contraction.node for contraction in analysis.contractions}

    def on_purpose(self, layer: Layer) -> str:
        """Why a layer is better left dense; empty where nothing speaks against it."""
        groups, outputs, inputs = layer.shape
        if layer.taps > 1 and inputs == layer.taps and groups > 1:
            return f"it is depthwise: {outputs} output and {inputs} weights for each of {groups} inputs"
        if layer.contraction.window and inputs // layer.taps <= _FEW and self._reads_an_input(layer):
            return f"it reads the input of the model, with {inputs} weights for an output"
        if not layer.contraction.window and self._makes_an_output(layer):
            return "it makes an output of the model"
        return ""

    def _reads_an_input(self, layer: Layer) -> bool:
        return all(value in self.inputs for value in self._back(layer.activation))

    def _back(self, value: Value) -> Iterator[Value]:
        """Where a value comes from, through operators of one operand that is not constant."""
        while value.producer is not None and value.producer not in self.contracting:
            before = self._operands(value.producer)
            if len(before) != 1:
                break
            value = before[0]
        yield value

    def _makes_an_output(self, layer: Layer) -> bool:
        value = layer.result
        while value not in self.outputs:
            if self.readers[value] != 1:
                return False
            node = self.next[value]
            if node in self.contracting or len(self._operands(node)) != 1 or not node.outputs:
                return False
            value = node.outputs[0]
        return True

    def _operands(self, node: Node) -> list[Value]:
        """What a node computes with; not the sizes that it is told."""
        values = [value for value in node.inputs if value is not None and not self.constant(value)]
        return [value for value in values if not value.dtype.startswith("int")]
