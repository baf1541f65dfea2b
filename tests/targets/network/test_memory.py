"""No two storages that are alive at once share a byte, and borders of zeros stay among their own kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

import onnx_ir as ir

from graphprune.targets.network.graph import Node
from graphprune.targets.network.layout import Storage, View, digits
from graphprune.targets.network.lowering import Call, Samples
from graphprune.targets.network.memory import ALIGNMENT, SLACK, bytes_of, period, place

NODE = Node("Relu", [], [], {}, "node", ir.Node("", "Relu", []))
DTYPES = ["float32", "int64", "bool"]


def problems(calls: Sequence[Call]) -> list[str]:
    """What is wrong with the places of the storages of these calls."""
    places, size = place(calls)
    alive: dict[Storage, list[int]] = {}
    for step, call in enumerate(calls):
        for view in call.views:
            steps = [step]
            if call.samples is not None and view.storage in call.samples.moves:
                steps = [number for number, each in enumerate(calls) if each.samples is call.samples]
            alive.setdefault(view.storage, []).extend(steps)
    found = []
    for storage, start in places.items():
        if start % ALIGNMENT or start + bytes_of(storage) + SLACK > size:
            found.append("out of the arena")
    for a, b in combinations(places, 2):
        if not (places[a] < places[b] + bytes_of(b) and places[b] < places[a] + bytes_of(a)):
            continue
        if min(alive[a]) <= max(alive[b]) and min(alive[b]) <= max(alive[a]):
            found.append("alive at once")
        if a.zeros != b.zeros:
            found.append("another geometry")
        elif a.zeros is not None and (places[a] - places[b]) % (4 * period(a.zeros)):
            found.append("not at whole planes")
    return found


@st.composite
def schedules(draw: st.DrawFn) -> list[Call]:
    """Storages of some geometries, used by some calls."""
    geometries = [(48, 5, 1), (48, 7, 1), (64, 5, 1)]  # the first is the period
    storages = []
    for _ in range(draw(st.integers(1, 12))):
        zeros = draw(st.sampled_from([None, None, *geometries]))
        planes = draw(st.integers(1, 9))
        size = planes * period(zeros) if zeros else draw(st.integers(1, 300))
        storages.append(Storage(size, "float32" if zeros else draw(st.sampled_from(DTYPES)), zeros=zeros))
    calls = []
    for _ in range(draw(st.integers(1, 15))):
        used = draw(st.lists(st.sampled_from(storages), min_size=1, max_size=4))
        calls.append(Call(None, tuple(View(storage, (digits(storage.size, 1),)) for storage in used), NODE, ""))
    first = draw(st.integers(0, len(calls)))
    looped = slice(first, draw(st.integers(first, len(calls))))
    samples = Samples(3, dict.fromkeys(draw(st.lists(st.sampled_from(storages), unique=True)), 1))
    calls[looped] = [replace(call, samples=samples) for call in calls[looped]]
    return calls


@settings(max_examples=500, deadline=None, derandomize=True)
@given(schedules())
def test_places(calls: list[Call]) -> None:
    assert problems(calls) == []


def test_what_is_never_alive_at_once_shares_a_place() -> None:
    storages = [Storage(1000) for _ in range(8)]
    calls = [Call(None, tuple(View(s, (digits(1000, 1),)) for s in pair), NODE, "") for pair in pairwise(storages)]
    assert place(calls)[1] <= 2 * 4032 + SLACK + ALIGNMENT


def test_the_check_of_places_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = Storage(48), Storage(32, zeros=(16, 5, 1)), Storage(32, zeros=(16, 5, 1))
    calls = [Call(None, tuple(View(s, (digits(s.size, 1),)) for s in (a, b, c)), NODE, "")]
    assert problems(calls) == []
    monkeypatch.setattr(f"{__name__}.place", lambda calls: ({a: 0, b: 64, c: 160}, 288))
    wrong = {"out of the arena", "alive at once", "another geometry", "not at whole planes"}
    assert set(problems(calls)) == wrong
