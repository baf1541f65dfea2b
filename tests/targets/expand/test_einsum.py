"""Einsum and Tile, written with other operators."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.expand.einsum import spell
from tests.execution import feeds
from tests.targets.network.harness import built, check, compare
from tests.targets.network.net import Net

SIZES = {"a": 2, "b": 3, "c": 4, "d": 1, "e": 5, "f": 2}
EQUATIONS = [
    "bhqd,bhkd->bhqk", "bqhd,bkhd->bhqk", "ab,bc->ac", "ab,cb->ca", "abc,bcd->ad", "ab,ab->ab", "ab,ab->", "ab,c->cab",
    "abc->ca", "ab->", "ab,bc,cd->ad", "abc,cd,ae->bde", "ab , b -> a", "...ab,...bc->...ac", "a...,a->...", "ab,bc",
    "ba", "i...j,j...->...i",
]  # fmt: skip


def net_of(equation: str, constants: frozenset[int] = frozenset()) -> tuple[Net, str]:
    """Terms are computed where they are no constants; every letter has a size of its own."""
    net = Net()
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    inputs = []
    for place, term in enumerate(terms):
        shape = [SIZES.get(letter, 3) for letter in term.replace("...", "bc")]
        inputs.append(net.weight(*shape) if place in constants else net.op("Sin", net.input(*shape)))
    return net, net.op("Einsum", *inputs, equation=equation)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_equations(equation: str) -> None:
    net, y = net_of(equation)
    check(net.model(net.op("Cos", y)))


@pytest.mark.parametrize("equation", ["ab,bc->ac", "abc,cd->abd", "ab,bc,cd->ad", "ab,b->a", "abc,c->ab"])
@pytest.mark.parametrize("place", [0, 1])
def test_constants(equation: str, place: int) -> None:
    net, y = net_of(equation, frozenset({place}))
    check(net.model(y))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_letters(data: st.DataObject) -> None:
    letters = st.lists(st.sampled_from(sorted(SIZES)), min_size=1, max_size=4, unique=True).map("".join)
    terms = data.draw(st.lists(letters, min_size=1, max_size=3))
    result = data.draw(st.lists(st.sampled_from(sorted({*"".join(terms)})), max_size=4, unique=True).map("".join))
    net, y = net_of(f"{','.join(terms)}->{result}")
    check(net.model(y))


@pytest.mark.parametrize(
    ("equation", "ranks", "found"),
    [
        ("ab,bc->ac", [2, 2], (["ab", "bc"], "ac")),
        ("ab,bc", [2, 2], (["ab", "bc"], "ac")),
        ("...a,...a->...", [2, 3], (["ea", "dea"], "de")),
        ("aa->a", [2], None),  # a diagonal
        ("ab->ab", [3], None),
    ],
)
def test_letters(equation: str, ranks: list[int], found: tuple[list[str], str] | None) -> None:
    spelled = spell(equation, ranks)
    if found is None or spelled is None:
        assert spelled == found
        return
    names = dict(zip("".join(spelled[0]), "".join(found[0]), strict=True))
    assert [*map(len, spelled[0])] == [*map(len, found[0])] and len(names) == len({*names.values()})
    assert "".join(names[letter] for letter in spelled[1]) == found[1]


def test_a_diagonal_is_left_to_onnxruntime() -> None:
    net = Net()
    model = net.model(net.op("Einsum", net.input(3, 3), equation="ii->i"))
    made = built(model)
    compare(made, [feeds(model, seed=0)])
    assert made.fallbacks == ["Einsum"]


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize(
    ("shape", "repeats"), [((3, 5), (2, 1)), ((1, 4, 2), (3, 2, 2)), ((4,), (3,)), ((2, 3), (1, 1))]
)
def test_tile(shape: tuple[int, ...], repeats: tuple[int, ...], dtype: str) -> None:
    net = Net()
    model = net.model(net.op("Tile", net.input(*shape, dtype=dtype), net.numbers(*repeats)))
    check(model)
