"""Every code has what a reader needs, in words that help."""

import importlib
import pkgutil
import re

import pytest

import graphprune.codes
from graphprune.codes import CODES, FAMILIES, Code

LEAST_WORDS_OF_TEXT = 18


def complaints(row: Code) -> list[str]:
    """What is wrong with a row; empty when it is fit to be shown to a user."""
    found = []
    if not re.fullmatch(r"GP\d{3}", row.code) or row.code[:3] not in FAMILIES:
        found.append("the code is not GP and three digits of a known family")
    if not row.title or row.title.endswith(".") or len(row.title) > 60:
        found.append("the title is not a short heading")
    if len(row.text.split()) < LEAST_WORDS_OF_TEXT or not row.text.endswith("."):
        found.append("the text does not explain in sentences")
    if not row.remedy or row.remedy.endswith(".") or row.remedy == row.title:
        found.append("the remedy is not one instruction without a full stop")
    if not "".join((row.title, row.text, row.remedy)).isprintable():
        found.append("a text breaks lines by itself")
    return found


@pytest.mark.parametrize("row", CODES.values(), ids=lambda row: row.code)
def test_code_is_complete_and_helpful(row: Code) -> None:
    assert complaints(row) == []


@pytest.mark.parametrize(
    "row",
    [
        Code("GP8", "title", "word " * 20 + ".", "do this"),
        Code("GP001", "title", "word " * 20 + ".", "do this"),
        Code("GP101", "", "word " * 20 + ".", "do this"),
        Code("GP101", "title", "too short.", "do this"),
        Code("GP101", "title", "word " * 20 + ".", ""),
        Code("GP101", "title", "word\n" * 20 + ".", "do this"),
    ],
)
def test_the_check_of_codes_can_fail(row: Code) -> None:
    assert len(complaints(row)) == 1


def test_codes_are_sorted_and_unique() -> None:
    codes = [row.code for family in codes_of_families() for row in family]
    assert codes == sorted(set(codes))
    assert list(CODES) == codes


def codes_of_families() -> list[tuple[Code, ...]]:
    """The rows of each file that has some, in the order of the files' families."""
    names = (module.name for module in pkgutil.iter_modules(graphprune.codes.__path__, "graphprune.codes."))
    found = [getattr(importlib.import_module(name), "ROWS", ()) for name in names]
    return sorted((rows for rows in found if rows), key=lambda rows: rows[0].code)


def test_titles_are_unique() -> None:
    titles = [row.title for row in CODES.values()]
    assert len(set(titles)) == len(titles)


def test_codes_mentioned_in_texts_exist() -> None:
    mentioned = {code for row in CODES.values() for code in re.findall(r"GP\d+", row.text + row.remedy)}
    assert mentioned
    assert mentioned <= set(CODES)


def test_every_family_has_a_code_and_every_code_a_family() -> None:
    assert {row.family for row in CODES.values()} == set(FAMILIES.values())
