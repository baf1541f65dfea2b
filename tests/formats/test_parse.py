"""Texts of formats: they parse back, mistakes are told, and other packages can add kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphprune.errors import GraphPruneError
from graphprune.formats import FORMATS, parse
from graphprune.formats.format import Format, Needs

EXAMPLES = [text for name in FORMATS.names() for text in FORMATS.load(name).examples]


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_canonical(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(f" {text.upper()} ") == parse(text)
    assert replace(parse(text)) == parse(text)  # a frozen dataclass


def test_registered_names_are_those_that_the_kinds_carry() -> None:
    assert {name: FORMATS.load(name).name for name in FORMATS.builtin} == {name: name for name in FORMATS.builtin}


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("8y1", "GP106", "did you mean '8x1'? known: "),
        ("unstructred", "GP106", "did you mean 'unstructured'?"),
        ("", "GP106", "known: 16x1"),
        ("balanced", "GP106", "did you mean 'balanced/"),
        ("0x1", "GP107", "such as 8x1"),
        ("4:4", "GP107", "write N:M"),
        ("5:4", "GP107", "write N:M"),
        ("0:4", "GP107", "such as 8x1 or 2:4"),
        ("2:4/1", "GP107", "write 2:4"),
        ("balanced/99999999999", "GP107", "such as"),
        ("balanced/70000", "GP107", "from 2 to 65535"),
        ("tile/1", "GP107", "such as"),
        ("pattern:16/8", "GP107", "pattern:4/8"),
        ("pattern:4/300", "GP107", "pattern:4/8"),
        ("²x1", "GP106", "known"),
    ],
)
def test_mistakes_are_told(text: str, code: str, words: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        parse(text)
    assert caught.value.code == code
    assert words in caught.value.remedy or words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("unstructured", Needs()),
        ("8x1", Needs(rows=8)),
        ("32x16", Needs(rows=32, inputs=16)),
        ("2:4", Needs(fixed=True, group=4)),
        ("2:4/8", Needs(rows=8, fixed=True, group=4)),
        ("balanced/64", Needs(fixed=True, group=64)),
        ("tile/64", Needs(rows=64)),
        ("pattern:4/8", Needs(fixed=True, taps=True)),
    ],
)
def test_what_a_kernel_needs(text: str, needs: Needs) -> None:
    assert parse(text).needs == needs


@pytest.mark.parametrize(
    ("text", "shape", "word"),
    [
        ("8x1", (4, 1, 64), "less than one block of 8x1"),
        ("1x8", (4, 9, 3), "less than one block of 1x8"),
        ("2:4", (64, 9, 3), "less than one group of 2:4"),
        ("2:4/8", (4, 1, 64), "less than one group of 2:4/8"),
        ("balanced/64", (64, 1, 32), "less than one bank"),
        ("tile/64", (32, 1, 32), "less than one tile"),
        ("pattern:4/8", (64, 1, 64), "this one has 1"),
        ("pattern:4/8", (64, 49, 64), "this one has 49"),
    ],
)
def test_what_does_not_fit(text: str, shape: tuple[int, int, int], word: str) -> None:
    assert word in parse(text).misfit(*shape)
    assert parse(text).misfit(128, 9, 128) == ""


def test_a_format_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.formats import rows_kept

    monkeypatch.setitem(FORMATS.builtin, "rows", "tests.formats.rows_kept:Rows")
    made: Format = parse("rows")
    assert isinstance(made, rows_kept.Rows)
