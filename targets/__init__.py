"""Targets: machines and runtimes that a model can be pruned and built for, registered here by name.

A target is an object as `graphprune.targets.target.Target` says. This file names the built-in ones without importing
them; another package adds its own under the entry-point group `graphprune.targets`.

    >>> from graphprune.targets import TARGETS
    >>> "x86" in TARGETS.names()
    True
"""

if __name__ != "graphprune.targets":
    # From the repository root `import targets` would load a second copy with objects of its own.
    raise ImportError("import graphprune.targets, not targets: run `pip install -e .` in the repository root")

from graphprune.registry import Registry

TARGETS = Registry("graphprune.targets", {"x86": "graphprune.targets.x86.target:X86"})
