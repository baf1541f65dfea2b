"""Which model a command works on: an ONNX file, an exported program (`.pt2`), or a module that a callable makes.

`package.models:resnet` is imported and called, because that is asked for; its weights come from a safetensors file, and
nothing is unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from graphprune import api
from graphprune.cli.options import Before, _option
from graphprune.data.named import imported, is_named
from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from graphprune.analysis import Analysis

_INPUT = re.compile(r"(?:([A-Za-z_]\w*)=)?(\d+(?:,\d+)*)(?::([a-z]+\d+))?", re.ASCII)


@dataclass(frozen=True)
class Module:
    """What a module needs beside the callable that makes it."""

    weights: Annotated[
        Path | None,
        _option(
            "--weights",
            help="Weights of MODULE:CALLABLE (.safetensors, or a folder of gp.save).",
            rich_help_panel="PyTorch",
        ),
    ] = None
    input: Annotated[
        list[str],
        _option(
            "--input",
            help="Shape of an input of MODULE:CALLABLE: 1,3,224,224, or 2,16:int64, or ids=2,16:int64 (repeatable).",
            metavar="[NAME=]SHAPE[:TYPE]",
            rich_help_panel="PyTorch",
        ),
    ] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A model that was read, and what it is captured with where it is a module."""

    model: Any
    example_inputs: Any = None

    @property
    def is_of_torch(self) -> bool:
        """Whether it is a module or an exported program."""
        return api.is_of_torch(self.model)

    def analysis(self) -> Analysis:
        """Raises GraphPruneError as `graphprune.api.analyze` does."""
        return api.analyze(self.model, self.example_inputs)


def names_torch(path: Path) -> bool:
    """Whether a model is one of PyTorch, by what it is called."""
    return path.suffix.lower() == ".pt2" or is_callable(path)


def is_callable(path: Path) -> bool:
    """Whether this is `module:callable` and not a file of that name."""
    return is_named(str(path))


def read(path: Path, before: Before, module: Module, seed: int = 0) -> Source:
    """Read a model, and do what is to be done before pruning.

    Raises GraphPruneError: as `graphprune.api.load` does; GP107 for options that do not go with the model; GP101 and
    GP102 where a module cannot be imported or made.
    """
    torch = names_torch(path)
    if not is_callable(path) and (module.weights is not None or module.input):
        what = "--weights and --input are for a module that a callable makes"
        raise GraphPruneError("GP107", what, str(path), "write it as package.module:callable")
    if torch and (before.optimize or before.opset is not None):
        raise GraphPruneError("GP107", "--optimize and --opset are for ONNX models", str(path), "leave them out")
    if is_callable(path):
        return _made(str(path), module, seed)
    model = api.load(path)
    if before.optimize or before.opset is not None:
        from graphprune.dialects.onnx.prepare import prepare

        model = prepare(model, optimize=before.optimize, opset=before.opset)
    return Source(model)


def read_onnx(path: Path, before: Before, command: str) -> Any:
    """Read a model for a command that knows ONNX files only. Raises GraphPruneError GP103."""
    if names_torch(path):
        what = f"graphprune {command} reads ONNX models only"
        raise GraphPruneError("GP103", what, str(path), "export it with torch.onnx.export(..., dynamo=True)")
    return read(path, before, Module()).model


# ---------------------------------------------------------------- modules
def _made(name: str, module: Module, seed: int) -> Source:
    if not module.input:
        remedy = "add --input 1,3,224,224, once for each argument of forward"
        raise GraphPruneError("GP107", "a module is captured by running it, but no input was given", name, remedy)
    inputs = _inputs(module.input, seed)
    return Source(module_of(name, module.weights, module.input, seed), inputs)


def module_of(name: str, weights: Path | None, inputs: Sequence[str] = (), seed: int = 0) -> Any:
    """The module that a callable makes, with weights from a safetensors file or a folder of `graphprune.save`.

    inputs: shapes, for a folder with a graph, which is traced anew
    Raises GraphPruneError as :func:`read` does.
    """
    _require_torch()
    from graphprune.torch import load, sources

    make = _callable(name)
    if weights is not None and weights.is_dir():
        return load(lambda: sources.made(make, name), weights, _inputs(inputs, seed) if inputs else None)
    model = sources.made(make, name)
    if weights is not None:
        sources.load_weights(model, weights)
    return model


def _inputs(shapes: Sequence[str], seed: int) -> Any:
    _require_torch()
    from graphprune.torch import sources

    return sources.example_inputs([_shape(text) for text in shapes], seed)


def _require_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise GraphPruneError("GP108", "models of PyTorch need torch", "", "pip install 'graphprune[torch]'")


def _shape(text: str) -> tuple[str, tuple[int, ...], str]:
    match = _INPUT.fullmatch(text)
    sizes = tuple(map(int, match[2].split(","))) if match else ()
    if match is None or 0 in sizes:
        what = f"{text!r} is not a shape"
        raise GraphPruneError("GP107", what, "option --input", "write 1,3,224,224, or 2,16:int64, or ids=2,16:int64")
    return match[1] or "", sizes, match[3] or "float32"


def _callable(name: str) -> Any:
    """Import what `package.module:name` names. Raises GraphPruneError GP101, and GP107 where it cannot be called."""
    found = imported(name)
    if not callable(found):
        raise GraphPruneError("GP107", f"it is a {type(found).__name__}, not a callable that makes a model", name)
    return found
