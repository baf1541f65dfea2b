"""Windows that slide over maps: what convolutions and pools have in common, and how far apart rows lie for them.

A window of stride s slides over the s x s *phases* of its input: every s-th row and column from (a, b), each a map
over which a window of stride 1 slides. Rows of pixels lie one behind the other with one gap between them: the border to
the right of one row and to the left of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graphprune.targets.network.graph import Node


class Pair(NamedTuple):
    """One number for rows and one for columns."""

    rows: int
    columns: int


class Part(NamedTuple):
    """What of one axis one phase holds: place `first` is number `start` of the axis, then every stride-th, `held` of
    them; the window reaches `reach` places past the last output."""

    first: int
    start: int
    held: int
    reach: int


@dataclass(frozen=True)
class Window:
    """A window over maps of `size` that gives maps of `output`. `before` and `after` are what it reaches beyond the
    map; with ceil_mode that may be more than the padding."""

    size: Pair
    kernel: Pair
    strides: Pair
    dilations: Pair
    before: Pair
    after: Pair
    output: Pair

    def phases(self) -> list[tuple[int, int]]:
        """The phases that some tap reads."""
        taps = [
            [index * self.dilations[axis] % self.strides[axis] for index in range(self.kernel[axis])] for axis in (0, 1)
        ]
        return sorted({(a, b) for a in taps[0] for b in taps[1]})

    def part(self, axis: int, phase: int) -> Part:
        step, before = self.strides[axis], self.before[axis]
        first = max(0, -((phase - before) // step))
        start = first * step + phase - before
        taps = [tap * self.dilations[axis] for tap in range(self.kernel[axis])]
        reach = max(tap // step for tap in taps if tap % step == phase)
        count = min(-(-(self.size[axis] - start) // step), self.output[axis] + reach - first)
        return Part(first, start, max(0, count), reach)

    def row(self) -> int:
        """The smallest distance of rows: wide enough for the numbers of a row, and for the zeros between two."""
        needed = [self.output.columns]
        for phase in {b for _, b in self.phases()}:
            part = self.part(1, phase)
            right = self.output.columns + part.reach - part.first - part.held
            needed.append(part.held + max(part.first, right))
        return max(needed)

    def rows(self) -> int:
        """Rows of a phase, those of the border too."""
        return self.output.rows + max(self.part(0, a).reach for a, _ in self.phases())

    def numbers(self) -> tuple[int, ...]:
        """All that tells one window from another."""
        pairs = self.size, self.kernel, self.strides, self.dilations, self.before, self.after, self.output
        return tuple(number for pair in pairs for number in pair)

    def padded(self) -> bool:
        """Whether it reaches beyond the map."""
        return any((*self.before, *self.after))


def window_of(node: Node) -> Window | None:
    """The window of a Conv, ConvInteger, MaxPool or AveragePool over two axes."""
    if node.op not in {"Conv", "ConvInteger", "MaxPool", "AveragePool"} or node.inputs[0] is None:
        return None
    size, output = node.inputs[0].shape[2:], node.outputs[0].shape[2:]
    if len(size) != 2 or (node.op.startswith("Conv") and node.inputs[1] is None):
        return None
    kernel = node.attributes.get("kernel_shape") or node.inputs[1].shape[2:]  # type: ignore[union-attr]
    strides = node.attributes.get("strides", (1, 1))
    dilations = node.attributes.get("dilations", (1, 1))
    before, after = padding(node, size, kernel, strides, dilations, output)
    return Window(Pair(*size), Pair(*kernel), Pair(*strides), Pair(*dilations), before, after, Pair(*output))


def padding(
    node: Node,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    output: Sequence[int],
) -> tuple[Pair, Pair]:
    """What the windows reach beyond the map on either side."""
    spans = [(output[a] - 1) * strides[a] + (kernel[a] - 1) * dilations[a] + 1 - size[a] for a in (0, 1)]
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        half = [max(0, span) // 2 for span in spans]
        if auto == "SAME_LOWER":
            half = [max(0, span) - small for span, small in zip(spans, half, strict=True)]
        before = Pair(*half)
    elif auto == "VALID":
        before = Pair(0, 0)
    else:
        before = Pair(*tuple(node.attributes.get("pads", (0, 0, 0, 0)))[:2])
    return before, Pair(*(max(0, span - start) for span, start in zip(spans, before, strict=True)))


def pixel_rows(nodes: Sequence[Node], borders: dict[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    """The gap between rows of pixels, one for all maps of a size, so that a run goes over the rows of all of them.

    `borders` are the widest borders of zeros of each size, which a gap has to hold.
    """
    gaps = dict(borders)
    for node in nodes:
        window = window_of(node)
        if window is None:
            continue
        size = window.output.rows, window.output.columns
        gap = window.row() - window.output.columns
        if window.strides == (1, 1) and not window.padded():
            # slides over its input as it lies
            gap = window.size.columns + gaps.get((window.size.rows, window.size.columns), 0) - window.output.columns
        gaps[size] = max(gap, gaps.get(size, 0))
    return gaps
