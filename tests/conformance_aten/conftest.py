"""The samples are part of PyTorch, and what makes them needs one more package; without both there is nothing here."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") and find_spec("expecttest") else ["test_*.py"]
