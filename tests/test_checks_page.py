"""docs/checks.md names tests and benchmarks that exist, and has a row for each method of the first release."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "checks.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:tests|benchmarks)/[\w/.]+(?:::\w+)?)`", PAGE)))


def missing(name: str) -> bool:
    path, _, test = name.partition("::")
    return not (ROOT / path).is_file() or bool(test and f"def {test}(" not in (ROOT / path).read_text())


@pytest.mark.parametrize("name", NAMED)
def test_what_the_page_names_is_there(name: str) -> None:
    assert not missing(name)


def test_names_that_are_not_there_are_found() -> None:
    assert missing("tests/test_checks_page.py::test_of_nothing")
    assert missing("tests/test_no_such_page.py")


def test_every_method_has_a_row() -> None:
    rows = re.findall(r"^\| (\d+) ", PAGE, re.MULTILINE)
    assert rows == [str(number) for number in range(1, 26)]
    assert len(NAMED) > 50
