"""Targets: hardware and runtimes that a model can be pruned for, registered here by name.

There is no built-in target. Another package can register an object under the entry-point group `graphprune.targets`;
TARGETS lists it and loads it by name, and nothing else in graphprune uses it.

    >>> from graphprune.targets import TARGETS
    >>> TARGETS.builtin
    {}
"""

if __name__ != "graphprune.targets":
    # From the repository root `import targets` would load a second copy with objects of its own.
    raise ImportError("import graphprune.targets, not targets: run `pip install -e .` in the repository root")

from graphprune.registry import Registry

TARGETS = Registry("graphprune.targets", {})
