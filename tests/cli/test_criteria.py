"""`graphprune criteria`: all criteria, what they need and cost."""

from __future__ import annotations

import json

import pytest

from graphprune.cli import criteria, main
from graphprune.criteria import CRITERIA
from graphprune.registry import Registry


def test_all_criteria_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["criteria", "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert set(found) >= set(CRITERIA.builtin)
    assert all(each["looks at"] and each["cost"] and each["error"] is None for each in found.values())
    needs = {name: found[name]["needs"] for name in ("l2", "random", "wanda", "obs", "taylor", "synflow")}
    assert needs == {
        "l2": "nothing", "random": "nothing", "wanda": "inputs", "obs": "inputs", "taylor": "gradients, labels",
        "synflow": "gradients",
    }  # fmt: skip


def test_the_list_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["criteria"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["criterion", "needs", "cost", "looks", "at"]
    assert [line.split()[0] for line in lines[1:]] == sorted(CRITERIA.names())


def test_one_that_cannot_be_loaded_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Registry("graphprune.criteria", {"broken": "no_such_module:It", "l1": CRITERIA.builtin["l1"]})
    monkeypatch.setattr(criteria, "CRITERIA", broken)
    assert main(["criteria", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found] == ["broken", "l1"]
    assert found[0]["error"].startswith("GP111") and found[1]["error"] is None


def test_help_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "wanda" in shown and "graphprune criteria" in shown


def test_a_misspelt_one_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["critera"]) == 2
    assert "did you mean 'criteria'?" in capsys.readouterr().err
