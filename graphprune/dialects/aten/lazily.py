"""Graphs are made into Python code when they are first run, not whenever they are written to.

torch.fx compiles a graph module each time that it is given a graph: capturing one does so nine times, and copying it to
cut it once more. Only what is run at the end needs code. `torch.fx` has graph modules of that kind, but no way to have
`torch.export` make them. Imports torch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch.fx import GraphModule

_compile = GraphModule.recompile
_is_put_off: ContextVar[bool] = ContextVar("_is_put_off", default=False)  # threads that did not ask begin without it
_lock = threading.Lock()
_asked: list[object] = []
"""One entry for everyone, in any thread, who is within :func:`compiled_when_run`."""


@contextmanager
def compiled_when_run() -> Iterator[None]:
    """Within this, `recompile` has a graph module compiled by its first run, be that later. May be nested.

    >>> import torch
    >>> class Twice(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x + x
    >>> with compiled_when_run():
    ...     graph = torch.fx.symbolic_trace(Twice())
    >>> hasattr(graph, "_code")
    False
    >>> graph(torch.tensor(2)), hasattr(graph, "_code")
    (tensor(4), True)
    """
    token = _is_put_off.set(True)
    with _lock:
        _asked.append(token)
        GraphModule.recompile = _recompile  # type: ignore[method-assign]
    try:
        yield
    finally:
        _is_put_off.reset(token)
        with _lock:
            _asked.remove(token)
            if not _asked:
                GraphModule.recompile = _compile  # type: ignore[method-assign]


def _recompile(self: GraphModule) -> Any:
    if not _is_put_off.get():
        return _compile(self)
    structure = getattr(self.graph._codegen, "pytree_info", None)
    if structure is not None:  # what checks the inputs reads these before the first run
        self._in_spec, self._out_spec = structure.in_spec, structure.out_spec
    type(self).forward = _first_run  # every graph module has a class of its own
    return None


def _first_run(self: GraphModule, *args: Any, **kwargs: Any) -> Any:
    _compile(self)
    return self.forward(*args, **kwargs)
