"""Features of processors: as they are told, level by level, and masked."""

from itertools import pairwise
from pathlib import Path

import pytest

from graphprune.errors import GraphPruneError
from graphprune.runtime.cpu import LEVELS, Cpu, ask, cpu, masked, parsed, permitted


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


TILES = "model name : Example\nflags : avx2 amx_tile amx_bf16 amx_int8\n"


def test_tiles_are_there_where_the_operating_system_gives_them() -> None:
    asked: list[bool] = []

    def told(answer: bool) -> bool:
        asked.append(answer)
        return answer

    assert permitted(parsed(TILES), lambda: told(True)) == parsed(TILES)
    refused = permitted(parsed(TILES), lambda: told(False))
    assert refused.features == {"avx2"} and "refuses AMX" in str(refused)
    assert "refuses AMX" in str(masked(refused, "v4")) and "refuses" not in str(parsed(TILES))
    assert asked == [True, False]
    for other in ("flags : avx2\n", ""):  # nobody asks for what is not there
        assert permitted(parsed(other), lambda: told(False)) == parsed(other)
    assert asked == [True, False]


def test_asking_is_answered() -> None:
    """By the operating system of whoever runs this: with tiles where the processor has them, never with an error."""
    known = parsed(Path("/proc/cpuinfo").read_text()).features if Path("/proc/cpuinfo").exists() else None
    assert ask() in {False, bool(known and "amx_tile" in known)}
