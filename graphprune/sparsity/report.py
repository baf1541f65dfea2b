"""What was made sparse, layer by layer, as one table; the same as data for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.codes import CODES
from graphprune.dialects import tools_of
from graphprune.errors import one_line
from graphprune.report import quantity, table, verdict, verification_dict
from graphprune.sparsity.candidates import LeftDense
from graphprune.sparsity.choose import Choice, LayerMask
from graphprune.verify import Verification

_MOST_NAMED = 3


@dataclass(frozen=True)
class SparseLayer:
    """One layer that was made sparse.

    shape:    groups, outputs, taps and channels of its matrices
    sparsity: the share of its weights that are zero now
    nonzeros: the weights that are not
    dense, packed: bytes of its weights, and of what the format stores, indices and counts included
    """

    name: str
    operator: str
    format: str
    shape: tuple[int, ...]
    sparsity: float
    nonzeros: int
    dense: int
    packed: int


@dataclass(frozen=True)
class SparsityReport:
    """The outcome of making one model sparse.

    model:    the file or name of the model
    parameters, nonzeros: of all weights of contractions, the layers that stay dense included; nonzeros before and after
    left:     the layers that stay dense, and why
    verification: the outcome of the checks, None when they were not run
    written:  the files that were written
    notes:    anything else worth a line
    """

    model: str
    layers: tuple[SparseLayer, ...]
    left: tuple[LeftDense, ...]
    parameters: int
    nonzeros: tuple[int, int]
    verification: Verification | None = None
    written: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sparsity(self) -> float:
        """The share of zeros in all stored tensors that are weights of contractions."""
        return 1 - self.nonzeros[1] / max(1, self.parameters)

    def to_text(self) -> str:
        """One table, then what stays dense, what was checked and what was written."""
        lines = [f"{one_line(self.model)}: {len(self.layers)} of {len(self.layers) + len(self.left)} layers sparse", ""]
        heads = ("layer", "format", "matrix", "sparsity", "non-zeros", "dense", "packed")
        lines += table(heads, [*map(_row, self.layers), self._total()], right=(3, 4, 5, 6))
        before, after = self.nonzeros
        change = f"{quantity(before)} -> {quantity(after)}"
        lines += ["", f"non-zeros of all weights: {change}, {self.sparsity:.1%} are zero"]
        lines += ["", "left dense:", *_left_lines(self.left)] if self.left else []
        lines += ["", *map(one_line, self.notes)] if self.notes else []
        lines += ["", verdict(self.verification)] if self.verification is not None else []
        lines += ["", "wrote " + ", ".join(map(one_line, self.written))] if self.written else []
        return "\n".join(lines)

    def _total(self) -> tuple[str, ...]:
        dense, packed = (sum(getattr(each, name) for each in self.layers) for name in ("dense", "packed"))
        weights = sum(int(np.prod(each.shape)) for each in self.layers)
        nonzeros = sum(each.nonzeros for each in self.layers)
        share = f"{1 - nonzeros / max(1, weights):.1%}"
        return ("together", "", "", share, quantity(nonzeros), quantity(dense, "B"), quantity(packed, "B"))

    def __str__(self) -> str:
        return self.to_text()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data: counts, shares and bytes, as JSON takes them."""
        return {
            "model": self.model,
            "layers": [{**asdict(each), "shape": list(each.shape)} for each in self.layers],
            "left": [{**asdict(each), "remedy": CODES[each.code].remedy} for each in self.left],
            "parameters": self.parameters,
            "nonzeros": {"before": self.nonzeros[0], "after": self.nonzeros[1]},
            "sparsity": self.sparsity,
            "verification": None if self.verification is None else verification_dict(self.verification),
            "written": list(self.written),
            "notes": list(self.notes),
        }

    def with_(self, **changes: Any) -> SparsityReport:
        """A copy with some fields replaced."""
        return replace(self, **changes)


def report_of(analysis: Analysis, choice: Choice) -> SparsityReport:
    """Count what masks make of a model."""
    model = analysis.program.native
    after = {each.tensor: each for each in choice.layers}
    parameters, before, left = 0, 0, 0
    for stored in _weights(analysis):
        numbers = stored.read()
        count = int(np.count_nonzero(numbers))
        parameters += numbers.size
        before += count
        left += int(np.count_nonzero(after[stored.name].weights())) if stored.name in after else count
    return SparsityReport(
        model=tools_of(model).origin(model) or analysis.program.name,
        layers=tuple(map(_sparse_layer, choice.layers)),
        left=choice.left,
        parameters=parameters,
        nonzeros=(before, left),
    )


def _weights(analysis: Analysis) -> list[Any]:
    """The stored tensors that contractions read, each once."""
    found = {}
    for contraction in analysis.contractions:
        use = contraction.weight
        value = None if use is None else use.node.inputs[use.index]
        if value is not None and value.stored is not None and not value.stored.empty:
            found[value.stored.name] = value.stored
    return list(found.values())


def _sparse_layer(each: LayerMask) -> SparseLayer:
    dense = each.weights()
    nonzeros = int(np.count_nonzero(dense))
    return SparseLayer(
        name=each.tensor,
        operator=str(each.layer.node),
        format=str(each.format),
        shape=each.kept.shape,
        sparsity=1 - nonzeros / dense.size,
        nonzeros=nonzeros,
        dense=dense.nbytes,
        packed=sum(each.format.bytes(kept, dense.itemsize) for kept in each.kept),
    )


def _row(each: SparseLayer) -> tuple[str, ...]:
    groups, outputs, taps, channels = each.shape
    shape = f"{outputs} x {f'{taps}·' if taps > 1 else ''}{channels}"
    return (
        one_line(each.name),
        each.format,
        f"{groups} of {shape}" if groups > 1 else shape,
        f"{each.sparsity:.1%}",
        quantity(each.nonzeros),
        quantity(each.dense, "B"),
        quantity(each.packed, "B"),
    )


def _left_lines(left: Sequence[LeftDense]) -> list[str]:
    """A line for each reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for each in left:
        by_reason.setdefault((each.code, each.reason), []).append(one_line(each.name))
    lines = []
    for (code, reason), names in sorted(by_reason.items()):
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        lines.append(f"  {code} {', '.join(names[:_MOST_NAMED])}{more}: {one_line(reason)}")
    return lines
