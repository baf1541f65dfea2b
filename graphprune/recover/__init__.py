"""What can be done for a pruned network without training: one recovery a file, registered here by name.

A recovery is a frozen dataclass with a ``name`` whose ``run`` takes the dense and the pruned network side by side
(:class:`graphprune.recover.pair.Pair`) and returns new numbers for stored tensors of the pruned one. It decides nothing
about widths. Another package adds its own under the entry-point group ``graphprune.recoveries``.

    >>> sorted(RECOVERIES.builtin)
    ['batch_norm', 'bias', 'gauss_newton', 'least_squares', 'mask_tuning', 'obspa']
"""

from __future__ import annotations

from graphprune.registry import Registry

RECOVERIES = Registry(
    "graphprune.recoveries",
    {
        "batch_norm": "graphprune.recover.batch_norm:BatchNormRecalibration",
        "bias": "graphprune.recover.bias:BiasCompensation",
        "gauss_newton": "graphprune.recover.gauss_newton:GaussNewton",
        "least_squares": "graphprune.recover.least_squares:LeastSquares",
        "mask_tuning": "graphprune.recover.mask_tuning:MaskTuning",
        "obspa": "graphprune.recover.obspa:OBSPA",
    },
)
