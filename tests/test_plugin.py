"""A package of somebody else, really built and installed, brings a pass that graphprune finds by name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).with_name("plugin_example")
ROOT = EXAMPLE.parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which plugin_example/ is installed, without a network and without touching this environment."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")  # a copy, because building leaves files beside the source
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*install, "--target", folder / "site", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def run(code: str, *search: Path) -> str:
    """The output of `code` in a new Python that looks for packages in `search` too. Raises when it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*search, ROOT]))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NAMES = "from graphprune.passes import PASSES; print('halve' in PASSES.names())"


def test_the_pass_is_found_only_where_the_package_is_installed(site: Path) -> None:
    assert run(NAMES, site) == "True"
    assert run(NAMES) == "False"


def test_the_pass_is_listed_loaded_and_configured_by_text(site: Path) -> None:
    code = """
from graphprune.passes import PASSES
from graphprune.pipeline import Pipeline
entry = next(entry for entry in PASSES.entries() if entry.name == "halve")
print(entry.distribution, entry.target, repr(entry.error))
print(PASSES.load("halve").name, Pipeline.from_text("halve{share=0.25}", PASSES))
"""
    assert run(code, site).splitlines() == [
        "graphprune-plugin-example halve_plugin.halve:Halve ''",
        "halve halve{share=0.25}",
    ]


def test_a_bad_option_of_the_pass_is_an_ordinary_error(site: Path) -> None:
    code = """
from graphprune import GraphPruneError
from graphprune.passes import PASSES
from graphprune.pipeline import Pipeline
for text in ("halve{share=2}", "halve{shore=0.5}"):
    try:
        Pipeline.from_text(text, PASSES)
    except GraphPruneError as error:
        print(error.code, error.what)
"""
    assert run(code, site).splitlines() == [
        "GP107 share must be between 0 and 1, not 2.0",
        "GP106 unknown option 'shore'",
    ]


def test_the_pass_prunes_a_model(site: Path) -> None:
    code = f"""
import graphprune as gp
from graphprune.passes import PASSES
from graphprune.pipeline import Pipeline
def parameters(model):
    return sum(value.const_value.size for value in model.graph.initializers.values())
model = gp.load({str(ROOT / "examples" / "super_resolution.onnx")!r})
before = parameters(model)
result = Pipeline.from_text("halve", PASSES).apply(model)
print(parameters(model) == before, parameters(result.model) < 0.6 * before)
"""
    assert run(code, site) == "True True"
