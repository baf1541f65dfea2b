"""Features of processors: as they are told, level by level, and masked."""

from itertools import pairwise

import pytest

from graphprune.errors import GraphPruneError
from graphprune.runtime.cpu import LEVELS, Cpu, cpu, masked, parsed


def having(*names: str) -> Cpu:
    return Cpu("x86_64", "Example", frozenset(names))


def test_each_level_holds_those_below_it() -> None:
    names = list(LEVELS)
    assert names == ["v1", "v2", "v3", "v4"]
    assert all(set(LEVELS[a]) < set(LEVELS[b]) for a, b in pairwise(names))


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_needs_every_one_of_its_features(level: str) -> None:
    assert having(*LEVELS[level]).level == level
    for name in LEVELS[level]:
        assert having(*(set(LEVELS[level]) - {name})).level < level


def test_unknown_features_are_taken_for_none() -> None:
    unknown = Cpu("x86_64", "", None)
    assert unknown.level == "v1"
    assert unknown.missing({"avx2"}) == ("avx2",)
    assert "not known" in str(unknown)


def test_another_architecture_has_no_level() -> None:
    assert Cpu("aarch64", "Example", frozenset({"asimd"})).level == ""


def test_a_feature_counts_where_every_processor_has_it() -> None:
    told = "processor : 0\nmodel name : Big\nflags : avx2 fma\n\nprocessor : 1\nmodel name : Small\nflags : fma sse2\n"
    assert parsed(told) == Cpu("x86_64", "Big", frozenset({"fma"}))


def test_a_mask_takes_and_never_gives() -> None:
    all_of_it = having(*LEVELS["v4"], "amx_tile")
    assert masked(all_of_it, "v3").level == "v3"
    assert masked(all_of_it, "v3").missing({"amx_tile"}) == ("amx_tile",)
    assert masked(having(*LEVELS["v2"]), "v4").level == "v2"
    assert masked(Cpu("x86_64", "", None), "v3").level == "v1"
    assert "limited to v3" in str(masked(all_of_it, "v3"))


def test_the_environment_masks_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v1")
    if cpu().machine == "x86_64":
        assert cpu().level == "v1"
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v33")
    with pytest.raises(GraphPruneError, match="GP106 'v33' is not a level of x86-64"):
        cpu()
