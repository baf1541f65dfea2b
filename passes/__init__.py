"""What can be done to a model: one pass a file, registered here by name.

A pass is a frozen dataclass whose fields are its options (see `graphprune.pipeline.Pass`). This file names the built-in
ones without importing them; another package adds its own under the entry-point group `graphprune.passes`.
Passes import the core; the core never imports passes.

    >>> from graphprune.passes import PASSES
    >>> {"clean", "width"} <= set(PASSES.names())
    True
"""

if __name__ != "graphprune.passes":
    # From the repository root `import passes` would load a second copy with classes of its own.
    raise ImportError("import graphprune.passes, not passes: run `pip install -e .` in the repository root")

from graphprune.registry import Registry

PASSES = Registry(
    "graphprune.passes",
    {
        "clean": "graphprune.passes.clean:Clean",
        "depth": "graphprune.passes.depth:Depth",
        "sparsify": "graphprune.passes.sparsify:Sparsify",
        "width": "graphprune.passes.width:Width",
    },
)
