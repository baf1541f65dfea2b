"""Prune trained neural networks as a compile step.

    >>> import graphprune as gp                                     # doctest: +SKIP
    >>> result = gp.prune(gp.load("dense.onnx"), macs=0.6)          # doctest: +SKIP
    >>> gp.save(result.model, "small.onnx")                         # doctest: +SKIP
    >>> small = gp.prune(module, example_inputs, macs=0.5).model    # doctest: +SKIP

Importing this package loads none of its parts and no other package: every public name is fetched on first use. Nothing
may be imported here at run time but the standard library; tests/test_layout.py measures it.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "load", "save", "analyze", "calibration", "plan", "apply", "prune", "prune_", "mask", "shrink", "clean", "sparsify",
    "finetune", "verify", "build", "Analysis", "Group", "Plan", "Result", "Verification", "GraphPruneError",
]  # fmt: skip

_HOME = {
    "load": "graphprune.api",
    "save": "graphprune.api",
    "analyze": "graphprune.api",
    "calibration": "graphprune.data.calibration",
    "plan": "graphprune.api",
    "apply": "graphprune.api",
    "prune": "graphprune.api",
    "prune_": "graphprune.api",
    "mask": "graphprune.api",
    "shrink": "graphprune.api",
    "clean": "graphprune.api",
    "sparsify": "graphprune.sparsity.run",
    "finetune": "graphprune.torch.training.run",
    "verify": "graphprune.api",
    "build": "graphprune.targets.building",
    "Result": "graphprune.api",
    "Analysis": "graphprune.analysis",
    "Group": "graphprune.analysis",
    "Plan": "graphprune.plan",
    "Verification": "graphprune.verify",
    "GraphPruneError": "graphprune.errors",
}


class LazyPackage(ModuleType):
    """The class of a package that fetches its public names on first use: `_HOME` says which module has each.

    Modules of the same names exist (plan.py holds Plan, and so on), and importing a submodule makes Python set it as an
    attribute of its package, which would replace the function by the module. Such an assignment is ignored here. The
    modules are reached by `from graphprune.plan import Plan`, which looks in sys.modules.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in self.__dict__["_HOME"] and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> object:
        """Fetch a public name and keep it."""
        home = self.__dict__["_HOME"]
        if name not in home:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(home[name]), name)
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self.__dict__["__all__"]})


sys.modules[__name__].__class__ = LazyPackage

if TYPE_CHECKING:
    from graphprune.analysis import Analysis, Group
    from graphprune.api import Result, analyze, apply, clean, load, mask, plan, prune, prune_, save, shrink, verify
    from graphprune.data.calibration import calibration
    from graphprune.errors import GraphPruneError
    from graphprune.plan import Plan
    from graphprune.sparsity.run import sparsify
    from graphprune.targets.building import build
    from graphprune.torch.training.run import finetune
    from graphprune.verify import Verification
