"""Exported programs in files (`.pt2`): read without running anything that a file could bring, and written whole.

`torch.export.load` trusts its file: it unpickles example inputs, evaluates expressions of sizes, takes any attribute
that it finds under the torch package for an operator, writes names into the source of a function, and loads libraries.
So a file is checked before it is given to that function, from the same bytes, with the same reader of archives, and
refused for anything that is not known to be harmless: operators are aten overloads and arithmetic, names are names,
expressions are arithmetic, nothing is pickled but what PyTorch's restricted unpickler accepts. Imports torch.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from graphprune.dialects.aten.capture import CAPTURE_FAILS, quiet
from graphprune.dialects.aten.capture import exported as export_graph
from graphprune.errors import GraphPruneError
from graphprune.output import Outputs
from graphprune.torch.pruning import captured

_MOST_BYTES = 64 << 30
_MOST_JSON = 1 << 30
_RECORDS = re.compile(
    r"models/model\.json|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)|extra/.*"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"[\w.\-/ ]*", re.ASCII)
_TARGET = re.compile(r"torch\.ops\.(aten|prims|prim|higher_order)\.([a-z_]\w*)(?:\.(\w+))?", re.ASCII)
_ARITHMETIC = frozenset({
    *(f"_operator.{name}" for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs", "and_", "or_", "xor", "invert",
        "not_", "lshift", "rshift", "eq", "ne", "lt", "le", "gt", "ge", "getitem", "index")),
    *(f"math.{name}" for name in ("trunc", "ceil", "floor", "sqrt", "pow", "log2")),
    *(f"torch.sym_{name}" for name in ("int", "float", "max", "min", "not", "ite", "sum")),
    *(f"torch._sym_{name}" for name in ("sqrt", "log2", "exp")),
})  # fmt: skip
_NOT_OPERATORS = frozenset({"from_file", "save", "load", "open", "print", "warn", "format"})
_FUNCTIONS = frozenset({
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
    "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt",
    "RoundToInt", "RoundDecimal", "ToFloat", "Identity", "Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or",
    "Not", "Piecewise", "True", "False", "IsNonOverlappingAndDenseIndicator", "floor", "ceiling",
    "Symbol", "Integer", "Rational", "Float", "Mul", "Add", "Pow", "Abs", "Equality", "Unequality", "StrictLessThan",
    "StrictGreaterThan", "LessThan", "GreaterThan", "positive", "nonnegative", "integer", "real", "precision",
    "evaluate",
})  # fmt: skip
_TOKEN = re.compile(
    r"\s*(?:([A-Za-z_]\w*)|'(?:[suzf]+\d+|[\d.e+-]+)'|\d+(?:\.\d+)?|//|[-+*/%(),<>=!&|~]=?|\*\*)", re.ASCII
)
_CONTAINERS = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", None})
# strings that are data or text: PyTorch keeps them, and puts them into no source
_FREE = frozenset({"as_string", "as_strings", "torch_version", "torch_fn", "nn_module_stack", "from_node"})

# what a damaged or a foreign file makes of the readers of PyTorch and Python
_DAMAGED = (*CAPTURE_FAILS, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile)


def load(path: str | os.PathLike[str]) -> ExportedProgram:
    """Read an exported program.

    Raises GraphPruneError: GP101 where the file cannot be read, GP102 where it is not an exported program, GP103 where
    it holds what cannot be read safely, GP109 where it is too large.
    """
    shown = os.fspath(path)
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            raise GraphPruneError("GP109", f"the file is larger than {_MOST_BYTES >> 30} GiB", shown)
        data = Path(path).read_bytes()
    except OSError as error:
        raise GraphPruneError("GP101", f"it cannot be read: {error.strerror}", shown) from error
    try:
        _check(data, shown)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(data))
    except _DAMAGED as error:
        lines = str(error).strip().splitlines()
        what = f"it is not an exported program of this version of PyTorch: {lines[0][:200] if lines else type(error)}"
        raise GraphPruneError("GP102", what, shown, "write it anew with torch.export.save") from error
    if not isinstance(program, ExportedProgram):
        raise GraphPruneError("GP102", "it holds no exported program", shown)
    return program


def save(program: ExportedProgram, path: str | os.PathLike[str]) -> list[Path]:
    """Write an exported program, whole or not at all; the file written. Raises GraphPruneError GP105."""
    with Outputs(path) as outputs:
        stage(program, outputs)
        return outputs.commit([outputs.destination.name])


def stage(program: ExportedProgram, outputs: Outputs) -> list[str]:
    """Write an exported program beside its destination; the name of the file."""
    name = outputs.destination.name
    buffer = io.BytesIO()  # torch.export.save asks for the suffix .pt2 and for no other place
    torch.export.save(program, buffer)
    outputs.path(name).write_bytes(buffer.getvalue())
    return [name]


def exported(model: Any, example_inputs: Any = None) -> ExportedProgram:
    """A module as an exported program whose batch and sequence axes are open; a program as it is."""
    if isinstance(model, ExportedProgram):
        return model
    with torch.inference_mode(False):
        return export_graph(captured(model, example_inputs))


def to_onnx(program: ExportedProgram) -> Any:
    """An exported program as an `onnx_ir.Model`. Raises GraphPruneError GP103 where ONNX has no such operator."""
    try:
        with quiet():
            converted = torch.onnx.export(program, dynamo=True, verbose=False)
    except (*_DAMAGED, torch.onnx.errors.OnnxExporterError) as error:
        lines = str(error).strip().splitlines()
        what = f"torch.onnx.export cannot write it: {lines[0][:200] if lines else type(error).__name__}"
        raise GraphPruneError("GP103", what, "", "write it as .pt2") from error
    assert converted is not None
    return converted.model


# ---------------------------------------------------------------- what may be in a file
def _check(data: bytes, shown: str) -> None:
    """Raise GraphPruneError GP102 or GP103 unless all of the archive is known to be harmless."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
    if "version" in names or any(name.startswith("serialized_") for name in names):
        raise _refused(shown, "it is in the format of PyTorch 2.7 and older", "")
    from torch.export.pt2_archive._package import PT2ArchiveReader

    with PT2ArchiveReader(io.BytesIO(data)) as reader:
        records = set(reader.get_file_names())
        for name in sorted(records):
            if not _RECORDS.fullmatch(name):
                raise _refused(shown, "it holds a file that an exported program does not need", name)
        for name in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
            _check_tensors(_json(reader.read_bytes(name), name, shown), name, shown)
        _check_pickle(reader.read_bytes("data/sample_inputs/model.pt"), shown)
        _check_graph(_json(reader.read_bytes("models/model.json"), "models/model.json", shown), shown)


