"""The PyTorch door: pruning an `nn.Module` in place, and what has to follow it: optimizers, averages, files, masks.

    >>> import graphprune.torch                                     # doctest: +SKIP
    >>> graphprune.torch.transplant(optimizer, cuts, parameters)    # doctest: +SKIP

Modules of this package import torch; the package itself imports nothing until a public name is asked for.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

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
    "graphprune_backend": "graphprune.torch.compile",
    "report": "graphprune.torch.compile",
}

__all__ = [
    "Pruned", "pruned_of", "transplant", "transplant_average", "cut_state_dict", "save", "load",
    "mask", "unmask", "masked_cuts", "Gradual", "agree", "lightning_callback", "transformers_callback", "PrunePass",
    "graphprune_backend", "report",
]  # fmt: skip


class _Package(ModuleType):
    """This module's class: keeps `transplant` the function although importing transplant.py would replace it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

if TYPE_CHECKING:
    from graphprune.torch.checkpoint import load, save
    from graphprune.torch.compile import graphprune_backend, report
    from graphprune.torch.fx_pass import PrunePass
    from graphprune.torch.gradual import Gradual, agree, lightning_callback, transformers_callback
    from graphprune.torch.masks import mask, masked_cuts, unmask
    from graphprune.torch.pruned import Pruned, pruned_of
    from graphprune.torch.transplant import cut_state_dict, transplant, transplant_average
else:  # hidden from type checkers, for whom a module with __getattr__ has every attribute

    def __getattr__(name: str) -> object:
        """Fetch a public name on first use (PEP 562) and keep it."""
        if name not in _HOME:
            raise AttributeError(f"module 'graphprune.torch' has no attribute {name!r}")
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
