"""One network in two dialects: what is coupled in the captured module is coupled in its own ONNX export, and a plan
made on one gives the same network on the other.

    python -m tests.torch.dialects_agree                 # all architectures; JSON lines, exit code 1 where one differs
    python -m tests.torch.dialects_agree resnet18 gru    # some of them

An export stores weights transposed and under names of its own, and folds what it computes from weights (a batch norm
goes into the convolution before it). So its tensors are found by their numbers, which are random and therefore unique,
and a coupled set is told by its size and those of its parameters that both sides have.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphprune import api
from graphprune.analysis import Analysis
from graphprune.plan import Plan
from graphprune.torch import pruning
from graphprune.verify import difference
from tests.torch.architectures import ARCHITECTURES

_POOLED = "the exporter writes out a pooling to a fixed size, and the weights after it need not all of its places"
_STRIDED = "the exporter writes the view that a global pooling ends with as a Gather of flat positions, which is kept"
KNOWN = {
    "convnext_tiny": _STRIDED,
    "swin_t": _STRIDED,
    "vgg11_bn": _POOLED,
    "alexnet": _POOLED,
}
"""Why the coupled sets of an export are others than those of the module; plans are compared for what both have."""
_TOLERANCE = 1e-4
"""Relative to the largest output: two runtimes compute in different orders, in float32."""

Place = tuple[str, int, tuple[int, ...]]
"""A part of an axis of a parameter: its name, the axis as the module has it, the path of the part."""
Coupled = dict[tuple[int, frozenset[Place]], str]
"""Size and places of a coupled set, and the name of its group."""
Names = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor of an export -> parameter of the module, and the parameter's axis for each axis of the tensor."""


@dataclass
class Agreement:
    """What was found for one architecture; all is well where `problems` is empty.

    known:  coupled sets that only one side has, for a reason that is known
    groups: how many coupled sets both have
    errors: how far outputs are apart, relative to the largest, by where the plan was made
    """

    name: str
    groups: int = 0
    errors: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)


def exported(model: nn.Module, inputs: tuple[Any, ...], folder: Path) -> Any:
    """The model's own ONNX export, read back."""
    path = folder / "dense.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, path, dynamo=True, verbose=False, external_data=False)
    return api.load(path)


def parameters_of(analysis: Analysis, model: nn.Module) -> Names:
    """The parameters that the tensors of an export are, told by name or by their numbers."""
    known = {name: each.detach().numpy() for name, each in [*model.named_parameters(), *model.named_buffers()]}
    found: Names = {}
    for stored in analysis.program.stored:
        if stored.name in known and stored.shape == known[stored.name].shape:
            found[stored.name] = stored.name, tuple(range(len(stored.shape)))
            continue
        if len(stored.shape) < 1:
            continue
        array = stored.read()
        for name, numbers in known.items():
            for axes in itertools.permutations(range(numbers.ndim)):
                if numbers.size > 1 and np.array_equal(numbers.transpose(axes), array):
                    found.setdefault(stored.name, (name, axes))
    return found


def coupled_sets(analysis: Analysis, names: Names) -> Coupled:
    """The coupled sets of a program, told by the parameters in `names`."""
    found: Coupled = {}
    for group in analysis.groups:
        places = frozenset(
            (names[each.tensor][0], names[each.tensor][1][each.axis], tuple(each.path))
            for each in group.members
            if each.tensor in names
        )
        if places:
            found[group.size, places] = group.name
    return found


def compare(captured: Coupled, exported: Coupled) -> list[str]:
    """A line for each coupled set that only one side has."""
    return [
        f"only {where}: {size} of {', '.join(sorted(f'{name}:{axis}' for name, axis, _ in places))}"
        for where, more in (("ATen", captured.keys() - exported.keys()), ("ONNX", exported.keys() - captured.keys()))
        for size, places in more
    ]


def translated(plan: Plan, source: Coupled, target: Coupled) -> Plan:
    """The plan for the coupled sets that both sides have, with the names of the other side."""
    names = {name: target[key] for key, name in source.items() if key in target}
    cuts = tuple(replace(cut, group=names[cut.group]) for cut in plan.groups if cut.group in names)
    return replace(plan, groups=cuts, model="")


def agreement(name: str, *, ratio: float = 0.3) -> Agreement:
    """Analyse, plan and prune one architecture in both dialects, each with the plan of the other."""
    torch.manual_seed(0)
    made = Agreement(name)
    model, inputs = ARCHITECTURES[name]()
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zeros and copied layers would be taken for one another
            parameter += 0.01 * torch.randn_like(parameter)
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer += 0.01 * torch.rand_like(buffer)
    captured = pruning.analyze(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        dense = exported(model, inputs, Path(folder))
        analysis = api.analyze(dense)
        names = parameters_of(analysis, model)
        both = {name for name, _ in names.values()}
        mapped = {name: found for name, found in parameters_of(captured, model).items() if found[0] in both}
        sets = coupled_sets(captured, mapped), coupled_sets(analysis, names)
        made.groups, made.problems = len(sets[0].keys() & sets[1].keys()), compare(*sets)
        if name in KNOWN:
            made.known, made.problems = made.problems, []
        if made.problems:
            return made
        plan = api.plan(captured, ratio=ratio, allocate="uniform")
        own = translated(plan, sets[0], {key: sets[0][key] for key in sets[0].keys() & sets[1].keys()})
        made.errors["ATen"] = _apart(model, inputs, dense, (own, translated(plan, *sets)), Path(folder))
        plan = api.plan(analysis, ratio=ratio, allocate="uniform")
        own = translated(plan, sets[1], {key: sets[1][key] for key in sets[0].keys() & sets[1].keys()})
        made.errors["ONNX"] = _apart(model, inputs, dense, (translated(plan, *sets[::-1]), own), Path(folder))
    made.problems += [f"plan of {where}: apart by {error:.1e}" for where, error in made.errors.items()
                      if not error <= _TOLERANCE]  # fmt: skip
    return made


def _apart(model: nn.Module, inputs: tuple[Any, ...], dense: Any, plans: tuple[Plan, Plan], folder: Path) -> float:
    """How far the outputs of a module and of its export are apart when one plan was applied to both."""
    import onnxruntime

    small = pruning.prune(model, inputs, plan=plans[0], verify=False).model
    path = folder / "small.onnx"
    api.save(api.apply(dense, plans[1]), path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    with torch.no_grad():
        expected = [each.numpy() for each in pytree.tree_leaves(small(*inputs)) if isinstance(each, torch.Tensor)]
    found = session.run(None, dict(zip(names, (each.numpy() for each in inputs), strict=True)))
    assert len(found) == len(expected)
    return max(difference(np.asarray(a), np.asarray(b)) for a, b in zip(expected, found, strict=True))


def main(names: list[str]) -> int:
    """Print one JSON line for each architecture; 1 where one differs."""
    wrong = 0
    for name in names or list(ARCHITECTURES):
        found = agreement(name)
        wrong += bool(found.problems)
        print(json.dumps({**asdict(found), "reason": KNOWN.get(name, "")}), flush=True)
    print(f"{wrong} of {len(names or ARCHITECTURES)} differ", file=sys.stderr)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
