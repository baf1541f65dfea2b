"""Front doors: each dialect reads a model into a :class:`graphprune.program.Program`, says which rule types which
operator, and writes a model back. The only places that import onnx, torch or tvm."""

from __future__ import annotations

import os
import pkgutil
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError
from graphprune.registry import Registry

if TYPE_CHECKING:
    from graphprune.dialects.tools import Tools

DIALECTS = Registry("graphprune.dialects", {"onnx": "graphprune.dialects.onnx.dialect:OnnxDialect"})

# The package and class of a native model, and its tools: types are told by name, so that none has to be imported.
_TOOLS = {
    ("onnx_ir", "Model"): "graphprune.dialects.onnx.tools:ONNX",
    ("graphprune.dialects.aten", "Captured"): "graphprune.dialects.aten.tools:ATEN",
}
# By class, or by package.
_HINTS = {
    "Tensor": "the model comes first, and then its example inputs: gp.prune(model, example_inputs)",
    "dict": "weights alone say not how they are used: load them into their module, and give that",
    "onnx": "turn it into one with onnx_ir.from_proto(model)",
    "torch": "export it with torch.onnx.export(model, inputs, dynamo=True)",
}


def tools_of(model: Any) -> Tools:
    """What works on a native model, the same object for all models of one dialect. Imports no framework.

    Raises GraphPruneError: GP103 with what to do instead where no dialect knows its type, GP107 for a path.
    """
    if isinstance(model, str | os.PathLike):
        raise GraphPruneError("GP107", f"{os.fspath(model)!r} is a path, not a model", remedy="gp.load(path) reads it")
    kind = type(model)
    for each in kind.__mro__:
        for (package, name), target in _TOOLS.items():
            if each.__name__ == name and f"{each.__module__}.".startswith(f"{package}."):
                tools: Tools = pkgutil.resolve_name(target)
                return tools
    names = [name for each in kind.__mro__ for name in (each.__name__, each.__module__.partition(".")[0])]
    remedy = next((_HINTS[name] for name in names if name in _HINTS), "gp.load(path) reads one from a file")
    raise GraphPruneError(
        "GP103", f"a {kind.__module__}.{kind.__qualname__} is not a model that can be read", "", remedy
    )
