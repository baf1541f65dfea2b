"""Modules that the command line makes: called, filled with weights without pickle, and given inputs. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphprune.errors import GraphPruneError, did_you_mean


def made(make: Callable[[], Any], name: str) -> nn.Module:
    """Call what makes a model. Raises GraphPruneError GP107 where it needs arguments or makes something else."""
    try:
        model = make()
    except TypeError as error:
        remedy = "write a function without arguments that returns the module"
        raise GraphPruneError("GP107", f"it cannot be called without arguments: {error}", name, remedy) from error
    if not isinstance(model, nn.Module):
        raise GraphPruneError("GP107", f"it makes a {type(model).__name__}, not a torch.nn.Module", name)
    return model.eval()


def example_inputs(shapes: Sequence[tuple[str, tuple[int, ...], str]], seed: int) -> Any:
    """Inputs of these names (or none), shapes and types: standard normal, or 0 and 1 where they are whole numbers.

    A tuple where none has a name, a dict of keyword arguments where all have. Raises GraphPruneError GP106 and GP107.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = [_drawn(shape, kind, generator) for _, shape, kind in shapes]
    names = [name for name, _, _ in shapes]
    if not any(names):
        return tuple(tensors)
    if not all(names):
        what = "some inputs have names and others have not"
        raise GraphPruneError("GP107", what, "option --input", "name all of them, or none")
    return dict(zip(names, tensors, strict=True))


def _drawn(shape: tuple[int, ...], kind: str, generator: torch.Generator) -> torch.Tensor:
    known = {str(each).removeprefix("torch."): each for each in vars(torch).values() if isinstance(each, torch.dtype)}
    if kind not in known:
        raise GraphPruneError("GP106", f"there is no type {kind!r}", "option --input", did_you_mean(kind, known))
    dtype = known[kind]
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    if dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file.

    Raises GraphPruneError: GP101 where the file cannot be read, GP103 where it is of another kind, GP504 where tensors
    are missing, unknown or of another shape, GP108 where safetensors is not installed.
    """
    if path.suffix.lower() != ".safetensors":
        what = f"weights are read from .safetensors, not {path.suffix or 'a file without a suffix'}"
        remedy = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        raise GraphPruneError("GP103", what, str(path), remedy)
    if not path.is_file():
        raise GraphPruneError("GP101", "there is no such file", str(path))
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        remedy = "pip install 'graphprune[torch]'"
        raise GraphPruneError("GP108", "reading weights needs safetensors", str(path), remedy) from error
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise GraphPruneError("GP102", f"it is not a safetensors file: {error}", str(path)) from error
    # safetensors holds a tied tensor once: its other names may be missing
    tensors: dict[int, set[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        tensors.setdefault(id(tensor), set()).add(name)
    missing = [min(names) for names in tensors.values() if not names & state.keys()]
    try:
        unknown = model.load_state_dict(state, strict=False).unexpected_keys
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise GraphPruneError("GP504", f"the weights do not fit: {lines[-1].strip()}", str(path)) from error
    if missing or unknown:
        what = f"it lacks {missing[0]!r}" if missing else f"the module has no {unknown[0]!r}"
        raise GraphPruneError("GP504", f"the weights do not fit: {what}", str(path))
