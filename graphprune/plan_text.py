"""The file format of plans: JSON with one line for each group, checked field by field when read.

::

    {"group": "conv1.weight:0", "keep": [[0, 3], 5, [7, 9]], "size": 10}

``[0, 3]`` are the entries 0, 1, 2 and 3. ``blocks``, where there are any, names the residual blocks to leave out. A
plan may be edited by hand or come from anywhere: what is read is checked, and an error names the place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphprune.errors import GraphPruneError
from graphprune.plan import SCHEMA, VERSION, Cut, Plan

MOST_ENTRIES = 1 << 24
"""No axis of a real network is longer, nor are all axes together; ranges of a hostile file must not fill the memory."""

_FIELDS = {"schema", "version", "groups", "options", "model", "versions", "costs", "left", "blocks"}


def write(plan: Plan) -> str:
    """A plan as text, keys in alphabetical order, a line for each entry of a list."""
    groups = [{"group": cut.group, "size": cut.size, "keep": ranges(cut.keep)} for cut in plan.groups]
    fields: dict[str, Any] = {
        "costs": {name: dict(cost) for name, cost in plan.costs.items()},
        "groups": groups,
        "left": [dict(each) for each in plan.left],
        "model": dict(plan.model),
        "options": dict(plan.options),
        "schema": plan.schema,
        "version": plan.version,
        "versions": dict(plan.versions),
    }
    if plan.blocks:
        fields["blocks"] = list(plan.blocks)
    lines = [f"  {json.dumps(name)}: {_block(value)}" for name, value in sorted(fields.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _block(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"    {_line(each)}" for each in value) + "\n  ]"
    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f"    {_line(k)}: {_line(v)}" for k, v in sorted(value.items())) + "\n  }"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def ranges(keep: Sequence[int]) -> list[int | list[int]]:
    """Sorted numbers with runs as pairs.

    >>> ranges([0, 1, 2, 3, 5, 7, 8])
    [[0, 3], 5, [7, 8]]
    """
    runs: list[list[int]] = []
    for index in keep:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return [first if first == last else [first, last] for first, last in runs]


def load(path: str | os.PathLike[str]) -> Plan:
    """Read a plan file. Raises GraphPruneError: GP101, GP502 or GP503."""
    shown = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise GraphPruneError("GP101", f"the plan cannot be read: {reason}", shown) from error
    except UnicodeDecodeError as error:
        raise GraphPruneError("GP502", "the file is not text", shown) from error
    try:
        return read(text)
    except GraphPruneError as error:
        error.where = f"{shown}: {error.where}" if error.where else shown
        raise


def read(text: str) -> Plan:
    """Read a plan. Raises GraphPruneError: GP502 where it is not one, GP503 where it is of a newer schema."""
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise GraphPruneError("GP502", f"not JSON: {error.msg}", f"line {error.lineno}") from error
    except (RecursionError, ValueError) as error:
        raise GraphPruneError("GP502", f"not JSON that can be read: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise GraphPruneError("GP502", f"not a plan: there is no schema {SCHEMA!r}")
    version: Any = found.get("version")
    if not _is_whole(version):
        raise GraphPruneError("GP502", f"the version {version!r} is not a whole number", "version")
    if version > VERSION:
        raise GraphPruneError("GP503", f"the plan is of version {version}, versions up to {VERSION} are known")
    if version < 1:
        raise GraphPruneError("GP502", f"there is no version {version}", "version")
    if unknown := sorted(set(found) - _FIELDS):
        raise GraphPruneError(
            "GP502", f"a plan has no field {unknown[0]!r}", "", f"fields: {', '.join(sorted(_FIELDS))}"
        )
    return Plan(
        groups=_groups(found.get("groups")),
        options=_mapping(found, "options"),
        model=_texts(_mapping(found, "model"), "model"),
        versions=_texts(_mapping(found, "versions"), "versions"),
        costs=_costs(_mapping(found, "costs")),
        left=_left(found.get("left", [])),
        blocks=_blocks(found.get("blocks", [])),
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise GraphPruneError("GP502", f"the field {name!r} is given twice")
        found[name] = value
    return found


def _groups(entries: Any) -> tuple[Cut, ...]:
    if not isinstance(entries, list):
        raise GraphPruneError("GP502", "groups is not a list", "groups")
    cuts: dict[str, Cut] = {}
    left = MOST_ENTRIES
    for place, entry in enumerate(entries):
        cut = _cut(entry, f"groups[{place}]", left)
        if cut.group in cuts:
            raise GraphPruneError("GP502", "the group is given twice", cut.group)
        cuts[cut.group] = cut
        left -= cut.size
    return tuple(cuts.values())


def _cut(entry: Any, place: str, left: int) -> Cut:
    if not isinstance(entry, dict) or set(entry) != {"group", "size", "keep"}:
        raise GraphPruneError("GP502", "a group needs the fields group, size and keep, and no others", place)
    name, size = entry["group"], entry["size"]
    if not isinstance(name, str):
        raise GraphPruneError("GP502", "the name of a group is not a text", place)
    if not _is_whole(size) or not 1 <= size <= MOST_ENTRIES:
        raise GraphPruneError("GP502", f"the size {_short(size)} is not a whole number above 0", name)
    if size > left:
        raise GraphPruneError("GP502", f"the groups have more than {MOST_ENTRIES} entries together", name)
    return Cut(name, size, _kept(entry["keep"], size, name))


def _kept(entries: Any, size: int, name: str) -> tuple[int, ...]:
    if not isinstance(entries, list) or not entries:
        raise GraphPruneError("GP502", "keep is not a list of at least one entry", name)
    found: list[int] = []
    for entry in entries:
        run = entry if isinstance(entry, list) else [entry, entry]
        if len(run) != 2 or not all(map(_is_whole, run)):
            what = f"{_short(entry)} is neither an index nor a range of two"
            raise GraphPruneError("GP502", what, name, "write 5, or [0, 3] for 0 to 3")
        first, last = run
        if not 0 <= first <= last < size:
            raise GraphPruneError("GP502", f"{_short(entry)} is not within 0 to {size - 1}", name)
        if found and first <= found[-1]:
            raise GraphPruneError("GP502", f"{_short(entry)} does not come after {found[-1]}", name)
        found.extend(range(first, last + 1))
    return tuple(found)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _mapping(found: dict[str, Any], name: str) -> dict[str, Any]:
    value = found.get(name, {})
    if not isinstance(value, dict):
        raise GraphPruneError("GP502", f"{name} is not an object", name)
    return value


def _texts(found: Mapping[str, Any], place: str) -> dict[str, str]:
    for name, value in found.items():
        if not isinstance(value, str):
            raise GraphPruneError("GP502", f"{_short(value)} is not a text", f"{place}.{name}")
    return dict(found)


def _costs(found: dict[str, Any]) -> dict[str, dict[str, int]]:
    if not found:
        return {}
    for name in ("dense", "planned"):
        costs = found.get(name)
        if not isinstance(costs, dict) or not all(map(_is_whole, costs.values())):
            raise GraphPruneError(
                "GP502", "costs need the objects dense and planned, of whole numbers", f"costs.{name}"
            )
    if set(found) != {"dense", "planned"} or set(found["dense"]) != set(found["planned"]):
        raise GraphPruneError("GP502", "costs need the objects dense and planned, with the same fields", "costs")
    return found


def _left(entries: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise GraphPruneError("GP502", "left is not a list of objects", "left")
    return tuple(_texts(entry, f"left[{place}]") for place, entry in enumerate(entries))


def _blocks(entries: Any) -> tuple[str, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise GraphPruneError("GP502", "blocks is not a list of names", "blocks")
    if len(set(entries)) < len(entries):
        raise GraphPruneError("GP502", "a block is given twice", "blocks")
    return tuple(entries)
