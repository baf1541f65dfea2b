"""Plans are input too: whatever a plan file holds, the answer is a plan that fits or an error GP101 or GP50x.

What each field may hold is in tests/test_plan.py; here, plans are broken at random.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from graphprune import api
from graphprune.errors import GraphPruneError
from graphprune.plan import Plan
from tests.models import CASES

from .harness import check_error, time_limit

HOSTILE: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 2**64, -(2**63), 10**400,
    "", "0", "a" * 100_000, "\ud800", "\x00\x1b[31m", "名前", [], {}, [[]], [[0]], [[0, 1, 2]], [[3, 1]], [[0, 2**62]],
    [0, 0], [2, 1], [-1, 0], [1.5], ["0"], [None], {"a": {"b": {}}}, [[[[[[0]]]]]], [[0, 7], [7, 8]],
)  # fmt: skip


@pytest.fixture(scope="module")
def analysis() -> Any:
    import onnx_ir as ir

    return api.analyze(ir.serde.deserialize_model(CASES["dense_block"].build()))


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a tree of JSON with each of its keys."""
    keys: Any = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from places(tree[key])


def broken(rng: Random, text: str) -> str:
    """A plan with one to three values replaced, dropped, repeated or moved."""
    tree = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        container, key = rng.choice(list(places(tree)) or [([0], 0)])
        kind = rng.choice(("replace", "replace", "drop", "repeat", "swap", "add"))
        if kind == "drop":
            del container[key]
        elif kind == "repeat" and isinstance(container, list):
            container.insert(0, container[key])
        elif kind == "swap":
            other, place = rng.choice(list(places(tree)))
            container[key], other[place] = json.loads(json.dumps([other[place], container[key]]))
        elif kind == "add" and isinstance(container, dict):
            container[rng.choice(("more", "", "groups", "schema", "version"))] = rng.choice(HOSTILE)
        else:
            container[key] = rng.choice(HOSTILE)
    return json.dumps(tree)


def outcome(step: Callable[[], object]) -> str:
    try:
        with time_limit(5):
            step()
    except GraphPruneError as error:
        check_error(error)
        return error.code
    return "applied"


def test_broken_plans(analysis: Any) -> None:
    text = api.plan(analysis, ratio=0.5).to_json()
    seen = set()
    for number in range(2000):
        changed = broken(Random(number), text)
        found = outcome(lambda changed=changed: api.apply(analysis, Plan.from_json(changed)))
        assert found in {"applied", "GP501", "GP502", "GP503"}, f"{number}: {found}"
        seen.add(found)
    assert seen == {"applied", "GP501", "GP502", "GP503"}


def test_broken_bytes(analysis: Any, tmp_path: Path) -> None:
    data = api.plan(analysis, ratio=0.5).to_json().encode()
    path = tmp_path / "plan.json"
    for number in range(300):
        rng = Random(number)
        changed = bytearray(data[: rng.randrange(len(data))] if number % 3 == 0 else data)
        for _ in range(rng.randrange(1, 10)):
            changed[rng.randrange(len(changed)) :][:1] = b""
            changed.insert(rng.randrange(len(changed) + 1), rng.randrange(256))
        path.write_bytes(changed)
        found = outcome(lambda: api.apply(analysis, Plan.load(path)))
        assert found in {"applied", "GP501", "GP502", "GP503"}, f"{number}: {found}"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "GP502"),
        (b"\xff\xfe{\x00}\x00", "GP502"),
        (b"\xef\xbb\xbf{}", "GP502"),
        (b"[" * 200_000, "GP502"),
        (b'{"a":' * 200_000, "GP502"),
        (b"9" * 10_000, "GP502"),
        (b'{"schema": "graphprune.plan", "version": ' + b"9" * 10_000 + b"}", "GP502"),
        (b"NaN", "GP502"),
        (b"\x00" * 1000, "GP502"),
        (b'{"schema": "graphprune.plan", "version": 1e999}', "GP502"),
        (b'"' + b"x" * 1_000_000 + b'"', "GP502"),
    ],
)
def test_what_is_not_a_plan(content: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    assert outcome(lambda: Plan.load(path)) == code


def test_ranges_that_would_fill_the_memory() -> None:
    """A plan of a few kilobytes that stands for thousands of millions of numbers."""
    groups = [{"group": f"{k}", "size": 2**23, "keep": [[0, 2**23 - 1]]} for k in range(300)]
    text = json.dumps({"schema": "graphprune.plan", "version": 1, "groups": groups})
    with (
        pytest.raises(GraphPruneError, match="GP502 the groups have more than 16777216 entries together"),
        time_limit(5),
    ):
        Plan.from_json(text)


def test_places_that_are_not_files(tmp_path: Path) -> None:
    assert outcome(lambda: Plan.load(tmp_path)) == "GP101"
    assert outcome(lambda: Plan.load(tmp_path / "nowhere.json")) == "GP101"
