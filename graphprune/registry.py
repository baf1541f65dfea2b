"""Things found by name: passes, targets, dialects, criteria; built in, or brought by another installed package.

A registry maps names to `"module:Object"` strings and imports a module only when its name is asked for. Another package
adds names with entry points of the registry's group, in its pyproject.toml:

    [project.entry-points."graphprune.passes"]
    halve = "my_package.halve:Halve"

tests/plugin_example/ is such a package, complete. The groups are `graphprune.passes`, `graphprune.targets`,
`graphprune.dialects`, `graphprune.criteria`, `graphprune.allocators`, `graphprune.recoveries` and `graphprune.formats`.
Imports nothing but errors.py and the standard library.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphprune.errors import GraphPruneError, did_you_mean

BUILTIN = "graphprune"

# What importing a module and looking up a name in it raises when it is missing, broken or made for other versions.
LOADING_FAILS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Entry:
    """One registered thing, as a list of what is available shows it."""

    name: str
    target: str
    """`module:Object`, as `pkgutil.resolve_name` takes it."""
    distribution: str
    """The installed package that registers it; `graphprune` for what is built in."""
    error: str = ""
    """Why it cannot be used, in one line; empty when it can."""


@dataclass(frozen=True)
class Registry:
    """Names of one kind of thing.

    >>> shapes = Registry("example.shapes", {"counter": "collections:Counter"})
    >>> shapes.names()
    ('counter',)
    >>> shapes.load("counter")
    <class 'collections.Counter'>
    """

    group: str
    """The entry-point group through which other packages add names."""
    builtin: Mapping[str, str] = field(default_factory=dict)
    """Name to `module:Object`. These are not entry points, so that a new one works without installing again."""

    def names(self) -> tuple[str, ...]:
        """Every registered name, sorted, usable or not; imports none of them."""
        return tuple(sorted(self._claims()))

    def load(self, name: str) -> Any:
        """The object registered as `name`.

        Raises GraphPruneError: GP106 when there is none, GP110 when two packages claim the name, GP111 when it is
        registered but cannot be imported.
        """
        claims = self._claims()
        if name not in claims:
            raise GraphPruneError("GP106", f"no {name!r} in {self.group}", remedy=did_you_mean(name, claims))
        if len(claims[name]) > 1:
            owners = " and ".join(repr(entry.distribution) for entry in claims[name])
            raise GraphPruneError("GP110", f"{name!r} in {self.group} is registered by {owners}")
        (entry,) = claims[name]
        try:
            return pkgutil.resolve_name(entry.target)
        except LOADING_FAILS as error:
            raise GraphPruneError(
                "GP111",
                f"{name!r} in {self.group} cannot be loaded: {type(error).__name__}: {error}",
                f"{entry.target} of the package {entry.distribution!r}",
            ) from error

    def entries(self) -> tuple[Entry, ...]:
        """Every registered thing, sorted by name, each one imported to see whether it can be.

        One that cannot be used is listed with its error and does not hide the others.
        """
        return tuple(self._tried(entry) for _, claims in sorted(self._claims().items()) for entry in claims)

    def _tried(self, entry: Entry) -> Entry:
        try:
            self.load(entry.name)
        except GraphPruneError as error:
            return Entry(entry.name, entry.target, entry.distribution, f"{error.code} {error.what}")
        return entry

    def _claims(self) -> dict[str, list[Entry]]:
        """Name to what claims it: one entry each, unless two packages chose the same name."""
        from importlib.metadata import entry_points  # here: reading what is installed costs more than all of graphprune

        claims = {name: [Entry(name, target, BUILTIN)] for name, target in self.builtin.items()}
        for point in entry_points(group=self.group):
            distribution = point.dist.name if point.dist else "a package without a name"
            target = point.value.split("[")[0].strip()  # `module:Object [extra]` may name extras
            claims.setdefault(point.name, []).append(Entry(point.name, target, distribution))
        return claims
