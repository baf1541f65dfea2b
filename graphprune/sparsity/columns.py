"""How the columns of a layer's matrix are divided for a format: which are looked at together, which go together.

Columns are in the order of formats, taps outside channels; those of :class:`graphprune.layers.Layer` are the other way
round. Knows NumPy and formats, and no framework.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphprune.formats.format import Format
from graphprune.program import Array
from graphprune.sparsity.surgeon import Span, losses

_AT_ONCE = 128
"""Columns in which zeros are chosen at once, as far as taps and groups allow (Frantar & Alistarh, ICML 2023)."""


@dataclass(frozen=True)
class Columns:
    """The columns of a layer of some taps and channels; a format's blocks have ``together`` channels of one tap."""

    taps: int
    channels: int
    together: int = 1

    @property
    def order(self) -> Array:
        """For each column in the order of formats its place among the inputs of the layer."""
        return np.arange(self.taps * self.channels).reshape(self.channels, self.taps).T.reshape(-1)

    def losses(self, weights: Array, inverted: Array) -> Array:
        """What it costs to make each weight zero, alone or with those that go with it; see
        :func:`graphprune.sparsity.surgeon.losses`.

        weights: ``[outputs, columns]`` of whole taps, or of whole groups of one
        inverted: the inverse of H at these columns
        """
        found = np.zeros_like(weights)
        channels = min(self.channels, weights.shape[1])
        for places in self._groups(weights.shape[1] // channels, channels):
            squares = inverted[places[:, :, None], places[:, None, :]]
            found[:, places] = losses(weights, places, squares)
        return found

    def _groups(self, taps: int, channels: int) -> Iterator[Array]:
        """Columns that go together, ``[count, size]``: whole groups, and what is left at the end of each tap."""
        every = np.arange(taps * channels).reshape(taps, channels)
        whole = channels - channels % self.together
        if whole:
            yield every[:, :whole].reshape(-1, self.together)
        if whole < channels:
            yield every[:, whole:]

    def spans(self, format: Format) -> list[Span]:
        """Columns in which zeros may be chosen without looking at the others: some whole taps, or some channels of
        one. A single span where the format wants to see all."""
        total, least = self.taps * self.channels, format.span
        if least is None or total <= _AT_ONCE:
            return [(0, total)]
        if self.channels <= _AT_ONCE:
            taps = np.array_split(np.arange(self.taps), min(self.taps, round(total / _AT_ONCE)))
            return [(int(each[0]) * self.channels, int(each[-1] + 1) * self.channels) for each in taps]
        step = max(least, _AT_ONCE - _AT_ONCE % least)
        begins = [tap * self.channels + begin for tap in range(self.taps) for begin in range(0, self.channels, step)]
        return list(zip(begins, [*begins[1:], total], strict=True))

    def cube(self, span: Array) -> Array:
        """The columns of a span as the format sees them, ``[outputs, taps, channels]``."""
        return span.reshape(len(span), -1, min(self.channels, span.shape[1]))
