"""Networks to run are compiled by TVM here: without TVM, or on another kind of machine, there are none."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from graphprune.runtime.cpu import cpu


@pytest.fixture
def compiler() -> None:
    """Skips a test where networks cannot be compiled and run."""
    if find_spec("tvm") is None:
        pytest.skip("needs TVM (the extra tvm)")
    if cpu().level < "v3":
        pytest.skip("some of the networks are compiled for x86-64-v3")


@pytest.fixture
def made(compiler: None, tmp_path: Path) -> Path:
    """An artifact of the network y = relu(x + bias) with the variants v3 and v1."""
    from tests.runtime import handmade

    return handmade.artifact(tmp_path / "model.gp", handmade.network("v3", "v1"))
