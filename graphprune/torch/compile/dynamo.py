"""What Dynamo hands to a backend, as a captured graph: the parameters of a module by the names they have in it.

Dynamo traces a graph of calls of PyTorch functions whose inputs are the user's tensors and, before or between them, the
parameters and buffers of the modules that the code uses. Imports torch, and Dynamo.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import external_utils
from torch._dynamo.eval_frame import innermost_backend
from torch._dynamo.guards import GuardBuilder, install_guard
from torch._dynamo.source import NNModuleSource
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._guards import ChainedSource, Source, TracingContext
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from graphprune.dialects.aten.capture import CAPTURE_FAILS, Captured, sizes_of
from graphprune.dialects.aten.normal import normalise
from graphprune.errors import GraphPruneError
from graphprune.torch.compile.fused import WRITTEN_OUT
from graphprune.torch.tensors import places

_GRADIENTS = torch._C._set_grad_enabled


@dataclass(frozen=True)
class Weight:
    """A parameter, buffer or plain attribute of a module: an input of Dynamo's graph that is the same in every call.

    place: which input it is
    name:  its name in the module that was compiled
    """

    place: int
    name: str
    tensor: Tensor


@dataclass(eq=False)
class Traced:
    """One graph of Dynamo, captured.

    captured: ATen operators over the weights; takes the other inputs, returns the other outputs
    weights:  the inputs that are weights
    given:    places of the inputs that the captured graph takes
    fixed:    outputs that are made of weights alone, by place, as nodes of a graph of their own; the captured graph
              does not return them
    outputs:  how many outputs there are
    """

    captured: Captured
    weights: list[Weight]
    given: list[int]
    fixed: dict[int, Node]
    outputs: int

    def constants(self, weights: dict[str, Tensor]) -> dict[int, Tensor]:
        """The outputs that are made of weights alone, for weights (by name) that may have changed since."""
        known: dict[Node, Any] = {}
        return {place: _evaluated(end, self.captured.graph, weights, known) for place, end in self.fixed.items()}

    def forget_weights(self) -> None:
        """Let go of all tensors of the module, so that they live no longer than it does."""
        for weight in self.weights:
            replace(self.captured.graph, weight.name, torch.empty(0, device="meta"))
        self.weights = [Weight(weight.place, weight.name, torch.empty(0)) for weight in self.weights]
        self.captured.args, self.captured.source = (), None


# ---------------------------------------------------------------- who is compiled
def owner_of_compilation() -> Any:
    """The module (or function) that the user gave to `torch.compile`, `None` where that is not to be seen."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "compile_wrapper" and frame.f_globals.get("__name__") == "torch._dynamo.eval_frame":
            return compiled_owner(frame.f_locals.get("fn"))
        frame = frame.f_back
    return None


def compiled_owner(compiled: Any) -> Any:
    """The module or function behind what `torch.compile` returned or was given."""
    inner = getattr(compiled, "_torchdynamo_orig_callable", compiled)
    inner = getattr(inner, "_orig_mod", inner)
    if isinstance(inner, types.FunctionType) and inner.__globals__.get("__name__") == "torch._dynamo.external_utils":
        inner = inner.__wrapped__  # type: ignore[attr-defined]  # Dynamo's own wrapper around modules of PyTorch
    bound = getattr(inner, "__self__", None)
    return bound if isinstance(bound, nn.Module) else inner


def compiled_options(compiled: Any) -> dict[str, Any] | None:
    """The options that a module was compiled with, `None` where `torch.compile` does not keep them at hand."""
    backend = getattr(getattr(compiled, "dynamo_ctx", None), "callback", None)
    found = getattr(innermost_backend(backend), "kwargs", None) if callable(backend) else None
    return found.get("options") if isinstance(found, dict) else None


def frame_of_compilation() -> types.CodeType:
    """The code that is compiled: a function, or what is left of it after a graph break."""
    code: types.CodeType = InstructionTranslator.current_tx().output.root_tx.f_code
    return code


