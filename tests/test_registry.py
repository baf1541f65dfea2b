"""Built-in and third-party names through one door: lazily, with clashes and broken packages told by name."""

import sys
from pathlib import Path

import pytest

from graphprune.errors import GraphPruneError
from graphprune.registry import BUILTIN, Entry, Registry

GROUP = "graphprune.passes"


def install(folder: Path, distribution: str, names: dict[str, str]) -> None:
    """Make `folder` hold an installed package `distribution` with entry points `names`, without any code."""
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    points = "".join(f"{name} = {target}\n" for name, target in names.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of installed packages, searched like site-packages."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_builtin_names_are_listed_without_importing_and_loaded_when_asked() -> None:
    registry = Registry("example.none", {"b": "module.that.does.not:Exist", "a": "fractions:Fraction"})
    assert registry.names() == ("a", "b")
    from fractions import Fraction

    assert registry.load("a") is Fraction


def test_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(GraphPruneError) as caught:
        Registry("example.none", {"width": "a:B", "clean": "a:C"}).load("widht")
    assert str(caught.value).splitlines() == [
        "GP106 no 'widht' in example.none",
        "  fix did you mean 'width'? known: clean, width",
    ]


def test_another_package_adds_names(site: Path) -> None:
    install(site, "other-package", {"halve": "fractions:Fraction [extra]"})
    registry = Registry(GROUP, {"width": "collections:Counter"})
    assert {"halve", "width"} <= set(registry.names())
    from fractions import Fraction

    assert registry.load("halve") is Fraction
    assert Entry("halve", "fractions:Fraction", "other-package") in registry.entries()
    assert Entry("width", "collections:Counter", BUILTIN) in registry.entries()


def test_a_clash_names_both_packages_and_leaves_other_names_usable(site: Path) -> None:
    install(site / "one", "first-package", {"halve": "fractions:Fraction", "fine": "fractions:Fraction"})
    install(site / "two", "second-package", {"halve": "collections:Counter"})
    sys.path[:0] = [str(site / "one"), str(site / "two")]  # undone by the fixture, which restores sys.path
    registry = Registry(GROUP)
    with pytest.raises(GraphPruneError) as caught:
        registry.load("halve")
    assert caught.value.code == "GP110"
    assert caught.value.what == "'halve' in graphprune.passes is registered by 'first-package' and 'second-package'"
    assert registry.load("fine")
    clashing = [entry for entry in registry.entries() if entry.name == "halve"]
    assert [entry.distribution for entry in clashing] == ["first-package", "second-package"]
    assert all(entry.error.startswith("GP110") for entry in clashing)


def test_a_builtin_name_cannot_be_taken_over(site: Path) -> None:
    install(site, "other-package", {"width": "fractions:Fraction"})
    with pytest.raises(GraphPruneError, match="'graphprune' and 'other-package'"):
        Registry(GROUP, {"width": "collections:Counter"}).load("width")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('needs a newer driver')", "RuntimeError: needs a newer driver"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("def broken(:", "SyntaxError"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_package_is_listed_with_its_error(site: Path, source: str, reason: str) -> None:
    module = f"broken_plugin_{abs(hash(source))}"
    (site / f"{module}.py").write_text(source)
    install(site, "broken-package", {"broken": f"{module}:Broken"})
    registry = Registry(GROUP, {"width": "collections:Counter"})
    with pytest.raises(GraphPruneError) as caught:
        registry.load("broken")
    assert caught.value.code == "GP111"
    assert reason in caught.value.what
    assert "broken-package" in caught.value.where
    entries = {entry.name: entry for entry in registry.entries()}
    assert reason in entries["broken"].error
    assert entries["width"].error == ""
