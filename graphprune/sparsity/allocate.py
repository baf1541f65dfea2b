"""How zeros are divided among layers: the sparsity of each group of each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphprune.criteria.transfer import share_of_rest
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.formats.format import Array, Format
from graphprune.layers import Layer
from graphprune.sparsity.importance import Importance

_LAST = 0.3
"""The density of the last layer with smart ratios."""

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
    sizes = _sizes(chosen)
    ratios = np.array([sum(layer.stored.shape) for layer in chosen if layer.stored is not None]) / sizes
    return _of_layers(chosen, _filled(ratios, sizes, (1 - sparsity) * sizes.sum()))


def _smart(form: Format, sparsity: float, chosen: Sequence[Layer], worth: Importance) -> Shares:
    """Smart ratios: densities proportional to ``(L - l + 1)**2 + (L - l + 1)`` for the l-th of L layers in running
    order, at most 1, and 0.3 for the last one (Su et al., Sanity-Checking Pruning Methods, NeurIPS 2020). Where that
    alone would be more than what may be left, the last one has the density of the whole network."""
    sizes = _sizes(chosen)
    room = (1 - sparsity) * sizes.sum()
    last = _LAST if _LAST * sizes[-1] < room else 1 - sparsity
    from_end = np.arange(len(chosen), 1, -1, dtype=np.float64)
    inner = _filled(from_end**2 + from_end, sizes[:-1], room - last * sizes[-1])
    return _of_layers(chosen, np.append(inner, last))


def _sizes(chosen: Sequence[Layer]) -> Array:
    return np.array([np.prod(layer.stored.shape) for layer in chosen if layer.stored is not None], np.float64)


def _filled(ratios: Array, sizes: Array, room: float) -> Array:
    """Densities proportional to the ratios, at most 1, that leave ``room`` weights of layers of these sizes."""
    densities, full = np.ones(len(sizes)), np.zeros(len(sizes), bool)
    while not full.all():
        left = room - sizes[full].sum()
        densities[~full] = ratios[~full] * left / (ratios * sizes)[~full].sum()
        over = ~full & (densities > 1)
        densities[over] = 1
        if not over.any():
            break
        full |= over
    return densities


def _of_layers(chosen: Sequence[Layer], densities: Array) -> Shares:
    return {
        (layer, group): 1 - float(density)
        for layer, density in zip(chosen, densities, strict=True)
        for group in range(layer.shape[0])
    }


def _global(form: Format, sparsity: float, chosen: Sequence[Layer], worth: Importance) -> Shares:
    """Those with which the blocks (or what the format counts) of least importance for each of their entries go,
    wherever they are. Something is left of every layer."""
    return _ranked(form, sparsity, chosen, worth, lambda gains: gains)


def _lamp(form: Format, sparsity: float, chosen: Sequence[Layer], worth: Importance) -> Shares:
    """As ``global``, where the importance of a block is its share in that of the blocks of its layer which are not
    below it (Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021; there with ``w**2`` of
    single weights, which is the criterion ``l2``)."""
    return _ranked(form, sparsity, chosen, worth, _share)


def _share(gains: Array) -> Array:
    return share_of_rest(gains, np.argsort(gains, kind="stable"))


def _ranked(
    form: Format, sparsity: float, chosen: Sequence[Layer], worth: Importance, compared: Callable[[Array], Array]
) -> Shares:
    """One ranking of the blocks of all layers; ``compared`` makes what they are worth comparable, layer by layer."""
    items = [(layer, group) for layer in chosen for group in range(layer.shape[0])]
    gains: list[Array] = []
    sizes: list[float] = []
    for layer in chosen:
        parts = []
        for saliency in worth.of(layer):
            each = form.gains(saliency)
            assert each is not None, "the format was checked"
            sizes.append(saliency.size / len(each))
            parts.append(each / sizes[-1])
        gains += np.split(compared(np.concatenate(parts)), np.cumsum([len(each) for each in parts])[:-1])
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
    "smart": _smart,
    "global": _global,
    "lamp": _lamp,
}
"""The ways to divide zeros, by name."""
