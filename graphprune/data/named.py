"""`package.module:name`: imported, because that is asked for."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

from graphprune.errors import GraphPruneError

_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)


def is_named(text: str) -> bool:
    """Whether a text says where something is in Python, and is no file."""
    return bool(_NAMED.fullmatch(text)) and not os.path.exists(text)


def imported(name: str) -> Any:
    """Import what this names; modules of the current folder are found. Raises GraphPruneError GP101."""
    module, _, attribute = name.partition(":")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as python -m does; an installed command does not
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        remedy = "write package.module:callable; modules of the current folder are found"
        raise GraphPruneError("GP101", f"it cannot be imported: {error}", name, remedy) from error
    return found


def called(name: str) -> Any:
    """Import a callable and call it without arguments; what is no callable is taken as it is.

    Raises GraphPruneError: GP101 where it is not found, GP107 where it needs arguments.
    """
    found = imported(name)
    if not callable(found) or hasattr(found, "__iter__"):
        return found
    try:
        return found()
    except TypeError as error:
        remedy = "write a function without arguments that returns batches"
        raise GraphPruneError("GP107", f"it cannot be called without arguments: {error}", name, remedy) from error
