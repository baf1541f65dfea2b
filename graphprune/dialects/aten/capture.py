"""Captures an nn.Module as a graph of ATen operators, with `torch.export`.

The graph is for inference: modules are put into evaluation mode while they are captured, and back afterwards. Batch and
sequence axes stay symbolic where the model allows it, so that a result runs at other sizes than those of the example.
"""

from __future__ import annotations

import copy
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection, export
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from graphprune.dialects.aten.inline import graphs_of
from graphprune.dialects.aten.lazily import compiled_when_run
from graphprune.dialects.aten.normal import normalise
from graphprune.dialects.aten.untouched import untouched
from graphprune.errors import GraphPruneError
from graphprune.garbage import no_collection


@dataclass(eq=False)
class Captured:
    """A model as a graph: the native model of the ATen dialect.

    graph:  ATen operators over parameters and buffers, under the names they have in `source`; runs like the module
    args, kwargs: the example inputs, as given
    sizes:  what the symbolic sizes of the graph are in the example, by name ("s77")
    source: the module that was captured, where there is one
    notes:  what could not be captured as asked, a line each
    fixed:  numbers that stand for symbolic sizes when the graph is read
    """

    graph: GraphModule
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sizes: dict[str, int] = field(default_factory=dict)
    source: torch.nn.Module | None = None
    notes: tuple[str, ...] = ()
    fixed: dict[str, int] = field(default_factory=dict)

    def with_graph(self, graph: GraphModule) -> Captured:
        """The same inputs for another graph of the same interface."""
        return Captured(graph, self.args, self.kwargs, self.sizes, None, self.notes)

    def twin(self) -> tuple[GraphModule, dict[torch.fx.Node, torch.fx.Node]]:
        """A copy of the graph whose parameters are those of the original, and its nodes, those of bodies included, by
        those of the original."""
        memo: dict[int, Any] = {id(tensor): tensor for tensor in _tensors_of(self.graph)}
        with warnings.catch_warnings(), compiled_when_run():
            warnings.simplefilter("ignore")  # copying a graph uses what PyTorch itself calls deprecated
            other = copy.deepcopy(self.graph, memo)
        pairs = zip(graphs_of(self.graph), graphs_of(other), strict=True)
        return other, {a: b for old, new in pairs for a, b in zip(old.graph.nodes, new.graph.nodes, strict=True)}


def _tensors_of(graph: GraphModule) -> Iterator[torch.Tensor]:
    """Parameters, buffers, and constants that are plain attributes."""
    for module in graph.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            yield from (value for value in held.values() if isinstance(value, torch.Tensor))


@compiled_when_run()
def capture(
    model: torch.nn.Module | ExportedProgram,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: bool = True,
) -> Captured:
    """Capture a module with example inputs; an ExportedProgram brings its own.

    dynamic: leave the batch axis, and the sequence axis of token ids and of sequences of vectors, open
    Raises GraphPruneError GP112 where torch.export cannot capture the model, with the line that stopped it.
    """
    kwargs = dict(kwargs or {})
    if isinstance(model, ExportedProgram):
        given, named = (args, kwargs) if args or kwargs else model.example_inputs or ((), {})
        return _captured(model, tuple(given), dict(named), None, ())
    args = tuple(args) if isinstance(args, tuple | list) else (args,)
    notes: tuple[str, ...] = ()
    with evaluating(model):
        if dynamic:
            wide = _widened((args, kwargs))
            try:
                program = _export(model, *wide, dynamic=True)
                return _captured(program, args, kwargs, model, notes)
            except GraphPruneError as failure:
                notes = (f"captured at the sizes of the example only: {failure.what}",)
        program = _export(model, args, kwargs, dynamic=False)
    return _captured(program, args, kwargs, model, notes)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode; each back in its own mode, and with what it had, afterwards."""
    with untouched(model):
        for module in model.modules():
            vars(module)["training"] = False  # a class may allow no attribute to be set
        yield


# What torch.export raises: its own errors derive from these, and what the model's code raises while it is traced.
CAPTURE_FAILS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


def _export(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, dynamic: bool) -> ExportedProgram:
    from torch._dynamo.exc import TorchDynamoException
    from torch._subclasses.fake_tensor import UnsupportedFakeTensorException
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    try:
        with quiet(), torch.no_grad():
            shapes = _dynamic_shapes(model, args, kwargs) if dynamic else None
            return export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    except (*CAPTURE_FAILS, TorchDynamoException, UnsupportedFakeTensorException) as error:
        where = (lines_of(error) or [type(model).__name__])[-1]
        what = f"torch.export cannot capture it: {type(error).__name__}: {_first_line(error)}"
        remedy = "example inputs must be what forward takes: a tensor, a tuple of arguments or a dict of keywords"
        if isinstance(error, GuardOnDataDependentSymNode):
            what = (
                f"its code branches on the numbers in a tensor, which torch.export cannot capture: {_first_line(error)}"
            )
            remedy = "write it with torch.where or torch.cond, or prune the parts around it one by one"
        elif _keeps_a_cache(model, kwargs) and "cache" in str(error).lower():
            remedy = "its cache of keys and values is no tensor: give use_cache=False with the example inputs, "
            remedy += "or set model.config.use_cache = False"
        elif "pytree" in str(error):
            remedy = (
                "torch.export.register_dataclass(Class) makes a dataclass known to it; or pass tensors, tuples, dicts"
            )
        elif not dynamic and _runs(model, args, kwargs):
            remedy = "the module itself runs on the example inputs: write this line in another way, or prune its parts"
        raise GraphPruneError("GP112", what, where, remedy) from error


def _runs(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the inputs are not to blame for what could not be captured."""
    try:
        with torch.no_grad():
            model(*copy.deepcopy(args), **copy.deepcopy(kwargs))
    except CAPTURE_FAILS:
        return False
    return True


