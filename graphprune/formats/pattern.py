"""Patterns and connectivity: each kernel that is kept has one of a few patterns of taps, and each output keeps equally
many kernels (Ma et al., PCONV, AAAI 2020; Niu et al., PatDNN, ASPLOS 2020)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import ClassVar, Self

import numpy as np

from graphprune.errors import GraphPruneError
from graphprune.formats.format import Array, Format, Needs, Packed, cube, index_type, kept, whole_number

_MOST_TAPS = 16
_CHUNK = 4096


@dataclass(frozen=True)
class Pattern(Format):
    """``pattern:T/L``: T taps stay of each kept kernel, in at most L patterns for a layer. The sparsity is that of all
    weights, rounded to whole kernels of each output; without connectivity, ``pattern:4/8`` removes 5 of 9.

    The library is chosen as PatDNN does: by how often a pattern is the best of its kernel, of those as often the
    heavier one. ``project`` is optimal for that library (:meth:`assign`), and altogether where L is not less than the
    number of patterns.

    Packed as ``library [patterns]`` (bits of taps, 2 bytes), ``patterns [outputs, kernels]`` (1 byte), ``channels
    [outputs, kernels]`` (the narrowest of 1, 2 or 4 bytes) and ``values [outputs, kernels, T]``.

    >>> Pattern(1, 2).project(np.array([[[1.0, 5.0], [4.0, 2.0]]]), 0.5).tolist()
    [[[False, True], [True, False]]]
    """

    name: ClassVar[str] = "pattern"
    examples: ClassVar[tuple[str, ...]] = ("pattern:4/8", "pattern:4/12")

    entries: int
    patterns: int

    def __post_init__(self) -> None:
        if not 0 < self.entries < _MOST_TAPS or not 0 < self.patterns <= 2**8:
            what = f"{self.patterns} patterns of {self.entries} taps"
            raise GraphPruneError("GP107", what, f"format {self}", "up to 15 taps and 256 patterns: pattern:4/8")

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        match = re.fullmatch(r"pattern:(\d+)(?:/(\d+))?", text, re.ASCII)
        if match is None:
            return None
        return cls(whole_number(match[1], 1, "taps"), whole_number(match[2] or "8", 1, "patterns"))

    def __str__(self) -> str:
        return f"{self.name}:{self.entries}/{self.patterns}"

    @property
    def needs(self) -> Needs:
        return Needs(fixed=True, taps=True)

    def misfit(self, outputs: int, taps: int, channels: int) -> str:
        if not self.entries < taps <= _MOST_TAPS:
            return f"{self} is for kernels of {self.entries + 1} to {_MOST_TAPS} taps, and this one has {taps}"
        return ""

    def gains(self, saliency: Array) -> None:
        return None

    # ------------------------------------------------------------------ choosing
    def library(self, saliency: Array) -> Array:
        """The patterns for a layer, as masks ``[patterns, taps]``."""
        taps = saliency.shape[1]
        every = _every(taps, min(self.entries, taps))
        if len(every) <= self.patterns:
            return every
        votes, weight = np.zeros(len(every)), np.zeros(len(every))
        for chunk in _chunks(saliency):
            scores = chunk @ every.T.astype(np.float64)
            best, most = scores.argmax(axis=1), scores.max(axis=1)
            votes += np.bincount(best[most > 0], minlength=len(every))
            weight += np.bincount(best, most, minlength=len(every))
        order = np.lexsort((np.arange(len(every)), -weight, -votes))
        return every[np.sort(order[: self.patterns])]

    def assign(self, saliency: Array, library: Array, sparsity: float) -> Array:
        """The mask ``[outputs, taps, channels]`` that keeps the most with these patterns, ``[patterns, taps]``."""
        outputs, taps, channels = saliency.shape
        scores = _scores(saliency, library)
        count = self._kernels(taps, channels, sparsity)
        order = np.argsort(-scores.max(axis=2), axis=1, kind="stable")[:, :count]
        mask = np.zeros(saliency.shape, bool)
        chosen = library[np.take_along_axis(scores.argmax(axis=2), order, axis=1)]  # [outputs, kernels, taps]
        mask[np.arange(outputs)[:, None], :, order] = chosen
        return mask

    def _kernels(self, taps: int, channels: int, sparsity: float) -> int:
        return kept(channels, 1 - min(1.0, (1 - sparsity) * taps / self.entries))

    def _project(self, saliency: Array, sparsity: float) -> Array:
        return self.assign(saliency, self.library(saliency), sparsity)

    def _share(self, sparsity: float | None) -> float:
        return super()._share(0.0 if sparsity is None else sparsity)

    # ------------------------------------------------------------------ storing
    def cover(self, mask: Array) -> Array | None:
        """Kernels with fewer taps are given those of a pattern that other kernels have, where one contains them."""
        whole = cube(mask)
        outputs, taps, channels = whole.shape
        if self.misfit(outputs, taps, channels):
            return None
        kernels = whole.transpose(0, 2, 1).reshape(-1, taps)
        sizes = kernels.sum(axis=1)
        library = _distinct(kernels[sizes == self.entries])
        if sizes.max(initial=0) > self.entries or len(library) > self.patterns:
            return None
        small = np.flatnonzero((sizes > 0) & (sizes < self.entries))
        kernels = kernels.copy()
        for place in small:
            inside = np.flatnonzero((library & kernels[place]).sum(axis=1) == sizes[place])
            if not len(inside):
                library = np.concatenate([library, _completed(kernels[place], self.entries)[None]])
                inside = np.array([len(library) - 1])
            kernels[place] = library[inside[0]]
        if len(library) > self.patterns:
            return None
        return self._evened(kernels.reshape(outputs, channels, taps), library).transpose(0, 2, 1).reshape(mask.shape)

    def _evened(self, kernels: Array, library: Array) -> Array:
        """The same with further kernels, so that each output has equally many."""
        there = kernels.any(axis=2)
        wanted = there.sum(axis=1).max(initial=0)
        order = np.argsort(~there, axis=1, kind="stable")[:, :wanted]
        added = np.zeros_like(there)
        np.put_along_axis(added, order, True, axis=1)
        return np.where((added & ~there)[:, :, None], library[0] if len(library) else False, kernels)

    def _pack(self, weights: Array, mask: Array) -> tuple[dict[str, Array], dict[str, int]]:
        outputs, taps, channels = mask.shape
        kernels = mask.transpose(0, 2, 1)
        there = kernels.any(axis=2)
        library, which = np.unique(kernels[there] @ (1 << np.arange(taps)), return_inverse=True)
        values = weights.transpose(0, 2, 1)[kernels]
        return {
            "values": values.reshape(outputs, -1, self.entries),
            "library": library.astype(np.uint16),
            "patterns": which.astype(np.uint8).reshape(outputs, -1),
            "channels": np.nonzero(there)[1].astype(index_type(channels)).reshape(outputs, -1),
        }, {}

    def _unpack(self, packed: Packed, weights: Array) -> None:
        found = packed.arrays
        taps = np.array(
            [np.flatnonzero(int(bits) >> np.arange(weights.shape[1]) & 1) for bits in found["library"]], np.int64
        ).reshape(-1, self.entries)
        rows = np.arange(len(weights))[:, None, None]
        weights[rows, taps[found["patterns"]], found["channels"][:, :, None]] = found["values"]


def _every(taps: int, entries: int) -> Array:
    """All patterns, ``[patterns, taps]``."""
    every = np.zeros((comb(taps, entries), taps), bool)
    for row, chosen in zip(every, combinations(range(taps), entries), strict=True):
        row[list(chosen)] = True
    return every


def _chunks(saliency: Array) -> list[Array]:
    kernels = saliency.transpose(0, 2, 1).reshape(-1, saliency.shape[1]).astype(np.float64)
    return [kernels[begin : begin + _CHUNK] for begin in range(0, len(kernels), _CHUNK)]


def _scores(saliency: Array, library: Array) -> Array:
    """What each pattern keeps of each kernel, ``[outputs, channels, patterns]``."""
    scores: Array = saliency.transpose(0, 2, 1).astype(np.float64) @ library.T.astype(np.float64)
    return scores


def _distinct(kernels: Array) -> Array:
    return np.unique(kernels, axis=0) if len(kernels) else kernels


def _completed(kernel: Array, entries: int) -> Array:
    """With the first taps that are free."""
    done = kernel.copy()
    done[np.flatnonzero(~kernel)[: entries - int(kernel.sum())]] = True
    return done
