"""A training in a folder, to go on from: safetensors and JSON, no pickle, whole or not at all.

::

    state.safetensors    tensors of the model, of the optimizer, of the best model so far, and of random numbers
    training.json        everything else, and what the training was asked for
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from graphprune.errors import GraphPruneError
from graphprune.torch.folder import NewFolder
from graphprune.torch.weights import Weights, write

SCHEMA = "graphprune.training"
VERSION = 1
_TEXT, _TENSORS = "training.json", "state"
_OURS = {_TEXT, f"{_TENSORS}.safetensors"}


@dataclass(frozen=True)
class State:
    """What is in a folder. ``numbers`` are what JSON has; ``asked`` says what the training was asked for."""

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]
    asked: Mapping[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, by the rest of their names."""
        start = f"{prefix}/"
        return {name.removeprefix(start): each for name, each in self.tensors.items() if name.startswith(start)}


def is_training(folder: Path) -> bool:
    """Whether there is nothing in a folder but a training to go on from."""
    return (folder / _TEXT).is_file() and {each.name for each in folder.iterdir()} <= _OURS


def save(folder: str | os.PathLike[str], state: State) -> None:
    """Write a state; the one before it is replaced when this one is complete.

    Raises GraphPruneError: GP103 where it holds what JSON has not, GP104 and GP105 where it cannot be written.
    """
    content = {"schema": SCHEMA, "version": VERSION, "asked": state.asked, "numbers": state.numbers}
    try:
        text = json.dumps(content)
    except (TypeError, ValueError) as error:
        what = f"the state of the optimizer is more than tensors and numbers: {error}"
        raise GraphPruneError("GP103", what, os.fspath(folder), "train without a checkpoint") from error
    with NewFolder(folder, is_training) as target:
        # clones: tensors that share memory are refused by the format
        write(target.path, _TENSORS, {name: each.detach().clone() for name, each in state.tensors.items()}, 1 << 62)
        (target.path / _TEXT).write_text(text, encoding="utf-8")
        target.commit()


def load(folder: str | os.PathLike[str], asked: Mapping[str, Any]) -> State:
    """Read a state. Raises GraphPruneError: GP505 where it is damaged, GP503 where it is of a newer schema, GP710 where
    it is of a training that was asked for otherwise."""
    path = Path(folder)
    try:
        found = json.loads((path / _TEXT).read_text(encoding="utf-8"))
        known = found["schema"] == SCHEMA and isinstance(found["version"], int)
        before, numbers = dict(found["asked"]), dict(found["numbers"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise GraphPruneError("GP505", f"the training cannot be read: {error}", str(path / _TEXT)) from error
    if not known or found["version"] > VERSION:
        raise GraphPruneError("GP503" if known else "GP505", "it is of another schema", str(path / _TEXT))
    now = json.loads(json.dumps(asked))
    for name in sorted({*now, *before}):
        if now.get(name) != before.get(name):
            what = f"the training was begun with {name} {before.get(name)!r}, and this is {now.get(name)!r}"
            raise GraphPruneError("GP710", what, str(path))
    with Weights(path, _TENSORS) as weights:
        return State({name: weights.read(name) for name in weights}, numbers, before)


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimizer as tensors by name, and numbers."""
    whole = optimizer.state_dict()
    tensors, plain = {}, {}
    for index, entries in whole["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                plain[f"{index}/{name}"] = value
    return tensors, {"state": plain, "groups": whole["param_groups"]}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Give an optimizer the state that :func:`optimizer_state` took. Raises GraphPruneError GP505."""
    entries: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *numbers["state"].items()]:
        index, _, name = key.partition("/")
        entries.setdefault(int(index), {})[name] = value
    try:
        optimizer.load_state_dict({"state": entries, "param_groups": numbers["groups"]})
    except (ValueError, KeyError) as error:
        raise GraphPruneError("GP505", f"the optimizer's state does not fit: {error}", _TEXT) from error


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of a module, each once, also those outside the state dict."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def restore_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module these numbers. Raises GraphPruneError GP505 where they are not those of this module."""
    import torch

    held = tensors_of(model)
    if odd := sorted(held.keys() ^ tensors.keys()):
        raise GraphPruneError("GP505", f"the state and the model differ about {odd[0]!r}", _TENSORS)
    with torch.no_grad():
        for name, each in held.items():
            if each.shape != tensors[name].shape:
                raise GraphPruneError("GP505", f"{name!r} has another shape in the state", _TENSORS)
            each.copy_(tensors[name])