def _json(data: bytes, name: str, shown: str) -> Any:
    if len(data) > _MOST_JSON:
        raise GraphPruneError("GP109", f"{name} is larger than {_MOST_JSON >> 30} GiB", shown)
    return json.loads(data)


def _refused(shown: str, what: str, found: str) -> GraphPruneError:
    what = f"{what}: {found[:120]!r}" if found else what
    remedy = "graphprune reads plain programs only; prune it in Python: gp.prune(torch.export.load(path))"
    return GraphPruneError("GP103", what, shown, remedy)


def _check_tensors(config: Any, name: str, shown: str) -> None:
    for tensor, entry in config["config"].items():
        if entry["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            raise _refused(shown, f"{name} has a tensor or object that is pickled", tensor)
        if not _PATH.fullmatch(tensor):
            raise _refused(shown, "it has a tensor with an odd name", tensor)


def _check_pickle(data: bytes, shown: str) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except _DAMAGED as error:
        what = "its example inputs are more than tensors, and reading them could run any code"
        raise _refused(shown, what, str(error).strip().splitlines()[0]) from error


def _check_graph(tree: Any, shown: str) -> None:
    for key, value in _strings(tree, ""):
        problem = _problem(key, value)
        if problem:
            raise _refused(shown, problem, value)


def _strings(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string of a JSON value with the key that it is under; keys that the writer of the file chose are names."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, list):
        for each in tree:
            yield from _strings(each, key)
    elif isinstance(tree, dict):
        for name, each in tree.items():
            yield "key", name
            yield from _strings(each, name)


def _problem(key: str, value: str) -> str:
    """What is wrong with a string of the graph, if anything."""
    if key in _FREE:
        return ""
    if key == "stack_trace":  # it becomes a comment
        return "a trace with control characters" * bool(re.search(r"[^\S \n\t]|[\x00-\x08\x0b-\x1f]", value))
    if key in {"target", "as_operator"}:
        return "" if _is_operator(value) else "an operator that may do more than compute"
    if key == "expr_str":
        return "" if _is_arithmetic(value) else "a size that is not arithmetic"
    if key in {"in_spec", "out_spec"}:
        return _problem_of_spec(json.loads(value)) if value else ""
    if key == "guards_code":
        return ""  # never compiled here: graphs are taken without their guards
    if key in {"name", "as_name", "forward_arg_names"}:
        return "" if _NAME.fullmatch(value) or (key == "name" and not value) else "a name that is not one"
    return "" if _PATH.fullmatch(value) else "a string that is not a name"


def _is_operator(target: str) -> bool:
    if target in _ARITHMETIC:
        return True
    match = _TARGET.fullmatch(target)
    if match is None or match[2] in _NOT_OPERATORS or match[2].startswith("__"):
        return False
    if match[1] == "higher_order":
        return match[3] is None
    packet = getattr(getattr(torch.ops, match[1]), match[2], None)
    return match[3] is not None and isinstance(getattr(packet, match[3], None), torch._ops.OpOverload)


def _is_arithmetic(text: str) -> bool:
    """Whether an expression has nothing but numbers, symbols, arithmetic, and functions that are known."""
    place = 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None:
            return False
        word = match[1]
        if word and word not in _FUNCTIONS and not re.fullmatch(r"[suzf]+\d+", word):
            return False
        place = match.end()
    return len(text) < 10_000 and text.count("**") < 8


def _problem_of_spec(spec: Any) -> str:
    protocol, tree = spec
    if protocol != 1:
        return "a structure of inputs in an unknown format"
    pending = [tree]
    while pending:
        node = pending.pop()
        if node["type"] not in _CONTAINERS:
            return "a structure of inputs or outputs with a class of its own"
        context = json.loads(node["context"]) if isinstance(node["context"], str) else node["context"]
        keys = context if isinstance(context, list) else [] if context is None else [context]
        if not all(isinstance(key, int) or (isinstance(key, str) and _PATH.fullmatch(key)) for key in keys):
            return "a structure of inputs or outputs with odd keys"
        pending += node["children_spec"]
    return ""
