"""`gp.build` for several sizes of open axes: an artifact for each, and which axes may be filled up with zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError
from graphprune.runtime import cpu
from graphprune.runtime.artifact import Tensor
from graphprune.runtime.manifest import Manifest
from graphprune.runtime.sizes import NAME, Sized, Sizes
from graphprune.targets.target import Processor

if TYPE_CHECKING:
    from graphprune.targets.checking import Reference

MOST = 64  # artifacts


def several(sizes: Mapping[str, int | Sequence[int]]) -> list[dict[str, int]]:
    """All combinations, those of the smallest sizes first. Raises GraphPruneError GP107 for none, or for too many."""
    lists = {name: sorted({size} if isinstance(size, int) else set(size)) for name, size in sizes.items()}
    for name, each in lists.items():
        if not each or each[0] < 1:
            raise GraphPruneError("GP107", f"{name!r} has no size that is one", "sizes", f"such as {name}=1,8")
    found = [dict(zip(lists, each, strict=True)) for each in product(*lists.values())]
    if len(found) > MOST:
        what = f"{len(found)} combinations of sizes are more than {MOST}"
        raise GraphPruneError("GP107", what, "sizes", "give fewer: larger ones may hold smaller inputs")
    return found


@dataclass(frozen=True)
class Filled:
    """Stands for an artifact where `Reference` compares one: the network at several sizes."""

    network: Sized
    variant: str = "all"

    def session(self) -> Sized:
        return self.network


def write(
    place: Path,
    built: Sequence[Mapping[str, int]],
    make: Callable[[Path, Mapping[str, int]], Manifest],
    model: Any,
    reference: Callable[[Sequence[Tensor]], Reference] | None,
    processors: Sequence[Processor],
) -> Manifest:
    """Makes the artifact of each size in a folder of its number, and writes beside them what is there. `reference` is
    asked whether axes may be filled up; without it none may. The last manifest."""
    manifests = []
    for number, sizes in enumerate(built):
        folder = place / str(number)
        folder.mkdir()
        manifests.append(make(folder, sizes))
    inputs = {each.name: _axes(model, each, built[0]) for each in manifests[0].inputs}
    outputs = {
        each.name: followed([found.outputs[index] for found in manifests], built)
        for index, each in enumerate(manifests[0].outputs)
    }
    about = Sizes(inputs, outputs, (), tuple(built))
    if reference is not None:
        rounding = next((each.rounding for each in processors if each.runs_on(cpu.cpu())), "float32")
        tensors = manifests[0].inputs
        filled = (axis for axis in built[0] if _may_fill(place, about, axis, tensors, reference, rounding))
        about = replace(about, filled=tuple(filled))
    (place / NAME).write_text(about.to_json())
    return replace(manifests[-1], notes=(*manifests[-1].notes, *notes(about)))


def _may_fill(
    place: Path,
    about: Sizes,
    axis: str,
    inputs: Sequence[Tensor],
    reference: Callable[[Sequence[Tensor]], Reference],
    rounding: str,
) -> bool:
    """Whether inputs that were filled up with zeros along an axis give what the model does without."""
    other = tried(about, axis)
    if other is None:
        return False
    network: Any = Filled(Sized(place, replace(about, filled=(axis,)), {}))
    try:
        return all(row["ok"] for row in reference(resized(about, inputs, other)).compare(network, rounding))
    except GraphPruneError:
        return False  # an output that does not follow the axis


def notes(about: Sizes) -> list[str]:
    """The rule by which a call takes an artifact, for the report."""
    found = []
    for axis in about.built[0]:
        sizes = ", ".join(str(size) for size in sorted({each[axis] for each in about.built}))
        rule = "smaller inputs are filled up with zeros" if axis in about.filled else "other sizes are refused"
        found.append(f"{axis} may be {sizes}; {rule}")
    return found


def tried(about: Sizes, axis: str) -> dict[str, int] | None:
    """Sizes for the trial: the largest that were built, and of the axis one that was not; None where all were."""
    largest = {name: max(each[name] for each in about.built) for name in about.built[0]}
    known = {each[axis] for each in about.built}
    other = next((size for size in range(largest[axis] - 1, 0, -1) if size not in known), None)
    return None if other is None else {**largest, axis: other}


def resized(about: Sizes, tensors: Sequence[Tensor], sizes: Mapping[str, int]) -> list[Tensor]:
    """The tensors at other sizes of the axes that are named."""
    found = []
    for each in tensors:
        along = zip(each.shape, about.inputs[each.name], strict=True)
        found.append(replace(each, shape=tuple(own if axis is None else sizes[axis] for own, axis in along)))
    return found


def _axes(model: Any, tensor: Tensor, sizes: Mapping[str, int]) -> tuple[str | None, ...]:
    """The name of each axis of an input that has several sizes."""
    value = next(each for each in model.graph.inputs if each.name == tensor.name)
    names = [getattr(size, "value", size) for size in value.shape]
    return tuple(name if name in sizes else None for name in names)


def followed(tensors: Sequence[Tensor], built: Sequence[Mapping[str, int]]) -> tuple[str | None, ...]:
    """Which axis of the inputs each axis of an output is as long as, at every size."""
    found: list[str | None] = []
    for place in range(len(tensors[0].shape)):
        lengths = [tensor.shape[place] for tensor in tensors]
        alike = (axis for axis in built[0] if lengths == [each[axis] for each in built])
        found.append(next(alike, None) if len(set(lengths)) > 1 else None)
    return tuple(found)
