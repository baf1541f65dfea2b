"""The PyTorch door: pruning an `nn.Module` in place, and what has to follow it: optimizers, averages, files, masks.

    >>> import graphprune.torch                                     # doctest: +SKIP
    >>> graphprune.torch.transplant(optimizer, cuts, parameters)    # doctest: +SKIP

Modules of this package import torch; the package itself imports nothing until a public name is asked for.
"""

import sys
from typing import TYPE_CHECKING

from graphprune import LazyPackage

_HOME = {
    "Pruned": "graphprune.torch.pruned",
    "pruned_of": "graphprune.torch.pruned",
    "transplant": "graphprune.torch.transplant",
    "transplant_average": "graphprune.torch.transplant",
    "cut_state_dict": "graphprune.torch.transplant",
    "save": "graphprune.torch.checkpoint",
    "load": "graphprune.torch.checkpoint",
    "Gradual": "graphprune.torch.gradual",
    "agree": "graphprune.torch.gradual",
    "lightning_callback": "graphprune.torch.gradual",
    "transformers_callback": "graphprune.torch.gradual",
    "PrunePass": "graphprune.torch.fx_pass",
    "mask": "graphprune.torch.masks",
    "unmask": "graphprune.torch.masks",
    "masked_cuts": "graphprune.torch.masks",
    "put_masks": "graphprune.torch.sparse_masks",
    "masks_of": "graphprune.torch.sparse_masks",
    "restore_masks": "graphprune.torch.sparse_masks",
    "bake": "graphprune.torch.sparse_masks",
    "rewind": "graphprune.torch.rewinding",
    "graphprune_backend": "graphprune.torch.compile.backend",
    "report": "graphprune.torch.compile.backend",
}

__all__ = [
    "Pruned", "pruned_of", "transplant", "transplant_average", "cut_state_dict", "save", "load",
    "mask", "unmask", "masked_cuts", "put_masks", "masks_of", "restore_masks", "bake", "rewind",
    "Gradual", "agree", "lightning_callback", "transformers_callback", "PrunePass",
    "graphprune_backend", "report",
]  # fmt: skip

sys.modules[__name__].__class__ = LazyPackage

if TYPE_CHECKING:
    from graphprune.torch.checkpoint import load, save
    from graphprune.torch.compile.backend import graphprune_backend, report
    from graphprune.torch.fx_pass import PrunePass
    from graphprune.torch.gradual import Gradual, agree, lightning_callback, transformers_callback
    from graphprune.torch.masks import mask, masked_cuts, unmask
    from graphprune.torch.pruned import Pruned, pruned_of
    from graphprune.torch.rewinding import rewind
    from graphprune.torch.sparse_masks import bake, masks_of, put_masks, restore_masks
    from graphprune.torch.transplant import cut_state_dict, transplant, transplant_average
