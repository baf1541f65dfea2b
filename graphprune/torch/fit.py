"""What a module's own code has to know at its new sizes: the attributes that name sizes, and what they become.

Sizes that follow from the shape of a parameter are rows of a table. For all others the captured graph tells: a number
that a cut changes stands in a call, the call in a module, and an attribute of that module (or of one around it) holds
the number. Whether the code then runs as the pruned graph does is tried, not assumed. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from graphprune.dims import Dim, evaluated
from graphprune.sizes import Size, symbols

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.cuts import Cuts
    from graphprune.dims import Keep
    from graphprune.program import Node
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
    """A number that a cut changes and no attribute holds: a line about it, and the dimensions that it counts."""

    line: str
    dims: frozenset[Dim]


@dataclass
class Fit:
    """What was found: the ``edits``, the numbers that no attribute holds (code may still work them out), and the
    dimensions that belong to classes which cannot be edited (``rigid``)."""

    edits: Edits = field(default_factory=dict)
    constants: list[Constant] = field(default_factory=list)
    rigid: set[Dim] = field(default_factory=set)

    def set(self, path: str, attribute: str, value: Any) -> bool:
        """Note an edit; `False` where another number is wanted there."""
        known = self.edits.setdefault(path, {})
        return bool(known.setdefault(attribute, value) == value)


def fit(model: nn.Module, analysis: Analysis, keep: Keep, cuts: Cuts) -> Fit:
    """The edits that a model needs beside smaller tensors. Changes nothing."""
    found = Fit()
    modules = dict(model.named_modules())
    for node, name, old, new, size in _numbers(analysis, keep):
        if not _from_number(found, modules, node, name, (old, new), _kind(analysis, size)):
            line = f"{old} in {name!r} of {node.op} ({_line(node)})"
            dims = frozenset(
                item for item in (symbols(size) if isinstance(size, Size) else ()) if isinstance(item, Dim)
            )
            found.constants.append(Constant(line, dims))
    for path, module in modules.items():
        _from_shapes(found, path, module, cuts)
    paths = [f"{path}." for path, module in modules.items() if {c.__name__ for c in type(module).__mro__} & _RIGID]
    for group in analysis.groups:
        if any(member.tensor.startswith(path) for member in group.members for path in paths):
            found.rigid.add(group.dim)
    return found


# ---------------------------------------------------------------- sizes of tensors
def _from_shapes(found: Fit, path: str, module: nn.Module, cuts: Cuts) -> None:
    kinds = {each.__name__ for each in type(module).__mro__}
    for kind in kinds & _SHAPES.keys():
        for attribute, tensor, axis in _SHAPES[kind]:
            size = _new_size(path, tensor, axis, cuts)
            if size is not None and hasattr(module, attribute):
                found.set(path, attribute, size)
    if kinds & {"LayerNorm", "RMSNorm"} and hasattr(module, "normalized_shape"):
        sizes = list(module.normalized_shape) if isinstance(module.normalized_shape, tuple | list) else []
        new = [_new_size(path, "weight", axis, cuts) or size for axis, size in enumerate(sizes)]
        if new != sizes:
            found.set(path, "normalized_shape", new)
    if "_ConvNd" in kinds:
        _conv(found, path, module, cuts)


def _conv(found: Fit, path: str, module: Any, cuts: Cuts) -> None:
    """Channels of a convolution are per group in its kernel; the number of groups is an argument of the call."""
    sizes = [_new_size(path, "weight", axis, cuts) for axis in (0, 1)]
    if sizes == [None, None]:
        return
    dense = [module.in_channels, module.out_channels // module.groups]
    if not module.transposed:
        dense = [module.out_channels, module.in_channels // module.groups]
    direct, each = (dense[k] if size is None else size for k, size in enumerate(sizes))
    groups = found.edits.get(path, {}).get("groups", module.groups)
    found.set(path, "in_channels" if module.transposed else "out_channels", direct)
    found.set(path, "out_channels" if module.transposed else "in_channels", each * groups)


def _new_size(path: str, tensor: str, axis: int, cuts: Cuts) -> int | None:
    prefix = f"{path}." if path else ""
    hidden = f"parametrizations.{tensor}."
    for name in (tensor, f"{hidden}original", f"{hidden}original1", f"{tensor}_v", f"{tensor}_orig"):
        kept = cuts.get(prefix + name, {}).get(axis)
        if kept is not None:
            return len(kept)
    return None


# ---------------------------------------------------------------- numbers in calls
def _numbers(analysis: Analysis, keep: Keep) -> Iterator[tuple[Node, str, int, int, Extent]]:
    """Every number in a call that the cut changes: its node, argument, old and new value, and its size."""
    for slot, size in analysis.bindings.items():
        old, new = evaluated(size, {}), evaluated(size, keep)
        if old != new and isinstance(slot.key, str):
            yield slot.node, slot.key, old, new, size


def _kind(analysis: Analysis, size: Extent) -> str:
    """What a number counts: ``head``, ``width`` of a head, or (anything else, products as well) nothing special."""
    named = [item for item in symbols(size) if isinstance(item, Dim)] if not isinstance(size, int) else []
    roles = analysis.roles.get(named[0], set()) if len(named) == 1 else set()
    return "head" if "head" in roles else "width" if "width" in roles else ""


def _from_number(
    found: Fit, modules: Mapping[str, nn.Module], node: Node, argument: str, values: tuple[int, int], kind: str
) -> bool:
    """Edit the attribute that a number comes from; `False` where none is found, as for the pieces of an even split."""
    old, new = values
    if argument not in node.attributes:
        return False
    for path in _owners(node):
        owner = modules.get(path)
        named = [] if owner is None else _preferred(list(_holding(owner, old)), argument, kind)
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


def _preferred(named: list[tuple[str, Any]], argument: str, kind: str) -> list[tuple[str, Any]]:
    """Of several attributes with one number, the one that is called like the argument, or those whose name says what
    is counted."""
    called = [each for each in named if each[0] == argument]
    if called:
        return called
    own = [each for each in named if not each[0].startswith(_SETTINGS_OBJECT)] or named
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
    """The line of the model's code that a call comes from."""
    trace = str(node.native.meta.get("stack_trace") or "").strip().splitlines()
    places = [line.strip() for line in trace if line.strip().startswith("File ")]
    return places[-1] if places else str(node.place)
