"""JSON that holds its own hash, so that damage to what describes an artifact is told from what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "sha256"


def sealed(data: Mapping[str, Any]) -> str:
    """The JSON text of an object with the SHA-256 of all else in it; the same text for equal objects."""
    return _text({**data, KEY: _digest(data)})


def holds(data: Mapping[str, Any]) -> bool:
    """Whether an object that was read is as it was when it was sealed."""
    try:
        return data.get(KEY) == _digest(data)
    except RecursionError:  # nothing that is written is nested as deep
        return False


def _digest(data: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in data.items() if name != KEY}
    return hashlib.sha256(_text(rest).encode()).hexdigest()


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, sort_keys=True) + "\n"
