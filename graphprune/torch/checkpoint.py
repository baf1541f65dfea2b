"""Pruned modules in files, without pickle: a folder of weights, plan and what else the dense class needs to hold them.

::

    model.safetensors      the state dict; or model-00001-of-0000N.safetensors and model.safetensors.index.json
    buffers.safetensors    buffers that are not part of the state dict and were cut; only where there are any
    plan.json              the plan, which applies to the dense model in any format
    graphprune.json        see manifest.py

Nothing in the folder is executed. Imports torch; of this package every module but transplant.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from graphprune import __version__
from graphprune.errors import GraphPruneError
from graphprune.plan import Plan
from graphprune.torch import manifest as manifests
from graphprune.torch.folder import NewFolder
from graphprune.torch.manifest import Manifest
from graphprune.torch.masks import masked_cuts
from graphprune.torch.pruned import Pruned, apply_edits, attach, forget, pruned_of, unwrapped, whole
from graphprune.torch.sparse_masks import is_mask
from graphprune.torch.tensors import Place, fits_dense, places, plain_mode
from graphprune.torch.weights import Weights, can_hold, write

MOST_BYTES = 5_000_000_000
"""Of one file of weights, as Hugging Face has it."""

_WEIGHTS, _BUFFERS, _PLAN = "model", "buffers", "plan.json"
_OURS = re.compile(r"(model|buffers)(-\d+-of-\d+)?\.safetensors(\.index\.json)?|plan\.json|graphprune\.json")
_MOST_NAMED = 3


# ------------------------------------------------------------------ saving
def save(model: nn.Module, folder: str | os.PathLike[str], *, most_bytes: int = MOST_BYTES) -> list[Path]:
    """Write a pruned model (or a dense one) as a folder, whole or not at all; the files written.

    most_bytes: above this, weights are spread over several files
    A checkpoint of that name is replaced; a folder with anything else in it is not.
    Raises GraphPruneError: GP103 where the model holds what safetensors cannot, GP104 and GP105 where the folder cannot
    be written, GP108 where safetensors is not installed.
    """
    inner = unwrapped(model)
    if masked_cuts(inner):
        what = "the model is masked, not pruned: its tensors have their dense sizes"
        remedy = "gp.shrink(model) prunes it, graphprune.torch.unmask(model) removes the masks"
        raise GraphPruneError("GP103", what, type(inner).__name__, remedy)
    found = pruned_of(inner)
    pruned = Pruned(Plan(), {}) if found is None else whole(found)
    held = places(inner)
    _check_state(inner, held)
    stored = _stored(held, pruned)
    manifest = _described(inner, pruned, held, stored)
    with NewFolder(folder, _is_checkpoint) as target:
        for stem, persistent in ((_WEIGHTS, True), (_BUFFERS, False)):
            tensors = {name: place.tensor for name, place in stored.places.items() if place.persistent == persistent}
            if tensors or persistent:
                write(target.path, stem, tensors, most_bytes)
        (target.path / _PLAN).write_text(pruned.plan.to_json(), encoding="utf-8")
        (target.path / manifests.NAME).write_text(manifests.write(manifest), encoding="utf-8")
        return target.commit()


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint with nothing else beside it."""
    return (folder / manifests.NAME).is_file() and all(
        each.is_file() and _OURS.fullmatch(each.name) for each in folder.iterdir()
    )


@dataclass
class _Stored:
    """What is written, each tensor once, and the other names under which the model has it (see manifest.py)."""

    places: dict[str, Place] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)


def _check_state(model: nn.Module, held: Mapping[str, Place]) -> None:
    """Raise GraphPruneError GP103 where the state dict is something else than parameters and buffers by name."""
    names = {name for name, place in held.items() if place.persistent}
    odd = sorted(names ^ set(model.state_dict(keep_vars=True)))
    if odd:
        what = f"the state dict and the tensors of the model differ about {odd[0]!r}"
        remedy = "such state (of get_extra_state, or renamed by a hook) needs pickle; save it beside the checkpoint"
        raise GraphPruneError("GP103", what, type(model).__name__, remedy)


