"""Keeps what C code prints off the standard output, where a plan may be written for another program to read."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDOUT = 1


@contextmanager
def silence() -> Iterator[None]:
    """Inside, nothing reaches the standard output, of whatever thread or language."""
    _flush()
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # it is closed: there is nothing to keep clean
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDOUT)
        yield
    finally:
        _flush()  # what C holds back would come out later
        os.dup2(kept, _STDOUT)
        os.close(kept)
        os.close(nowhere)


def _flush() -> None:
    with suppress(OSError, TypeError, AttributeError):  # no C library by that way, as on Windows
        ctypes.CDLL(None).fflush(None)
