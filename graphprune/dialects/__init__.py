"""Front doors: each dialect reads a model into a :class:`graphprune.program.Program`, says which rule types which
operator, and writes a model back. The only places that import onnx, torch or tvm."""

from graphprune.registry import Registry

DIALECTS = Registry("graphprune.dialects", {"onnx": "graphprune.dialects.onnx.dialect:OnnxDialect"})
