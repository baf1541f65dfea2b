"""Zeros and the weights that make up for them, in one matrix with a quadratic error.

The error of a layer is ``E(w) = (w - s)' H (w - s)`` for each output ``w``, but for a constant: ``s`` is its minimum
and ``H`` the Gram matrix of the inputs, damped. Optimal Brain Surgeon (Hassibi & Stork, NIPS 1992) says which weight
costs least, SparseGPT (Frantar & Alistarh, ICML 2023) goes over the columns once with one factorisation for all
outputs, and least squares is the exact minimum for zeros that are given. Knows NumPy and no framework; all float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphprune.criteria.obs import inverse
from graphprune.program import Array

Span = tuple[int, int]
"""Columns from the first to before the last, in which zeros are chosen at once."""


def factor(hessian: Array) -> Array:
    """Upper triangular ``U`` with ``U'U = H^-1``: below and right of any place, ``U[i:, i:]`` is that of the inverse
    for the columns from ``i`` on alone.

    >>> u = factor(np.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> (u.T @ u).round(3).tolist()
    [[0.667, -0.333], [-0.333, 0.667]]
    """
    found: Array = np.linalg.cholesky(inverse(hessian)).T
    return found


def losses(weights: Array, places: Array, squares: Array) -> Array:
    """What the error rises by when columns S that go together are made zero and all others are fitted anew,
    ``w_S' [(H^-1)_SS]^-1 w_S``; each column of S gets an equal share. ``[outputs, count, S]``.

    weights: ``[outputs, columns]``; places: which columns go together, ``[count, S]``
    squares: the inverse of H there, ``[count, S, S]``

    >>> losses(np.array([[1.0, 3.0]]), np.array([[0], [1]]), np.array([[[0.5]], [[2.0]]])).tolist()
    [[[2.0], [4.5]]]
    """
    parts = weights[:, places].transpose(1, 2, 0)  # [count, S, outputs]
    each = np.einsum("kso,kso->ok", parts, np.linalg.solve(squares, parts))
    size = places.shape[1]
    return np.repeat(np.maximum(each, 0)[:, :, None] / size, size, axis=2)


def sweep(
    start: Array, upper: Array, spans: Sequence[Span], choose: Callable[[int, Array, Array], Array]
) -> tuple[Array, Array]:
    """Make weights zero, one column after the other, and have the columns to the right of it make up for each.

    start:  the minimum without zeros, ``[outputs, columns]``; columns behind the last span are never zero
    upper:  of :func:`factor`
    spans:  where zeros are chosen at once, in order and without gaps
    choose: given the number of a span, the weights there as they are by then and the part of ``upper`` there; which are
            kept, ``[outputs, columns of the span]``
    Returns the weights and what is kept, of the shape of ``start``.
    """
    weights, kept = start.copy(), np.ones(start.shape, bool)
    for number, (begin, end) in enumerate(spans):
        block, own = weights[:, begin:end].copy(), upper[begin:end, begin:end]
        mask = choose(number, block, own)
        errors = np.empty_like(block)
        for place in range(end - begin):
            gone = np.where(mask[:, place], 0.0, block[:, place])
            errors[:, place] = gone / own[place, place]
            block[:, place + 1 :] -= np.outer(errors[:, place], own[place, place + 1 :])
            block[:, place] -= gone
        weights[:, begin:end], kept[:, begin:end] = block, mask
        weights[:, end:] -= errors @ upper[begin:end, end:]
    return np.where(kept, weights, 0.0), kept


def constrained(start: Array, hessian: Array, kept: Array) -> Array:
    """The minimum of the error with these zeros, ``[outputs, columns]``: exact, with one factorisation for each pattern
    of zeros that outputs share.

    >>> constrained(np.array([[1.0, 1.0]]), np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[True, False]])).tolist()
    [[1.5, 0.0]]
    """
    found = np.zeros_like(start)
    right = start @ hessian  # H is symmetric
    patterns, which = np.unique(np.packbits(kept, axis=1), axis=0, return_inverse=True)
    which = which.reshape(-1)
    for pattern in range(len(patterns)):
        rows = np.flatnonzero(which == pattern)
        columns = np.flatnonzero(kept[rows[0]])
        if len(columns):
            left = hessian[np.ix_(columns, columns)]
            found[np.ix_(rows, columns)] = np.linalg.solve(left, right[np.ix_(rows, columns)].T).T
    return found