def _stored(held: Mapping[str, Place], pruned: Pruned) -> _Stored:
    """What to write: the state dict, and buffers outside it that were cut, since the class would make dense ones."""
    found = _Stored()
    names: dict[int, str] = {}
    memory: dict[tuple[Any, ...], str] = {}
    cut = {id(held[name].tensor) for name in pruned.cuts if name in held}
    for name, place in sorted(held.items(), key=lambda each: not each[1].persistent):
        tensor = place.tensor
        if not place.persistent and id(tensor) not in cut:
            continue
        if id(tensor) in names:
            found.tied[name] = names[id(tensor)]
            continue
        names[id(tensor)] = name
        _check_tensor(name, tensor)
        view = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        first = memory.setdefault(view, name) if tensor.numel() else name
        if first == name:
            found.places[name] = place
        else:
            found.shared[name] = first
    _check_overlap(found.places)
    return found


def _check_tensor(name: str, tensor: Tensor) -> None:
    """Raise GraphPruneError GP103 where a safetensors file cannot hold the tensor."""
    is_wrapper = is_traceable_wrapper_subclass(tensor)
    if is_lazy(tensor):
        what, remedy = "the tensor has no shape yet", "run the model once on an example"
    elif tensor.device.type == "meta":
        what, remedy = "the tensor has no data: it is on the meta device", "load weights into the model first"
    elif is_wrapper or tensor.is_quantized or tensor.layout != torch.strided:
        layout = "" if tensor.layout == torch.strided else f" with the layout {tensor.layout}"
        what = f"a {type(tensor).__name__} of {tensor.dtype}{layout} is more than a block of numbers"
        remedy = "turn it into a plain tensor first"
    elif not can_hold(tensor.dtype):
        what, remedy = f"safetensors files cannot hold {tensor.dtype}", "convert the tensor to another type"
    else:
        return
    raise GraphPruneError("GP103", what, name, remedy)


def _check_overlap(found: Mapping[str, Place]) -> None:
    """Raise GraphPruneError GP103 where tensors share a part of their memory, which the files would not."""
    spans = []
    for name, place in found.items():
        tensor = place.tensor
        if tensor.numel():
            last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            start = tensor.data_ptr()
            spans.append((str(tensor.device), start, start + (last + 1) * tensor.element_size(), name))
    spans.sort()
    for (device, _, end, name), (other_device, start, _, other) in pairwise(spans):
        if device == other_device and start < end:
            what = f"{name!r} and {other!r} share a part of their memory, which a file cannot express"
            raise GraphPruneError("GP103", what, other, "give one its own: tensor.data = tensor.data.clone()")


def _described(model: nn.Module, pruned: Pruned, held: Mapping[str, Place], stored: _Stored) -> Manifest:
    return Manifest(
        kind=pruned.kind,
        reason=pruned.reason,
        model=f"{type(model).__module__}.{type(model).__qualname__}",
        cuts=pruned.cuts,
        shapes={name: tuple(shape) for name, shape in pruned.shapes.items()},
        edits=pruned.edits,
        tied=stored.tied,
        shared=stored.shared,
        buffers={
            name: str(place.tensor.dtype).removeprefix("torch.")
            for name, place in held.items()
            if not place.persistent and name not in stored.places and place.tensor.is_floating_point()
        },
        frozen=tuple(name for name, place in held.items() if place.is_parameter and not place.tensor.requires_grad),
        training=model.training,
        versions={"graphprune": __version__, "torch": str(torch.__version__)},
    )


