"""How zeros are divided among layers: the sparsity of each group of each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.formats.format import Array, Format
from graphprune.layers import Layer
from graphprune.sparsity.importance import Importance

Shares = dict[tuple[Layer, int], float]
"""The sparsity by layer and group."""


def check(name: str, form: Format, sparsity: float | None) -> None:
    """Raises GraphPruneError: GP106 for a name that is not known, GP107 where the format leaves nothing to divide, or
    cannot have the sparsity."""
    if name not in ALLOCATORS:
        what = f"zeros cannot be allocated by {name!r}"
        raise GraphPruneError("GP106", what, "option allocate", did_you_mean(name, ALLOCATORS))
    form.project(np.zeros((1, 16, 1)), sparsity)
    if name != "uniform" and form.gains(np.zeros((1, 16, 1))) is None:
        what = f"the format {form} has the same sparsity in every layer"
        raise GraphPruneError("GP107", what, "option allocate", "take uniform, or another format")


def shares(name: str, form: Format, sparsity: float, chosen: Sequence[Layer], worth: Importance) -> Shares:
    """The sparsity of every group, which is together the one that is asked for, as near as the format allows."""
    return ALLOCATORS[name](form, sparsity, chosen, worth)


def _uniform(form: Format, sparsity: float, chosen: Sequence[Layer], worth: Importance) -> Shares:
    """The same for all."""
    return {(layer, group): sparsity for layer in chosen for group in range(layer.shape[0])}


def _erk(form: Format, sparsity: float, chosen: Sequence[Layer], worth: Importance) -> Shares:
    """Densities proportional to ``(n_in + n_out + kernel) / (n_in n_out kernel)``, at most 1 (Mocanu et al., 2018; Evci
    et al., ICML 2020)."""
    shapes = [layer.stored.shape for layer in chosen if layer.stored is not None]
    sizes = np.array([np.prod(shape) for shape in shapes], np.float64)
    ratios = np.array([sum(shape) for shape in shapes]) / sizes
    full = np.zeros(len(sizes), bool)
    densities = np.ones(len(sizes))
    while not full.all():
        room = (1 - sparsity) * sizes.sum() - sizes[full].sum()
        densities[~full] = ratios[~full] * room / (ratios * sizes)[~full].sum()
        over = ~full & (densities > 1)
        densities[over] = 1
        if not over.any():
            break
        full |= over
    return {
        (layer, group): 1 - float(density)
        for layer, density in zip(chosen, densities, strict=True)
        for group in range(layer.shape[0])
    }


def _global(form: Format, sparsity: float, chosen: Sequence[Layer], worth: Importance) -> Shares:
    """Those with which the blocks (or what the format counts) of least importance for each of their entries go,
    wherever they are. Something is left of every layer."""
    items = [(layer, group) for layer in chosen for group in range(layer.shape[0])]
    gains: list[Array] = []
    sizes: list[float] = []
    for layer in chosen:
        for saliency in worth.of(layer):
            each = form.gains(saliency)
            assert each is not None, "the format was checked"
            size = saliency.size / len(each)
            gains.append(each / size)
            sizes.append(size)
    ranked = np.concatenate(gains)
    owner = np.repeat(np.arange(len(items)), [len(each) for each in gains])
    order = np.argsort(-ranked, kind="stable")
    entries = np.asarray(sizes)[owner[order]].cumsum()
    kept = order[entries <= (1 - sparsity) * entries[-1] + 0.5]
    counts = np.maximum(1, np.bincount(owner[kept], minlength=len(items)))
    return {item: 1 - count / len(each) for item, count, each in zip(items, counts.tolist(), gains, strict=True)}


ALLOCATORS: dict[str, Callable[[Format, float, Sequence[Layer], Importance], Shares]] = {
    "uniform": _uniform,
    "erk": _erk,
    "global": _global,
}
"""The ways to divide zeros, by name."""
