"""What docs/sparsity.md shows is what there is: its commands run, its format is the one that is tested."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from graphprune.cli import main
from graphprune.formats import FORMATS, parse
from graphprune.sparsity.allocate import ALLOCATORS
from graphprune.sparsity.importance import single_weights
from graphprune.sparsity.recover import RECOVERIES
from tests.sparsity.networks import kinds

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "sparsity.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(ir.to_proto(kinds()), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for line in blocks("sh")[0].splitlines():
        assert main(shlex.split(line)[1:]) == 0
    assert "8x1 (" in capsys.readouterr().out


def test_the_table_names_all_formats() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section("Formats"), re.MULTILINE)
    assert {name for name, _ in rows} == set(FORMATS.builtin)
    for name, texts in rows:
        assert {parse(text).name for text in re.findall(r"`(.+?)`", texts)} == {name}


def test_the_tables_name_what_there_is() -> None:
    recoveries = re.findall(r"^\| `(\w+)` \|", section("Weights that make up for zeros"), re.MULTILINE)
    assert recoveries == list(RECOVERIES)
    named = set(re.findall(r"`(\w+)`", section("Which weights")))
    assert set(ALLOCATORS) <= named and {"l1", "l2", "wanda", "obs"} <= named & set(single_weights())


def test_the_format_of_the_page_is_the_tested_one() -> None:
    (shown,) = [block for block in blocks("python") if "class Rows" in block]
    tested = (ROOT / "tests" / "formats" / "rows_kept.py").read_text()
    assert shown[shown.index("@dataclass") :] == tested[tested.index("@dataclass") :]
    assert all(line in tested for line in shown.splitlines())