def name_of_code(owner: Any) -> str:
    """What is compiled, for people."""
    code = frame_of_compilation()
    if code.co_filename == external_utils.__file__:  # Dynamo's own wrapper around modules of PyTorch
        return f"{type(owner).__name__}.forward"
    return code.co_qualname


def is_continued() -> bool:
    """Whether the code that is compiled is what is left of a function after a graph break."""
    return frame_of_compilation().co_name.startswith("torch_dynamo_resume_in")


def break_of_graph() -> str:
    """The line at which Dynamo had to end the graph, with its reason; empty where it reached the end."""
    found = InstructionTranslator.current_tx().output.compile_subgraph_reason
    if found is None or not found.graph_break:
        return ""
    line = found.user_stack[-1] if found.user_stack else None
    where = f"{line.filename}:{line.lineno}" if line else "a line that Dynamo does not tell"
    reason = next((text.strip() for text in str(found.reason).splitlines() if text.strip()), "")
    return f"{where}: {reason}" + (f" ({line.line})" if line and line.line else "")


# ---------------------------------------------------------------- which inputs are weights
def weights_of(graph: GraphModule, inputs: Sequence[Any], owner: Any) -> list[Weight]:
    """The inputs that are parameters, buffers or other tensors of modules, in the order of the owner's."""
    found = []
    for place, (node, given) in enumerate(zip(graph.graph.find_nodes(op="placeholder"), inputs, strict=True)):
        static = (node.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type")
        if static and type(given) in {Tensor, nn.Parameter}:  # subclasses hold more than one tensor
            found.append((place, node._dynamo_source, given))
    names = _Names(owner)
    weights = [Weight(place, names.of(source, given), given) for place, source, given in found]
    return sorted(weights, key=lambda weight: names.order.get(weight.name, len(names.order)))


class _Names:
    """Names of tensors: those that they have in the module that was compiled, else how the code reaches them."""

    def __init__(self, owner: Any):
        self.known: dict[int, str] = {}
        self.order: dict[str, int] = {}
        self.taken: set[str] = set()
        self.roots: list[str] = []
        if isinstance(owner, nn.Module):
            self._learn(owner, "")

    def _learn(self, root: nn.Module, prefix: str) -> None:
        found = places(root)
        for name in sorted(found, key=lambda name: not found[name].is_parameter):  # stable: parameters come first
            self.known.setdefault(id(found[name].tensor), prefix + name)
            self.order.setdefault(prefix + name, len(self.order))

    def of(self, source: Source, tensor: Tensor) -> str:
        root = module_source(source)
        if id(tensor) not in self.known and root is not None and root.name not in self.roots:
            self.roots.append(root.name)
            module = value_of(root)
            if isinstance(module, nn.Module):
                self._learn(module, f"{_plain(root.name)}." if self.known else "")
        name = self.known.get(id(tensor)) or _plain(source.name)
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _plain(source: str) -> str:
    """How code reaches a value, as a dotted name: ``L['self']._modules['fc'].scale`` is ``self.fc.scale``."""
    for member in ("_modules", "_parameters", "_buffers"):
        source = source.replace(f".{member}[", "[")
    kept = [c if c.isalnum() or c == "_" else "." for c in source.partition("[")[2] if c not in "'\""]
    return ".".join(part for part in "".join(kept).split(".") if part)


def module_source(source: Source) -> Source | None:
    """Where the code finds the outermost module that a tensor belongs to."""
    found, step = None, source
    while isinstance(step, ChainedSource):
        if isinstance(step, NNModuleSource):
            found = step.base
        step = step.base
    return found


def value_of(source: Source) -> Any:
    """What a source stands for in the frame that is compiled, `None` where that cannot be told."""
    output = InstructionTranslator.current_tx().output
    try:
        return output.resolve_source_value(source)
    except (AttributeError, KeyError, LookupError, NameError, TypeError):
        return None


def guard_modules(graph: GraphModule, weights: Sequence[Weight]) -> None:
    """Have Dynamo compile anew for another instance of the same class: what is cut depends on the weights.

    Without, one graph serves all instances, since parameters are inputs of it.
    """
    nodes = list(graph.graph.find_nodes(op="placeholder"))
    sources = {module_source(nodes[weight.place]._dynamo_source) for weight in weights}
    for source in sources:
        if source is not None:
            install_guard(source.make_guard(GuardBuilder.ID_MATCH))


# ---------------------------------------------------------------- the graph
def trace(graph: GraphModule, inputs: Sequence[Any], weights: list[Weight], owner: Any) -> Traced:
    """Dynamo's graph in ATen operators, with the weights inside it. The graph itself is not changed.

    Raises GraphPruneError GP112 where that cannot be done.
    """
    made = _aten(graph, inputs)
    formal = list(made.graph.find_nodes(op="placeholder"))
    for node, named in zip(formal, graph.graph.find_nodes(op="placeholder"), strict=True):
        node._rename(named.name)
        node.target = node.name
    written = _written(made)
    weights = [weight for weight in weights if formal[weight.place] not in written]
    inference = not any(requires_gradient(graph))
    _hold(made, formal, weights)
    if inference:
        for node in made.graph.find_nodes(op="call_function", target=_GRADIENTS):
            made.graph.erase_node(node)
    output = made.graph.output_node()
    ends = list(output.args[0]) if isinstance(output.args[0], tuple | list) else [output.args[0]]
    constant = _constant(made)
    fixed = {place: end for place, end in enumerate(ends) if isinstance(end, Node) and end in constant}
    copies: dict[Node, Any] = {}
    torch.fx.Graph().graph_copy(made.graph, copies)
    if fixed:
        output.args = (tuple(end for place, end in enumerate(ends) if place not in fixed),)
    given = [place for place, node in enumerate(formal) if node.op == "placeholder" and not node._erased]
    captured = _captured(made, [inputs[place] for place in given], owner)
    return Traced(captured, weights, given, {place: copies[end] for place, end in fixed.items()}, len(ends))


def requires_gradient(graph: GraphModule) -> Iterator[bool]:
    """For each output of Dynamo's graph, whether a gradient could be asked of it."""
    output = graph.graph.output_node()
    yield from (_requires(node) for node in output.all_input_nodes)


def _requires(node: Node) -> bool:
    value = node.meta.get("example_value")
    return isinstance(value, Tensor) and value.requires_grad


def _aten(graph: GraphModule, inputs: Sequence[Any]) -> GraphModule:
    from torch._dynamo.exc import TorchDynamoException
    from torch._subclasses.fake_tensor import UnsupportedFakeTensorException

    context = TracingContext.get()
    assert context.fake_mode is not None
    # A mode of its own: operators that resize their operands must not change what the next backend sees
    mode = FakeTensorMode(shape_env=context.fake_mode.shape_env, allow_non_fake_inputs=True)
    fakes = [_fake(mode, context, given) if isinstance(given, Tensor) else given for given in inputs]
    try:
        with mode:
            made: GraphModule = make_fx(graph, WRITTEN_OUT, pre_dispatch=True, _allow_non_fake_inputs=True)(*fakes)
    except (*CAPTURE_FAILS, TorchDynamoException, UnsupportedFakeTensorException) as error:
        first = str(error).strip().splitlines()
        what = f"the graph cannot be traced further: {type(error).__name__}: {first[0][:200] if first else ''}"
        raise GraphPruneError("GP112", what, frame_of_compilation().co_qualname) from error
    return made


def _fake(mode: FakeTensorMode, context: TracingContext, given: Tensor) -> Tensor:
    symbolic = context.tensor_to_context.get(given)  # type: ignore[no-untyped-call]
    source = None if symbolic is None else symbolic.tensor_source
    fixed = symbolic is None
    return mode.from_tensor(given, static_shapes=fixed, symbolic_context=symbolic, source=source, trace=False)


def _written(graph: GraphModule) -> set[Node]:
    """The inputs that some operator writes to, directly or through a view."""
    found = set()
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        for place, argument in enumerate(schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            found |= {_base(each) for each in (value if isinstance(value, list | tuple) else [value])}
    return {node for node in found if isinstance(node, Node) and node.op == "placeholder"}


def _base(value: Any) -> Any:
    """What a view is a view of."""
    while isinstance(value, Node) and value.op == "call_function":
        schema = getattr(value.target, "_schema", None)
        views = schema is None or any(each.alias_info is not None for each in schema.returns)
        if not views or not value.args:
            return value
        value = value.args[0]
    return value


def _hold(graph: GraphModule, formal: Sequence[Node], weights: Sequence[Weight]) -> None:
    """Weights become attributes of the graph, in their order."""
    first = next(iter(graph.graph.nodes))
    for weight in weights:
        hold(graph, weight.name, weight.tensor)
        with graph.graph.inserting_before(first):
            node = graph.graph.get_attr(weight.name)
        node.meta = dict(formal[weight.place].meta)
        formal[weight.place].replace_all_uses_with(node)
    for weight in weights:
        graph.graph.erase_node(formal[weight.place])


def hold(graph: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a tensor under a dotted name."""
    *parents, last = name.split(".")
    owner = graph
    for part in parents:
        if part not in owner._modules:
            owner.add_module(part, nn.Module())
        owner = owner.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(last, tensor)
    else:
        owner.register_buffer(last, tensor)


def replace(graph: nn.Module, name: str, tensor: Tensor) -> None:
    """Hold another tensor under a name; a parameter only where the tensor is one."""
    path, _, last = name.rpartition(".")
    owner = graph.get_submodule(path)
    owner._parameters.pop(last, None)
    owner._buffers.pop(last, None)
    hold(graph, name, tensor)


def _constant(graph: GraphModule) -> set[Node]:
    """The nodes that are computed from attributes alone, the same in every call."""
    found: set[Node] = set()
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            found.add(node)
        elif node.op == "call_function" and node.all_input_nodes and not node.is_impure():
            random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
            if not random and all(each in found for each in node.all_input_nodes):
                found.add(node)
    return found


def _evaluated(node: Node, holder: GraphModule, tensors: dict[str, Tensor], known: dict[Node, Any]) -> Any:
    """What a node is that is computed from weights, and other tensors of the graph, alone."""
    if node not in known:
        if node.op == "get_attr" and str(node.target) in tensors:
            known[node] = tensors[str(node.target)]
        elif node.op == "get_attr":
            held: Any = holder
            for part in str(node.target).split("."):
                held = getattr(held, part)
            known[node] = held
        else:
            target: Any = node.target
            args, kwargs = torch.fx.map_arg(
                (node.args, node.kwargs), lambda each: _evaluated(each, holder, tensors, known)
            )
            known[node] = target(*args, **kwargs)
    return known[node]


def _captured(graph: GraphModule, inputs: Sequence[Any], owner: Any) -> Captured:
    normalise(graph)
    graph.graph.lint()
    graph.recompile()
    args = tuple(_hint(given) for given in inputs)
    sizes = sizes_of(graph, (args, {}))
    for node, given in zip(graph.graph.find_nodes(op="placeholder"), args, strict=True):
        if isinstance(node.meta.get("val"), torch.SymInt):
            sizes.setdefault(str(node.meta["val"]), given)
    return Captured(graph, args, {}, sizes, owner if isinstance(owner, nn.Module) else None)


def _hint(given: Any) -> Any:
    """The number that a symbolic size has in the example."""
    if isinstance(given, torch.SymInt):
        return int(given.node.hint)
    return given


def all_real(inputs: Sequence[Any]) -> bool:
    """Whether the inputs hold numbers: not where a graph is compiled ahead, without data."""
    return not any(isinstance(given, FakeTensor) or (isinstance(given, Tensor) and given.is_meta) for given in inputs)
