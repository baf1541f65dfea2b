"""Passes from and to text, and a runner that believes nothing it can check. A model here is a list of numbers."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.errors import GraphPruneError
from graphprune.pass_text import Atom, parse
from graphprune.pipeline import Pass, PassResult, Pipeline, Step
from graphprune.registry import Registry


@dataclass(frozen=True)
class Drop(Pass):
    """Remove numbers below `least`.    [1, 5] --> [5]"""

    name: ClassVar[str] = "drop"
    least: float = 0.0
    count: int | None = None
    heads: Literal["keep", "split"] = "keep"
    only: tuple[str, ...] = ()
    label: str | None = None
    exact: bool = False

    def apply(self, model: Any) -> PassResult:
        """Keep what is large enough."""
        kept = [number for number in model if number >= self.least]
        if kept == model:
            return PassResult(model, False, "nothing below")
        return PassResult(kept, True, f"{len(model) - len(kept)} removed")


@dataclass(frozen=True)
class Does(Pass):
    """Returns what a function makes of the model: a pass that can break any promise."""

    name: ClassVar[str] = "does"
    function: Any

    def apply(self, model: Any) -> PassResult:
        """Call the function."""
        result: PassResult = self.function(model)
        return result

    def __str__(self) -> str:
        return self.name


REGISTRY = Registry("example.passes", {"drop": "tests.test_pipeline:Drop", "not-a-pass": "collections:Counter"})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """REGISTRY finds this module by the name that its entry gives, whatever name the test runner chose for it."""
    import sys

    monkeypatch.setitem(sys.modules, "tests.test_pipeline", sys.modules[__name__])


def test_text_gives_typed_options() -> None:
    text = "drop{least=0.5, count=3, heads=split, only=[conv1.weight, 'a b'], label=none, exact=true}"
    assert Drop.from_text(text) == Drop(0.5, 3, "split", ("conv1.weight", "a b"), None, True)
    assert Drop.from_text("drop") == Drop.from_text("drop{}") == Drop()
    assert Drop.from_text("drop{only=conv1.weight}") == Drop(only=("conv1.weight",))


def test_text_shows_only_what_differs_from_the_defaults() -> None:
    assert str(Drop()) == "drop"
    assert str(Drop(0.5, label="none", only=("a b", "c"))) == "drop{least=0.5, only=['a b', c], label='none'}"


@given(
    st.builds(
        Drop,
        least=st.floats(allow_nan=False),
        count=st.none() | st.integers(),
        heads=st.sampled_from(["keep", "split"]),
        only=st.lists(st.text()).map(tuple),
        label=st.none() | st.text(),
        exact=st.booleans(),
    )
)
def test_printed_text_reads_back_as_the_same_pass(step: Drop) -> None:
    assert Drop.from_text(str(step)) == step


def test_hyphens_and_underscores_are_the_same_in_an_option() -> None:
    assert parse("p{max-ratio=1}")[0].options == {"max_ratio": Atom("1")}


@pytest.mark.parametrize(
    ("text", "code", "what"),
    [
        ("drop{lest=1}", "GP106", "unknown option 'lest'"),
        ("drop{least=abc}", "GP107", "least must be a number, not 'abc'"),
        ("drop{least='1'}", "GP107", "least must be a number, not '1'"),
        ("drop{least=[1]}", "GP107", "least must be a number, not a list"),
        ("drop{count=1.5}", "GP107", "count must be a whole number or none, not '1.5'"),
        ("drop{heads=both}", "GP107", "heads must be one of keep, split, not 'both'"),
        ("drop{exact=yes}", "GP107", "exact must be true or false, not 'yes'"),
        ("drop{least=1,least=2}", "GP107", "the option least is given twice"),
        ("drip", "GP106", "'drip' is not the pass drop"),
        ("drop,drop", "GP106", "'drop,drop' is not the pass drop"),
    ],
)
def test_bad_options_are_named(text: str, code: str, what: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        Drop.from_text(text)
    assert (caught.value.code, caught.value.what) == (code, what)


def test_a_misspelt_option_suggests_the_right_one() -> None:
    with pytest.raises(GraphPruneError) as caught:
        Drop.from_text("drop{lest=1}")
    assert str(caught.value).splitlines() == [
        "GP106 unknown option 'lest'",
        "  at  option lest of the pass drop",
        "  fix did you mean 'least'? known: count, exact, heads, label, least, only",
    ]


def test_an_option_without_text_form_and_one_without_a_value() -> None:
    with pytest.raises(GraphPruneError, match="which cannot be written as text"):
        Does.from_text("does{function=1}")
    with pytest.raises(GraphPruneError, match="the pass does needs a value for function"):
        Does.from_text("does")


@pytest.mark.parametrize(
    ("text", "what", "column"),
    [
        ("", "expected the name of a pass, found the end", 1),
        ("a,", "expected the name of a pass, found the end", 3),
        ("a b", "expected a comma or the end, found 'b'", 3),
        ("a{x}", "expected = and a value, found '}'", 4),
        ("a{x=}", "expected a value, found '}'", 5),
        ("a{x=1", "expected a comma or }, found the end", 6),
        ("a{x=[1", "expected a comma or ], found the end", 7),
        ("a{x='b", "expected a closing quotation mark, found the end", 5),
        ("{x=1}", "expected the name of a pass, found '{'", 1),
    ],
)
def test_text_that_makes_no_sense_names_the_column(text: str, what: str, column: int) -> None:
    with pytest.raises(GraphPruneError) as caught:
        parse(text)
    assert caught.value.what == what
    assert caught.value.where.startswith(f"column {column} of the pipeline")


@given(st.text(alphabet="ab{}[],='\"\\ 1"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        calls = parse(text)
    except GraphPruneError as error:
        assert error.code == "GP107"
    else:
        assert calls


def test_pipeline_from_text_runs_and_reports_every_step() -> None:
    pipeline = Pipeline.from_text("drop{least=2}, drop{least=1}", REGISTRY)
    model = [1, 2, 3]
    result = pipeline.apply(model)
    assert (result.model, result.modified, model) == ([2, 3], True, [1, 2, 3])
    assert result.report == (
        Step("drop{least=2.0}", True, "1 removed"),
        Step("drop{least=1.0}", False, "nothing below"),
    )
    assert [str(step) for step in result.report] == ["drop{least=2.0}: 1 removed", "drop{least=1.0}: nothing below"]
    assert str(pipeline) == "drop{least=2.0},drop{least=1.0}"


def test_a_pipeline_that_changes_nothing_returns_its_input() -> None:
    model = [5]
    result = Pipeline((Drop(1), Drop(2))).apply(model)
    assert result.model is model
    assert not result.modified


def test_pipeline_text_with_unknown_or_wrong_passes() -> None:
    with pytest.raises(GraphPruneError, match="did you mean 'drop'"):
        Pipeline.from_text("dorp", REGISTRY)
    with pytest.raises(GraphPruneError, match=r"'not-a-pass' in example\.passes is not a subclass of Pass"):
        Pipeline.from_text("not-a-pass", REGISTRY)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda model: model, "the pass does returned a list"),
        (lambda model: PassResult(tuple(model), True), "the pass does turned a list into a tuple"),
        (lambda model: PassResult(model, True), "the pass does says modified=True and returned its input"),
        (lambda model: PassResult([*model], False), "the pass does says modified=False and returned another model"),
        (lambda model: PassResult([*model], True), "the pass does says modified=True and returned an equal copy"),
        (lambda model: PassResult([model.pop()], True), "the pass does changed the model that came in"),
    ],
)
def test_a_broken_promise_stops_the_pipeline_and_tells_the_author(function: Any, what: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        Pipeline((Drop(1), Does(function)), fingerprint=tuple).apply([0, 1, 2])
    assert (caught.value.code, caught.value.what) == ("GP902", what)
    assert caught.value.where == "Does, in step 2 of 2: does, after drop{least=1}"
    assert caught.value.remedy.startswith("in the pass: ")


def fail(error: Exception) -> Any:
    """A function for Does that raises."""

    def raise_it(model: Any) -> PassResult:
        raise error

    return raise_it


def test_the_failing_step_is_named() -> None:
    refused = GraphPruneError("GP302", "nothing to prune")
    with pytest.raises(GraphPruneError) as caught:
        Pipeline((Does(fail(refused)),)).apply([1])
    assert caught.value.where == "step 1 of 1: does"
    with pytest.raises(ZeroDivisionError) as defect:
        Pipeline((Drop(1), Does(fail(ZeroDivisionError())))).apply([0, 1])
    assert defect.value.__notes__ == ["in step 2 of 2: does, after drop{least=1}"]


def test_verification_runs_after_each_change_and_can_reject() -> None:
    seen = []
    Pipeline((Drop(1), Drop(1), Drop(2)), lambda before, result: seen.append((before, result.model))).apply([0, 1, 2])
    assert seen == [([0, 1, 2], [1, 2]), ([1, 2], [2])]

    def reject(before: Any, result: PassResult) -> None:
        raise GraphPruneError("GP401", "outputs differ")

    with pytest.raises(GraphPruneError, match="GP401 outputs differ") as caught:
        Pipeline((Drop(1),), reject).apply([0, 1])
    assert caught.value.where == "step 1 of 1: drop{least=1}"
