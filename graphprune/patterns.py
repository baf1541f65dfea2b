"""Which groups a user means by a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from graphprune.analysis import Analysis, Group
from graphprune.errors import GraphPruneError, did_you_mean


def matching(analysis: Analysis, patterns: Sequence[str]) -> set[Group]:
    """Groups whose name, or a tensor or place of which, matches a shell pattern (``conv1.*``, ``*.weight:0``). Raises
    ``GP106`` for a pattern that matches nothing: a misspelt name must not pass unnoticed."""
    found: set[Group] = set()
    for pattern in patterns:
        hits = {group for group in analysis.groups if any(fnmatchcase(name, pattern) for name in _names(group))}
        if not hits:
            names = {member.tensor for group in analysis.groups for member in group.members}
            raise GraphPruneError("GP106", f"no group matches {pattern!r}", remedy=did_you_mean(pattern, names))
        found |= hits
    return found


def _names(group: Group) -> set[str]:
    places = {name for member in group.members for name in (member.tensor, member.name)}
    return {group.name, *places}
