"""Sparsity formats: which zeros a kernel can make use of. One format a file, registered here by name.

A format is a frozen dataclass derived from :class:`graphprune.formats.format.Format`; its text form parses back.
Another package adds its own under the entry-point group ``graphprune.formats``.

    >>> str(parse("8x1")), str(parse(" 2:4 / 8 ")), parse("unstructured").name
    ('8x1', '2:4/8', 'unstructured')
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.registry import Registry

if TYPE_CHECKING:
    from graphprune.formats.format import Format

FORMATS = Registry(
    "graphprune.formats",
    {
        "balanced": "graphprune.formats.balanced:Balanced",
        "block": "graphprune.formats.block:Block",
        "nm": "graphprune.formats.nm:NM",
        "pattern": "graphprune.formats.pattern:Pattern",
        "tile": "graphprune.formats.tile:Tile",
        "unstructured": "graphprune.formats.unstructured:Unstructured",
        "vector_nm": "graphprune.formats.vector_nm:VectorNM",
    },
)


def parse(text: str) -> Format:
    """The format that a text names, the reverse of ``str(format)``; spaces and capitals do not matter.

    Raises GraphPruneError: GP106 with a suggestion and all kinds where it names none, GP107 for numbers that the kind
    cannot have; GP110 and GP111 as Registry.load does.
    """
    plain = "".join(text.split()).lower()
    examples: list[str] = []
    for name in FORMATS.names():
        kind: type[Format] = FORMATS.load(name)
        found = kind.from_text(plain)
        if found is not None:
            return found
        examples += kind.examples
    raise GraphPruneError("GP106", f"{text!r} is not a sparsity format", "", did_you_mean(plain, examples))