def _keeps_a_cache(model: torch.nn.Module, kwargs: Mapping[str, Any]) -> bool:
    """Whether it is a language model that was not told to do without the keys and values of earlier calls."""
    asked = kwargs.get("use_cache")
    return bool(getattr(getattr(model, "config", None), "use_cache", False) if asked is None else asked)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what PyTorch warns about, logs and prints on the way to an error from the user, who is told the error."""
    said, disabled = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
    sys.stderr.write(said.getvalue())  # not reached after an error: what the model itself prints is passed on


def _dynamic_shapes(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    collection = ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor in _tensors((args, kwargs)):
        if open_axes := _open_axes(tensor):
            collection[tensor] = dict.fromkeys(open_axes, Dim.AUTO)
    return collection.dynamic_shapes(model, args, kwargs)  # type: ignore[no-untyped-call]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "")[:300]


def cannot_run(graph: GraphModule, error: BaseException) -> GraphPruneError:
    """What to raise where a graph fails on the inputs that it is given."""
    what = f"PyTorch cannot run it: {type(error).__name__}: {_first_line(error)}"
    remedy = "examples and calibration data must be what forward takes: tensors of its types, numbers in their range"
    return GraphPruneError("GP402", what, type(graph).__name__, remedy)


_NOT_THE_MODEL = tuple(
    folder + os.sep
    for folder in (os.path.dirname(torch.__file__), str(Path(__file__).parents[2]), os.path.dirname(os.__file__))
)
"""Where files of code lie that is not the model's: PyTorch, this package, and Python itself."""


def _is_of_the_model(path: str) -> bool:
    if path.startswith("<"):
        return False  # code that was made on the way
    return not path.startswith(_NOT_THE_MODEL) or ("site-packages" in path and not path.startswith(_NOT_THE_MODEL[:2]))


def lines_of(error: BaseException) -> list[str]:
    """The lines of the traceback (`file.py:12`), the innermost last, that are neither PyTorch's nor this package's."""
    places, step = [], error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if _is_of_the_model(name):
            places.append(f"{name}:{step.tb_lineno}")
        step = step.tb_next
    return places


def _tensors(tree: Any) -> list[torch.Tensor]:
    return list({id(x): x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor)}.values())


def _open_axes(tensor: torch.Tensor) -> list[int]:
    """Batch and sequence: the first axis, and the second of token ids and of sequences of vectors."""
    wide = [axis for axis in range(tensor.dim()) if tensor.shape[axis] > 1]
    if tensor.dim() in {2, 3} and (tensor.dim() == 3 or not tensor.is_floating_point()):
        return [axis for axis in wide if axis < 2]
    return [axis for axis in wide if axis == 0]


def _widened(inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs of batch 1 made batch 2: torch.export takes a size of 1 for a constant."""
    tensors = _tensors(inputs)
    if not tensors or any(tensor.dim() == 0 or tensor.shape[0] != 1 for tensor in tensors):
        return inputs
    doubled: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map(
        lambda x: torch.cat([x, x]) if isinstance(x, torch.Tensor) else x, inputs
    )
    return doubled


@no_collection()
def _captured(
    program: ExportedProgram,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    source: torch.nn.Module | None,
    notes: tuple[str, ...],
) -> Captured:
    module: Callable[..., Any] = program.module
    graph = module(check_guards=False)
    normalise(graph)
    _replace_tensors(graph, lambda tensor: tensor.detach())
    return Captured(graph, args, kwargs, sizes_of(graph, (args, kwargs)), source, notes)


def own_tensors(graph: GraphModule, source: GraphModule) -> None:
    """Let a graph share no tensor with the one that it was made from, so that training it does not train the model that
    was captured."""
    shared = {id(tensor) for tensor in _tensors_of(source)}
    _replace_tensors(graph, lambda tensor: tensor.detach().clone() if id(tensor) in shared else tensor.detach())


def _replace_tensors(graph: GraphModule, made: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace every tensor of a graph by what is made of it; tied ones stay tied, parameters stay parameters."""
    known: dict[int, torch.Tensor] = {}
    for module in graph.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            for name, old in held.items():
                if not isinstance(old, torch.Tensor):
                    continue
                if id(old) not in known:
                    new = made(old)
                    known[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                held[name] = known[id(old)]  # type: ignore[assignment]  # of the kind that was there


def sizes_of(graph: GraphModule, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> dict[str, int]:
    """What each symbolic size of an input is in the example."""
    found: dict[str, int] = {}
    leaves = pytree.tree_leaves(inputs)
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node, given in zip(placeholders, leaves, strict=False):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and isinstance(given, torch.Tensor) and value.dim() == given.dim():
            sizes: Sequence[Any] = value.shape
            for size, actual in zip(sizes, given.shape, strict=True):
                if not isinstance(size, int):
                    found.setdefault(str(size), int(actual))
    return found


def exported(small: Captured) -> ExportedProgram:
    """A graph as an ExportedProgram, with the axes left open that are open in it. Raises GraphPruneError GP112."""
    return _export(small.graph, small.args, small.kwargs, dynamic=bool(small.sizes))