# ------------------------------------------------------------------ loading
def load(
    constructor: Callable[[], nn.Module],
    folder: str | os.PathLike[str],
    example_inputs: Any = None,
    *,
    meta: bool = False,
) -> nn.Module:
    """Build the dense model, make it as small as the saved one, and load its weights; modes and dtypes as saved.

    constructor:    the class, or a function that makes the dense model with the arguments it had: `lambda: Net(10)`
    example_inputs: as for pruning; needed only where the saved model is a graph, because the class cannot run
    meta:           construct without memory for the dense weights; for models that compute no buffers when constructed
    Raises GraphPruneError: GP101 where there is no checkpoint, GP107 where an argument is missing or of the wrong kind,
    GP503 where it is of a newer schema, GP505 where it is damaged, GP506 where the constructor builds another model.
    """
    path = Path(folder)
    if isinstance(constructor, nn.Module) or not callable(constructor):
        what = f"a {type(constructor).__name__} is not something that builds the dense model"
        raise GraphPruneError("GP107", what, "option constructor", "give the class, or lambda: MyModel(...)")
    manifest = manifests.load(path)
    if manifest.kind == "graph" and example_inputs is None:
        reason = manifest.reason or "its class cannot run"
        what = f"the saved model is a graph, which is traced again, and there are no inputs for it: {reason}"
        remedy = "gp.load(constructor, folder, example_inputs), with inputs as for pruning"
        raise GraphPruneError("GP107", what, "option example_inputs", remedy)
    plan = Plan.load(path / _PLAN)
    with ExitStack() as files:
        stems = [_WEIGHTS, *([_BUFFERS] if any(each.name.startswith(_BUFFERS) for each in path.iterdir()) else [])]
        weights = [files.enter_context(Weights(path, stem)) for stem in stems]
        model = _constructed(constructor, meta and manifest.kind == "module")
        if manifest.kind == "graph":
            from graphprune.torch.pruning import rebuild_graph  # only this case needs all that tracing needs

            model = rebuild_graph(model, plan, example_inputs)
        _Filling(model, manifest, weights).run()
    if manifest.cuts or manifest.edits or manifest.kind == "graph":
        forget(model)  # what tracing again noted knows nothing of why it was a graph
        kind = cast(Literal["module", "graph"], manifest.kind)
        attach(model, Pruned(plan, manifest.cuts, manifest.edits, kind, manifest.reason, manifest.shapes))
    return model


def _constructed(constructor: Callable[[], nn.Module], meta: bool) -> nn.Module:
    with torch.device("meta") if meta else nullcontext():
        model: object = constructor()
    if not isinstance(model, nn.Module):
        what = f"the constructor returned a {type(model).__name__}, not a torch.nn.Module"
        raise GraphPruneError("GP107", what, "option constructor", "give the class, or lambda: MyModel(...)")
    return model


