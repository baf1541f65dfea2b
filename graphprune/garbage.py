"""Keeps the garbage collector out of the walks over a large graph, and of what is copied and written of it.

Everything that reading and analysing a network makes stays alive until they are done, so that there is nothing to
collect; but the collector, woken by every so many new objects, would go through all of them again and again. On 25,000
nodes that is half of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Within this the garbage collector does not run by itself; after it, as before. May be nested.

    >>> with no_collection():
    ...     gc.isenabled()
    False
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
