"""What a user reads when something goes wrong, word for word."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.codes import CODES
from graphprune.errors import LONGEST_LINE, BudgetNotMet, GraphPruneError, did_you_mean, one_line


def test_three_lines_fact_place_remedy() -> None:
    error = GraphPruneError("GP203", "no rule for operator com.example.Fold", "node 'fold_3'", "add a row for it")
    assert str(error).splitlines() == [
        "GP203 no rule for operator com.example.Fold",
        "  at  node 'fold_3'",
        "  fix add a row for it",
    ]


def test_place_is_left_out_when_there_is_none_and_the_code_brings_a_remedy() -> None:
    assert str(GraphPruneError("GP302", "nothing to prune")).splitlines() == [
        "GP302 nothing to prune",
        f"  fix {CODES['GP302'].remedy}",
    ]


def test_exit_codes() -> None:
    assert GraphPruneError("GP101", "no file a.onnx").exit_code == 2
    assert BudgetNotMet("GP301", "75 % remain, 60 % were asked for").exit_code == 1


def test_an_unknown_code_is_refused_with_the_place_to_add_it() -> None:
    with pytest.raises(ValueError, match=r"'GP999' is not an error code: add a row for it to graphprune/codes/"):
        GraphPruneError("GP999", "something")


@pytest.mark.parametrize("kind", [GraphPruneError, BudgetNotMet])
def test_errors_survive_another_process(kind: type[GraphPruneError]) -> None:
    error = kind("GP301", "what", "where", "remedy")
    error.where = "elsewhere"  # as a pipeline does when it adds the step
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_names_from_a_file_cannot_add_lines(what: str, where: str, remedy: str) -> None:
    lines = str(GraphPruneError("GP102", what, where, remedy)).splitlines()
    assert [line[:6] for line in lines[1:]] == ["  at  ", "  fix "]
    assert all(line.isprintable() for line in lines)


def test_terminal_commands_are_shown_not_sent() -> None:
    assert one_line("a\x1b[2Jb") == "a\\x1b[2Jb"
    assert one_line("größe × 2") == "größe × 2"


def test_a_long_name_is_shown_by_its_ends() -> None:
    shown = one_line("start" + "x" * 10 * LONGEST_LINE + "end")
    assert shown.startswith("start")
    assert shown.endswith("end")
    assert len(shown) < LONGEST_LINE + 10


def test_did_you_mean() -> None:
    assert did_you_mean("marcs", ["params", "macs"]) == "did you mean 'macs'? known: macs, params"
    assert did_you_mean("zzz", ["params", "macs"]) == "known: macs, params"
    assert did_you_mean("zzz", []) == "there are none to choose from"
