"""The model that a build begins with: any that can be loaded, as an ONNX file with static shapes for its inputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphprune import api
from graphprune.dialects.onnx import files
from graphprune.errors import GraphPruneError, did_you_mean

_MOST_NUMBERS = 1 << 31


@contextmanager
def as_onnx(model: Any, example_inputs: Any = None) -> Iterator[tuple[Path, Any]]:
    """An ONNX file of a model, and the model as it was read from there; the file may be gone when the block ends.

    model: a path, an `onnx_ir.Model`, an `onnx.ModelProto`, or of PyTorch an `nn.Module` with example inputs or an
    `ExportedProgram`. Raises GraphPruneError as `graphprune.load`, GP103 for other things, GP107 where example inputs
    are missing, GP112 where a module cannot be exported.
    """
    if isinstance(model, str | os.PathLike):
        loaded = api.load(model)
        if not api.is_of_torch(loaded):
            yield Path(model), loaded
            return
        model = loaded
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        path = Path(folder) / "model.onnx"
        _write(model, example_inputs, path)
        yield path, files.load(path)


def _write(model: Any, example_inputs: Any, path: Path) -> None:
    if api.is_of_torch(model):
        _export(model, example_inputs, path)
        return
    kind = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
    if kind == "onnx_ir.Model":
        files.save(model, path)
    elif kind == "onnx.ModelProto":
        import onnx

        onnx.save(model, path, save_as_external_data=model.ByteSize() > _MOST_NUMBERS - (1 << 20))
    else:
        raise GraphPruneError("GP103", f"a {kind} is not a model that can be built", "", "give an ONNX model or file")


def _export(model: Any, example_inputs: Any, path: Path) -> None:
    import torch

    if not isinstance(model, torch.export.ExportedProgram) and example_inputs is None:
        remedy = "gp.build(module, output, example_inputs=(images,))"
        raise GraphPruneError("GP107", "a module is exported by running it, but no inputs were given", "", remedy)
    named = dict(example_inputs) if isinstance(example_inputs, Mapping) else None
    given = () if named is not None or example_inputs is None else example_inputs
    arguments = given if isinstance(given, tuple) else (given,)
    try:
        program = torch.onnx.export(model, arguments, kwargs=named, dynamo=True, verbose=False)
    except (RuntimeError, ValueError, TypeError) as error:
        first = str(error).strip().split("\n")[0][:200]
        raise GraphPruneError("GP112", f"torch.onnx cannot export it: {first}") from error
    assert program is not None
    program.save(str(path))


def static_shapes(
    model: Any, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The shape of every input, and what was assumed: a first axis without a size is 1.

    shapes: by input; sizes: of symbolic axes, by their names. Raises GraphPruneError: GP106 for names that the model
    has not, GP107 for shapes that do not fit, or where an axis has no size.
    """
    inputs = [each for each in model.graph.inputs if each.name not in model.graph.initializers]
    names = [each.name for each in inputs]
    for name in shapes:
        if name not in names:
            raise GraphPruneError("GP106", f"the model has no input {name!r}", "shapes", did_you_mean(name, names))
    found, notes = {}, []
    for each in inputs:
        if each.name in shapes:
            found[each.name] = _checked(each, shapes[each.name], sizes)
            continue
        if each.shape is None:
            remedy = f"add --shape {each.name}=1,128"
            raise GraphPruneError("GP107", f"the input {each.name!r} has no shape in the model", "", remedy)
        shape = []
        for place, size in enumerate(each.shape):
            name = getattr(size, "value", size)
            if isinstance(name, str) and name in sizes:
                shape.append(sizes[name])
            elif isinstance(name, int) and name > 0:  # some exporters write -1 for a size that is open
                shape.append(name)
            elif place == 0:
                notes.append(f"the first axis of {each.name!r} was open and is 1: --shape chooses another")
                shape.append(1)
            else:
                what = f"axis {place} of the input {each.name!r} has no size ({name or 'unknown'})"
                example = ",".join(str(n) if isinstance(n, int) and n > 0 else "128" for n in each.shape)
                raise GraphPruneError("GP107", what, "", f"add --shape {each.name}={example}")
        found[each.name] = tuple(shape)
    named = {str(getattr(size, "value", "")) for each in inputs for size in each.shape or ()} - {"", "None"}
    for name in sizes:
        if name not in named:
            raise GraphPruneError("GP106", f"no input has an axis called {name!r}", "sizes", did_you_mean(name, named))
    return found, notes


def _checked(value: Any, shape: tuple[int, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
    declared: list[Any] = [None] * len(shape)
    if value.shape is not None:
        declared = [getattr(size, "value", size) for size in value.shape]
    fits = len(declared) == len(shape) and all(
        not isinstance(size, int) or size < 1 or size == given for size, given in zip(declared, shape, strict=True)
    )
    if not fits:
        says = ",".join("?" if size is None else str(size) for size in declared)
        what = f"the input {value.name!r} cannot have the shape {','.join(map(str, shape))}: the model says {says}"
        raise GraphPruneError("GP107", what, "shapes", "give a size for each axis, fixed ones as they are")
    for name, size in zip(declared, shape, strict=True):
        if sizes.get(name, size) != size:
            what = f"the input {value.name!r} cannot have the shape {','.join(map(str, shape))}"
            raise GraphPruneError(
                "GP107", f"{what}: the size of {name} is {sizes[name]}", "shapes", "give one of the two"
            )
    return shape
