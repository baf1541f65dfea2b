"""The target x86: rows of processors, and which of them run where."""

import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from graphprune.errors import GraphPruneError
from graphprune.runtime.cpu import LEVELS, Cpu
from graphprune.targets import TARGETS
from graphprune.targets.building import chosen
from graphprune.targets.x86.processors import PROCESSORS
from graphprune.targets.x86.target import X86


def test_it_is_registered() -> None:
    assert TARGETS.load("x86") is X86


@pytest.mark.parametrize("module", ["graphprune.targets.x86.target", "graphprune.targets.building"])
def test_importing_it_imports_no_framework(module: str) -> None:
    code = f"import {module}, sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({"tvm", "tvm_ffi", "torch", "onnxruntime"})


def test_the_best_come_first_and_the_last_runs_everywhere() -> None:
    needs = [set(each.features) for each in PROCESSORS]
    assert all(worse < better for better, worse in pairwise(needs))
    assert needs[-1] == set()
    lanes = [each.lanes for each in PROCESSORS]
    assert lanes == sorted(lanes, reverse=True)


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda each: each.name)
def test_llvm_uses_no_feature_that_a_row_does_not_name(processor: object, tmp_path: Path) -> None:
    """What LLVM switches on for the row's mcpu is what the row asks the operating system for, and no more."""
    if find_spec("tvm") is None:
        pytest.skip("needs TVM (the extra tvm)")
    import tvm

    get = tvm.get_global_func("target.llvm_get_cpu_has_feature", allow_missing=True)
    if get is None:
        get = tvm.get_global_func("target.llvm_cpu_has_feature", allow_missing=True)
    if get is None:
        pytest.skip("this TVM does not tell which features LLVM uses")
    target = tvm.target.Target({"kind": "llvm", "mcpu": processor.mcpu})  # type: ignore[attr-defined]
    ours = {"abm": "lzcnt", "bmi1": "bmi", "pni": "sse3", "sse4_1": "sse4.1", "sse4_2": "sse4.2", "lahf_lm": "sahf"}
    for name in LEVELS["v4"]:
        llvm = ours.get(name, name)
        assert bool(get(llvm, target)) == (name in processor.features), name  # type: ignore[attr-defined]


def test_a_processor_runs_what_it_has_all_features_of() -> None:
    having = Cpu("x86_64", "", frozenset(LEVELS["v3"]))
    assert [each.name for each in PROCESSORS if each.runs_on(having)] == ["v3", "v1"]
    assert [each.name for each in PROCESSORS if each.runs_on(Cpu("x86_64", "", None))] == ["v1"]


def test_variants_are_chosen_by_name_the_best_first() -> None:
    assert [each.name for each in chosen(X86(), None)] == ["v4", "v3", "v1"]
    assert [each.name for each in chosen(X86(), ["v1", "v4"])] == ["v4", "v1"]
    assert [each.name for each in chosen(X86(), ["v4-amx-int8", "v4-amx"])] == ["v4-amx", "v4-amx-int8"]
    with pytest.raises(GraphPruneError, match="GP106 the target x86 has no variant 'v5'"):
        chosen(X86(), ["v5"])
    with pytest.raises(GraphPruneError, match="GP107 no variant was chosen"):
        chosen(X86(), [])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("integers", [False, True])
def test_what_nobody_has_run_is_built_by_default_where_it_can_be(
    precision: str, integers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = frozenset(name for each in PROCESSORS for name in each.features)
    tiles = {name for name in every if name.startswith("amx_")}
    first = ["v4-amx"] * (precision == "bfloat16") + ["v4-amx-int8"] * integers
    for features, wanted in ((every, first), (every - tiles, [])):
        monkeypatch.setattr("graphprune.runtime.cpu._found", lambda found=features: Cpu("x86_64", "", found))
        names = [each.name for each in chosen(X86(), None, precision, integers)]
        assert [name for name in names if "amx" in name] == wanted
        assert names[len(wanted) :][-3:] == ["v4", "v3", "v1"]
