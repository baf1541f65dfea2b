"""The backend of `torch.compile`: `dynamo.py` reads the graphs that Dynamo brings, `backend.py` cuts and hands them on.

`torch.compile` finds :func:`graphprune_backend` here, by the entry point in pyproject.toml.
"""

from graphprune.torch.compile.backend import graphprune_backend

__all__ = ["graphprune_backend"]