class _Filling:
    """Gives a freshly constructed model the shapes, settings and numbers of a checkpoint."""

    def __init__(self, model: nn.Module, manifest: Manifest, weights: list[Weights]) -> None:
        self.model = model
        self.manifest = manifest
        self.sources = {name: source for source in weights for name in source}
        self.others = {**manifest.tied, **manifest.shared}
        self.held = {**places(model), **dict(_unset_buffers(model))}
        self.frozen = set(manifest.frozen)
        self.used: dict[int, str] = {}
        self.slots: dict[tuple[int, str], str] = {}

    def run(self) -> None:
        """Check everything, then change the model. Raises GraphPruneError: GP505, GP506, GP107."""
        self._check_names()
        for name in self.sources:
            self._check_shape(name)
        if self.manifest.kind == "module":
            apply_edits(self.model, self.manifest.edits)
        with plain_mode():
            filled = {name: self._fill(name, self.sources[name].read(name)) for name in self.sources}
            for name, other in self.manifest.shared.items():
                filled[name] = self._fill(name, filled[other].detach())
        for name, other in self.manifest.tied.items():
            if self.held[name].tensor is not filled[other]:
                self._take_slot(name, other)
                self.held[name].put(filled[other])
        self._restore_settings()

    def _check_names(self) -> None:
        saved = {*self.sources, *self.others}
        for name, other in self.others.items():
            known = other in self.sources or (name in self.manifest.tied and other in self.manifest.shared)
            if not known or name in self.sources:
                raise GraphPruneError("GP505", f"{name!r} is to be the same as {other!r}, which is not there", "tied")
        # The constructor makes dense buffers of these names, which no check of shapes would find.
        for name in sorted(set(self.manifest.cuts) & set(self.held) - saved):
            raise GraphPruneError("GP505", f"the checkpoint lacks {name!r}, which was cut", "buffers.safetensors")
        built = {name for name, place in self.held.items() if place.persistent and _is_set(place)}
        for what, names in (("the constructed model lacks", saved - set(self.held)),
                            ("the checkpoint lacks", built - saved)):  # fmt: skip
            if names:
                shown = ", ".join(map(repr, sorted(names)[:_MOST_NAMED])) + (
                    ", ..." if len(names) > _MOST_NAMED else ""
                )
                of = f"{type(self.model).__name__}; saved from a {self.manifest.model or 'model'}"
                remedy = "it was saved with masks: graphprune.torch.bake(model) before gp.save makes them numbers"
                masked = any(is_mask(name) for name in names)
                raise GraphPruneError("GP506", f"{what} {len(names)} tensors: {shown}", of, remedy if masked else "")

    def _check_shape(self, name: str) -> None:
        built, saved = self.held[name].tensor, self.sources[name].shape(name)
        if not _is_set(self.held[name]):
            return
        if is_lazy(built):
            remedy = "let the constructor run the model once on an example"
            raise GraphPruneError("GP506", "the constructed tensor has no shape yet", name, remedy)
        shape = tuple(built.shape)
        axes: Mapping[int, Any] = {}
        dense = None
        if self.manifest.kind == "module":  # a graph was cut when it was traced again
            names = self._names(name)
            axes = next((self.manifest.cuts[each] for each in names if each in self.manifest.cuts), {})
            dense = next((self.manifest.shapes[each] for each in names if each in self.manifest.shapes), None)
        if dense is not None and shape != dense:
            what = f"the constructor builds {list(shape)}, but the network that was pruned had {list(dense)}"
            raise GraphPruneError("GP506", what, name)
        same = all(shape[axis] == saved[axis] for axis in range(len(saved)) if axis not in axes) \
            if len(shape) == len(saved) else False  # fmt: skip
        if not same or not fits_dense(shape, axes) or any(len(kept) != saved[axis] for axis, kept in axes.items()):
            what = f"the constructor builds {list(shape)}, which cannot have become {list(saved)}"
            raise GraphPruneError("GP506", what, name)

    def _names(self, name: str) -> list[str]:
        """A name and those that are tied to it."""
        return [name, *(each for each, other in self.others.items() if other == name)]

    def _fill(self, name: str, data: Tensor) -> Tensor:
        """Put numbers into the tensor of this name, which stays the same object unless another name has it already."""
        self._take_slot(name, name)
        place = self.held[name]
        tensor = place.tensor
        if tensor.device.type != "meta":
            data = data.to(tensor.device)
        if id(tensor) in self.used or tensor.device.type == "meta":
            tensor = nn.Parameter(data, requires_grad=False) if place.is_parameter else data
            place.put(tensor)
        else:
            tensor.requires_grad_(False)
            tensor.data = data
        self.used[id(tensor)] = name
        if place.is_parameter and name not in self.frozen:
            if not (tensor.is_floating_point() or tensor.is_complex()):
                raise GraphPruneError(
                    "GP505", f"a parameter of {tensor.dtype} cannot be trained, but is not frozen", name
                )
            tensor.requires_grad_(True)
        return tensor

    def _take_slot(self, name: str, content: str) -> None:
        """Note what a module holds in one place. Raises GraphPruneError GP506 where it should hold two things."""
        place = self.held[name]
        slot = (id(place.owner), place.attribute)
        if self.slots.setdefault(slot, content) != content:
            what = (
                f"the constructor shares one module, where the saved model has two: {self.slots[slot]!r} and {name!r}"
            )
            raise GraphPruneError("GP506", what, name)

    def _restore_settings(self) -> None:
        for name, dtype in self.manifest.buffers.items():
            place = self.held.get(name)
            found = getattr(torch, dtype, None)
            if not isinstance(found, torch.dtype):
                raise GraphPruneError("GP505", f"there is no type {dtype[:40]!r}", f"buffers.{name}")
            if place is not None and _is_set(place) and not place.persistent and place.tensor.dtype != found:
                place.put(place.tensor.to(found))
        empty = [name for name, place in places(self.model).items() if place.tensor.device.type == "meta"]
        if empty:
            what = (
                f"the constructor computes {empty[0]!r}, which is not part of the checkpoint, but there was no memory"
            )
            raise GraphPruneError("GP107", what, "option meta", "load without meta=True")
        if self.manifest.kind == "module":
            self.model.train(self.manifest.training)


def _unset_buffers(model: nn.Module) -> Iterator[tuple[str, Place]]:
    """The buffers that a model declares but has not set, which the saved one may have set since."""
    nothing = torch.empty(0, device="meta")
    for path, owner in model.named_modules(remove_duplicate=False):
        for name, tensor in owner._buffers.items():
            if tensor is None:
                persistent = name not in owner._non_persistent_buffers_set
                yield f"{path}.{name}" if path else name, Place(owner, name, nothing, persistent)


def _is_set(place: Place) -> bool:
    return place.owner._buffers.get(place.attribute, place.tensor) is not None
