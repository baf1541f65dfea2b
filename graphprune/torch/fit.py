"""What a module's own code has to know at its new sizes: the attributes that name sizes, and what they become.

Sizes that follow from the shape of a parameter are rows of a table. For all others the captured graph tells: a number
that a cut changes stands in a call, the call in a module, and an attribute of that module (or of one around it) holds
the number. Whether the code then runs as the pruned graph does is tried, not assumed: where a module has a number
twice, as an attribute and in its configuration, both ways are tried. Imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from graphprune.dims import Dim, is_cut, leaves
from graphprune.kept import evaluated
from graphprune.sizes import Size, symbols
from graphprune.torch.tensors import cuts_by_tensor, places

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.cuts import Cuts
    from graphprune.dims import Keep
    from graphprune.program import Node, Slot
    from graphprune.sizes import Extent

Edits = dict[str, dict[str, Any]]
"""Path of a submodule -> attribute (dotted inside objects: `config.hidden_size`) -> new value."""

# Attribute, and the tensor and axis whose size it is, by the class that has it. Classes are told by name, so that those
# of other libraries need not be imported; a tensor under a parametrization is found by its own name.
_SHAPES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "Linear": (("out_features", "weight", 0), ("in_features", "weight", 1)),
    "Bilinear": (("out_features", "weight", 0), ("in1_features", "weight", 1), ("in2_features", "weight", 2)),
    "Embedding": (("num_embeddings", "weight", 0), ("embedding_dim", "weight", 1)),
    "EmbeddingBag": (("num_embeddings", "weight", 0), ("embedding_dim", "weight", 1)),
    "_NormBase": (("num_features", "weight", 0), ("num_features", "running_mean", 0)),
    "GroupNorm": (("num_channels", "weight", 0),),
    "PReLU": (("num_parameters", "weight", 0),),
    "RNNBase": (("input_size", "weight_ih_l0", 1), ("hidden_size", "weight_hh_l0", 1)),
    "Conv1D": (("nx", "weight", 0), ("nf", "weight", 1)),
}
_SETTINGS_OBJECT = "config"


# Classes whose code derives the width of a head from that of the whole: they cannot lose heads, nor channels alone.
_RIGID = frozenset({"MultiheadAttention"})


@dataclass(frozen=True)
class Constant:
    """A number that a cut changes: a line about it, where it is in the code, and the dimensions that it counts."""

    line: str
    place: str
    dims: frozenset[Dim]

    def __str__(self) -> str:
        return f"{self.line} ({self.place})"


@dataclass
class Fit:
    """What was found.

    edits:     what attributes become
    constants: the numbers that no attribute holds; code may still work them out
    followed:  the numbers that an attribute holds; code may still not read it
    rigid:     the dimensions of classes that cannot be edited
    stale:     numbers of a configuration that are no longer true of all that share it, a line each
    """

    edits: Edits = field(default_factory=dict)
    constants: list[Constant] = field(default_factory=list)
    followed: list[Constant] = field(default_factory=list)
    rigid: set[Dim] = field(default_factory=set)
    stale: list[str] = field(default_factory=list)

    def suspects(self, places: Sequence[str]) -> list[Constant]:
        """The numbers to tell the user when the code fails: those that nothing holds, else those on its lines."""
        return self.constants or list(dict.fromkeys(each for each in self.followed if each.place in places))

    def set(self, path: str, attribute: str, value: Any) -> bool:
        """Note an edit; `False` where another number is wanted there."""
        known = self.edits.setdefault(path, {})
        return bool(known.setdefault(attribute, value) == value)


def fit(model: nn.Module, analysis: Analysis, keep: Keep, cuts: Cuts, *, settings: bool = False) -> Fit:
    """The edits that a model needs beside smaller tensors. Changes nothing.

    settings: edit the configuration of a module also where the module itself has the number
    """
    found = Fit()
    modules = dict(model.named_modules())
    for slot, old, new, size in _numbers(analysis, keep):
        node, name = slot.node, str(slot.key)
        dims = frozenset(item for item in (symbols(size) if isinstance(size, Size) else ()) if isinstance(item, Dim))
        constant = Constant(f"it holds the number {old} in {name!r} of {node.op}", _line(node), dims)
        known = _from_sequence(found, modules, slot, old, new)
        known = known or _from_number(found, modules, node, name, (old, new), _kind(analysis, size), settings)
        (found.followed if known else found.constants).append(constant)
    for default in analysis.trace.defaults:
        if is_cut(default.axis, keep):
            line = f"{default.node.op} works out its {default.name!r} from a size"
            found.constants.append(Constant(line, _line(default.node), frozenset(leaves(default.axis))))
    _leave_shared_settings(found, modules)
    sizes = _new_sizes(model, cuts)
    for path, module in modules.items():
        _from_shapes(found, path, module, sizes)
    paths = [f"{path}." for path, module in modules.items() if {c.__name__ for c in type(module).__mro__} & _RIGID]
    for group in analysis.groups:
        if any(member.tensor.startswith(path) for member in group.members for path in paths):
            found.rigid.add(group.dim)
    return found


# ---------------------------------------------------------------- sizes of tensors
def _new_sizes(model: nn.Module, cuts: Cuts) -> dict[str, dict[int, int]]:
    """What each axis of a tensor becomes, under every name that the tensor has."""
    tensors = {name: place.tensor for name, place in places(model).items()}
    by_tensor = cuts_by_tensor(cuts, tensors)
    return {
        name: {axis: len(kept) for axis, kept in by_tensor[id(tensor)][1].items()}
        for name, tensor in tensors.items()
        if id(tensor) in by_tensor
    }


_Sizes = Mapping[str, Mapping[int, int]]


def _from_shapes(found: Fit, path: str, module: nn.Module, sizes: _Sizes) -> None:
    kinds = {each.__name__ for each in type(module).__mro__}
    for kind in kinds & _SHAPES.keys():
        for attribute, tensor, axis in _SHAPES[kind]:
            size = _new_size(path, tensor, axis, sizes)
            if size is not None and hasattr(module, attribute):
                found.set(path, attribute, size)
    if kinds & {"LayerNorm", "RMSNorm"} and hasattr(module, "normalized_shape"):
        shape = list(module.normalized_shape) if isinstance(module.normalized_shape, tuple | list) else []
        new = [_new_size(path, "weight", axis, sizes) or size for axis, size in enumerate(shape)]
        if new != shape:
            found.set(path, "normalized_shape", new)
    if "_ConvNd" in kinds:
        _conv(found, path, module, sizes)


def _conv(found: Fit, path: str, module: Any, sizes: _Sizes) -> None:
    """Channels of a convolution are per group in its kernel; the number of groups is an argument of the call."""
    new = [_new_size(path, "weight", axis, sizes) for axis in (0, 1)]
    if new == [None, None]:
        return
    dense = [module.in_channels, module.out_channels // module.groups]
    if not module.transposed:
        dense = [module.out_channels, module.in_channels // module.groups]
    direct, each = (dense[k] if size is None else size for k, size in enumerate(new))
    groups = found.edits.get(path, {}).get("groups", module.groups)
    found.set(path, "in_channels" if module.transposed else "out_channels", direct)
    found.set(path, "out_channels" if module.transposed else "in_channels", each * groups)


def _new_size(path: str, tensor: str, axis: int, sizes: _Sizes) -> int | None:
    prefix = f"{path}." if path else ""
    hidden = f"parametrizations.{tensor}."
    for name in (tensor, f"{hidden}original", f"{hidden}original1", f"{tensor}_v", f"{tensor}_orig"):
        size = sizes.get(prefix + name, {}).get(axis)
        if size is not None:
            return size
    return None


# ---------------------------------------------------------------- numbers in calls
def _numbers(analysis: Analysis, keep: Keep) -> Iterator[tuple[Slot, int, int, Extent]]:
    """Every number in a call that the cut changes: where it is, its old and new value, and its size."""
    for slot, size in analysis.bindings.items():
        old, new = evaluated(size, {}), evaluated(size, keep)
        if old != new and isinstance(slot.key, str):
            yield slot, old, new, size


def _kind(analysis: Analysis, size: Extent) -> str:
    """What a number counts: ``head``, ``width`` of a head, or (anything else, products as well) nothing special."""
    named = [item for item in symbols(size) if isinstance(item, Dim)] if not isinstance(size, int) else []
    roles = analysis.roles.get(named[0], set()) if len(named) == 1 else set()
    return "head" if "head" in roles else "width" if "width" in roles else ""


def _from_sequence(found: Fit, modules: Mapping[str, nn.Module], slot: Slot, old: int, new: int) -> bool:
    """Edit one entry of an attribute that the call takes whole, such as the amounts of a padding; `False` where there
    is none, or another number is wanted there."""
    given = slot.node.attributes.get(str(slot.key))
    if slot.index is None or not isinstance(given, tuple | list) or len(given) < 2:
        return False
    for path in _owners(slot.node):
        for name, value in vars(modules[path]).items() if path in modules else ():
            if name.startswith("_") or not isinstance(value, tuple | list) or list(value) != list(given):
                continue
            entries = list(found.edits.get(path, {}).get(name, value))
            if entries[slot.index] not in (old, new):
                return False
            entries[slot.index] = new
            found.edits.setdefault(path, {})[name] = entries
            return True
    return False


def _from_number(
    found: Fit,
    modules: Mapping[str, nn.Module],
    node: Node,
    argument: str,
    values: tuple[int, int],
    kind: str,
    settings: bool,
) -> bool:
    """Edit the attribute that a number comes from; `False` where none is found, as for the pieces of an even split."""
    old, new = values
    if argument not in node.attributes:
        return False
    for path in _owners(node):
        owner = modules.get(path)
        named = [] if owner is None else _preferred(list(_holding(owner, old)), argument, kind, settings)
        known = found.edits.get(path, {})
        if any(name in known and _holds(known[name], new) for name, _ in named):
            return True
        if named and all(found.set(path, name, _with(value, old, new)) for name, value in named):
            return True
    return False


def _owners(node: Node) -> list[str]:
    """The paths of the modules a call stands in, the innermost first."""
    stack = node.native.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values() if not str(path).startswith("_empty")]
    return list(dict.fromkeys(paths[::-1]))


def _leave_shared_settings(found: Fit, modules: Mapping[str, nn.Module]) -> None:
    """Layers share one configuration: a number in it changes only where it becomes the same for all of a kind."""
    settings = [(path, name) for path, edits in found.edits.items() for name in edits if _is_setting(name)]
    untrue = []
    for path, name in settings:
        shared = vars(modules[path])[_SETTINGS_OBJECT]
        wanted = {
            found.edits.get(other, {}).get(name)
            for other, module in modules.items()
            if vars(module).get(_SETTINGS_OBJECT) is shared
            and (type(module) is type(modules[path]) or (other, name) in settings)
        }
        if len(wanted) > 1:
            untrue.append((path, name, getattr(shared, name.partition(".")[2])))
    for path, name, _ in untrue:
        del found.edits[path][name]
    lines = (f"{name} is {old} as before: not all layers that share it have the same number" for _, name, old in untrue)
    found.stale = list(dict.fromkeys(lines))


def _is_setting(name: str) -> bool:
    return name.startswith(f"{_SETTINGS_OBJECT}.")


def _holding(owner: nn.Module, number: int) -> Iterator[tuple[str, Any]]:
    """The attributes of a module that hold a number: themselves, or in a tuple or list, or in its configuration."""
    for name, value in vars(owner).items():
        if not name.startswith("_") and _holds(value, number):
            yield name, value
    settings = vars(owner).get(_SETTINGS_OBJECT)
    for name, value in vars(settings).items() if hasattr(settings, "__dict__") else ():
        if not name.startswith("_") and type(value) is int and value == number:
            yield f"{_SETTINGS_OBJECT}.{name}", value


def _holds(value: Any, number: int) -> bool:
    if isinstance(value, tuple | list):
        return any(type(each) is int and each == number for each in value)
    return type(value) is int and value == number


def _preferred(named: list[tuple[str, Any]], argument: str, kind: str, settings: bool) -> list[tuple[str, Any]]:
    """Of several attributes with one number, the one that is called like the argument, or those whose name says what
    is counted."""
    called = [each for each in named if each[0] == argument]
    if called:
        return called
    own = [each for each in named if settings or not each[0].startswith(_SETTINGS_OBJECT)] or named
    if len(own) < 2 or not kind:
        return own
    widths = [each for each in own if any(word in each[0] for word in ("dim", "size", "width", "d_", "channels"))]
    heads = [each for each in own if "head" in each[0] and each not in widths]
    return (heads if kind == "head" else widths) or own


def _with(value: Any, old: int, new: int) -> Any:
    if isinstance(value, tuple | list):
        return [new if type(each) is int and each == old else each for each in value]
    return new


def _line(node: Node) -> str:
    """The line of the model's code that a call comes from: `file.py:12`."""
    trace = str(node.native.meta.get("stack_trace") or "").strip().splitlines()
    files = [match for line in trace if (match := re.match(r'\s*File "(.*)", line (\d+)', line))]
    return f"{files[-1][1]}:{files[-1][2]}" if files else str(node.place)
