"""What the design says about the tree itself: who may import what, what is installed, how long things may be."""

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import graphprune
from graphprune.passes import PASSES
from graphprune.registry import Registry
from graphprune.targets import TARGETS

ROOT = Path(__file__).parent.parent
SOURCE = ("graphprune", "passes", "targets")
FRAMEWORKS = {"onnx", "onnx_ir", "onnxruntime", "onnxscript", "torch", "tvm"}
HEAVY = FRAMEWORKS | {"google", "matplotlib", "ml_dtypes", "networkx", "numpy", "rich", "scipy", "typer"}
MOST_LINES_OF_A_FILE = 500
MOST_LINES_OF_A_FUNCTION = 60
MOST_SECONDS_OF_IMPORT = 0.3


def files(*folders: str) -> Iterator[Path]:
    """Every Python file under `folders`, each once: the links inside graphprune/ are not followed."""
    for folder in folders:
        for place, _, names in os.walk(ROOT / folder):
            yield from (Path(place, name) for name in sorted(names) if name.endswith(".py"))


def module_of(path: Path) -> str:
    """The name by which a source file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "graphprune" else ("graphprune", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


MODULES = sorted(module_of(path) for path in files(*SOURCE))


def python(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new Python that finds this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=folder
    )


# What is installed


def test_packages_in_pyproject_are_those_in_the_tree() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert listed == sorted(module_of(path) for path in files(*SOURCE) if path.name == "__init__.py")


@pytest.mark.parametrize("name", ["passes", "targets"])
def test_the_links_say_how_the_folders_are_imported(name: str) -> None:
    assert os.readlink(ROOT / "graphprune" / name) == os.path.join("..", name)
    assert Path(str(importlib.import_module(f"graphprune.{name}").__file__)).resolve() == ROOT / name / "__init__.py"


@pytest.mark.parametrize("name", ["passes", "targets"])
def test_a_second_copy_cannot_be_imported(name: str, tmp_path: Path) -> None:
    done = python(f"import {name}", tmp_path)
    assert done.returncode == 1
    assert f"ImportError: import graphprune.{name}, not {name}" in done.stderr


def test_readme_commands_are_what_ci_runs() -> None:
    commands = re.findall(r"^```sh\n(.+?)\n```$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 2
    run = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [command for command in commands if f"step '{command}'" not in run] == []


# Public names


@pytest.mark.parametrize("name", graphprune.__all__)
def test_public_name_is_importable(name: str) -> None:
    assert getattr(graphprune, name).__name__ == name
    assert name in dir(graphprune)


def test_names_that_are_modules_too_stay_functions() -> None:
    for name in ("plan", "apply", "verify"):
        module = importlib.import_module(f"graphprune.{name}")  # what `import graphprune.plan` does
        assert isinstance(module, ModuleType)
        assert callable(getattr(graphprune, name))
        assert getattr(graphprune, name) is getattr(importlib.import_module("graphprune.api"), name)


@pytest.mark.parametrize("name", ["plan", "apply", "verify"])
def test_names_stay_functions_when_the_module_comes_first(name: str) -> None:
    done = python(f"import graphprune.{name}; print(graphprune.{name})")
    assert done.stdout.startswith(f"<function {name} "), done.stderr


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'graphprune' has no attribute 'purne'"):
        _ = graphprune.purne  # type: ignore[attr-defined]


@pytest.mark.parametrize("registry", [PASSES, TARGETS], ids=lambda registry: registry.group)
def test_builtin_names_are_those_that_the_objects_carry(registry: Registry) -> None:
    assert {name: registry.load(name).name for name in registry.builtin} == {name: name for name in registry.builtin}


# Weight and direction of imports


def heavy_after(code: str) -> set[str]:
    """The heavy packages that are loaded once `code` has run in a new Python."""
    done = python(f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})")
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("module", ["graphprune", "graphprune.passes", "graphprune.pipeline", "graphprune.targets"])
def test_import_is_light(module: str) -> None:
    assert heavy_after(f"import {module}") == set()


def test_the_check_of_light_imports_can_fail() -> None:
    assert heavy_after("import graphprune, numpy") == {"numpy"}


def test_import_is_fast() -> None:
    code = "import time; start = time.process_time(); import graphprune; print(time.process_time() - start)"
    assert min(float(python(code).stdout) for _ in range(3)) < MOST_SECONDS_OF_IMPORT


def imported_at_run_time(tree: ast.AST) -> Iterator[str]:
    """Every module that the source imports, anywhere, except under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                yield from imported_at_run_time(ast.Module([other], []))
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
        yield from imported_at_run_time(node)


def imports_outside(*folders: str) -> set[tuple[str, str]]:
    """Every import at run time in the core (file, module), except in these folders of it."""
    return {
        (shown(path), name)
        for path in files("graphprune")
        if not shown(path).startswith(tuple(f"graphprune/{folder}/" for folder in folders))
        for name in imported_at_run_time(ast.parse(path.read_text()))
    }


def test_only_dialects_and_the_torch_door_import_frameworks() -> None:
    found = {(path, name) for path, name in imports_outside("dialects", "torch") if name.split(".")[0] in FRAMEWORKS}
    # Steps of a built network that no kernel of ours runs; they are the only part of the runtime that needs more than
    # TVM's runtime library.
    fallback = "graphprune/runtime/fallback.py"
    assert found == {(fallback, "onnxruntime"), (fallback, "onnxruntime.capi")}


def test_the_core_knows_no_dialect() -> None:
    """It works through what `tools_of` finds; only `load` and `save` are about files of one format."""
    folders = [path for path in (ROOT / "graphprune" / "dialects").iterdir() if path.is_dir()]
    dialects = tuple(f"graphprune.dialects.{path.name}" for path in folders)
    assert "graphprune.dialects.onnx" in dialects
    found = {(path, name) for path, name in imports_outside("dialects", "cli", "torch") if name.startswith(dialects)}
    assert found == {("graphprune/api.py", "graphprune.dialects.onnx")}


def test_the_check_of_dialects_can_fail() -> None:
    assert ("graphprune/cli/bench.py", "graphprune.dialects.onnx.timing") in imports_outside("dialects")
    assert not any(path.startswith("graphprune/cli/") for path, _ in imports_outside("dialects", "cli"))


def test_finding_the_tools_of_a_model_loads_no_framework() -> None:
    made = "model = type('Model', (), {'__module__': 'onnx_ir'})()"
    loaded = heavy_after(f"from graphprune.dialects import tools_of; {made}; assert tools_of(model).read")
    assert loaded == set()


def test_core_imports_neither_passes_nor_targets() -> None:
    found = {
        (shown(path), name)
        for path in files("graphprune")
        for name in imported_at_run_time(ast.parse(path.read_text()))
        if name.startswith(("graphprune.passes", "graphprune.targets"))
        and path.relative_to(ROOT).parts[:2] != ("graphprune", "cli")  # the command line stands above both
    }
    assert found == set()


def test_the_check_of_imports_can_fail() -> None:
    source = "if TYPE_CHECKING:\n    import onnx\nelse:\n    import a\ndef f():\n    from torch.fx import Graph"
    assert sorted(imported_at_run_time(ast.parse(source))) == ["a", "torch.fx"]


# Size, and examples that run


def too_long(path: Path) -> Iterator[str]:
    """What of a file is beyond the size budget."""
    text = path.read_text()
    if len(text.splitlines()) > MOST_LINES_OF_A_FILE:
        yield f"{path.name} has {len(text.splitlines())} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield f"{path.name}:{node.lineno} {node.name} has {lines} lines"


def test_files_and_functions_are_short() -> None:
    assert [line for path in files(*SOURCE, "tests", "examples") for line in too_long(path)] == []


def test_the_check_of_size_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    x = 1\n" * MOST_LINES_OF_A_FILE)
    assert list(too_long(path)) == ["long.py has 501 lines", "long.py:1 f has 501 lines"]


def test_every_module_says_what_it_holds() -> None:
    assert [shown(path) for path in files(*SOURCE) if not ast.get_docstring(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    if name.startswith(("graphprune.dialects.aten", "graphprune.torch")):
        pytest.importorskip("torch")
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
