"""One model pruned by one tool in a process of its own, and held against its masked self: a line of JSON.

    python against_worker.py graphprune|torch-pruning MODEL

MODEL is a name of torchvision, or a file of weights (resnet_published.py). Every group loses half, at random; weights
are random as well. The comparison needs no tool: what survived of each tensor is known, everything else of the dense
model is set to zero (a layer norm takes its statistics over the survivors), and both must compute the same.
"""

from __future__ import annotations

import copy
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent.parent))

SAME, LEAST_CONTROL = 1e-3, 1e-2
MOST_BYTES = 6 << 30
_SIDES = {"inception_v3": 96, "maxvit_t": 224, "raft_small": 128}
_SIDE = 64

Survivors = dict[str, Tensor]
"""Flat positions in the dense tensor of every entry of a pruned tensor, in its shape, by the tensor's name."""

Pruned = tuple[nn.Module, Survivors, dict[str, float]]
"""The pruned model, what survived, and seconds of processor time by phase."""


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the seconds of processor time that it takes."""
    start = time.process_time()
    found = call()
    return found, time.process_time() - start


# ------------------------------------------------------------------ models
def built(name: str) -> nn.Module:
    """A model in evaluation mode; what begins as ones, zeros or a millionth is drawn, so that errors show."""
    if Path(name).is_file():
        from resnet_published import trained

        return trained(Path(name))
    from tests.zoo import vision_operators

    vision_operators.load()
    from torchvision import models

    given: dict[str, Any] = {"weights": None}
    if models.get_model_builder(name).__module__.startswith("torchvision.models.segmentation"):
        given["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        given["init_weights"] = False
    if name.startswith("vit_"):
        given["image_size"] = _SIDE
    model: nn.Module = models.get_model(name, **given).eval()
    for path, parameter in model.named_parameters():
        if "layer_scale" in path or (parameter.dim() == 1 and path.endswith("weight")):
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.2, 0.2)
        elif not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def inputs_of(name: str) -> tuple[Tensor, ...]:
    if Path(name).is_file():
        return (torch.randn(1, 3, 32, 32),)
    side = _SIDES.get(name, _SIDE)
    if name.startswith("raft"):
        return (torch.randn(1, 3, side, side), torch.randn(1, 3, side, side))
    is_video = name.startswith(("r3d", "mc3", "swin3d"))
    return (torch.randn(1, 3, 16, side, side) if is_video else torch.randn(1, 3, side, side),)


def outputs_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        found = model(*(each.clone() for each in inputs))
    return [each for each in pytree.tree_leaves(found) if isinstance(each, Tensor)]


def macs_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    with FlopCounterMode(display=False) as counter:
        outputs_of(model, inputs)
    return counter.get_total_flops() // 2


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every floating tensor by its name."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            yield name, tensor


# ------------------------------------------------------------------ the tools
def by_graphprune(model: nn.Module, inputs: tuple[Tensor, ...], hints: bool) -> Pruned:
    """Prune without a hint; there are none to give. What torch.export and the analysis take of it is timed apart."""
    import graphprune as gp
    from graphprune.analysis import analyze_program
    from graphprune.dialects import tools_of
    from graphprune.torch import pruned_of
    from graphprune.torch.pruning import captured

    native, export = timed(lambda: captured(model, inputs))
    _, analysis = timed(lambda: analyze_program(tools_of(native).read(native)).groups)
    options: dict[str, Any] = {"ratio": 0.5, "allocate": "uniform", "criterion": "random", "verify": False}
    result, whole = timed(lambda: gp.prune(model, inputs, **options))
    cuts, survivors = pruned_of(result.model).cuts, {}
    for name, tensor in tensors_of(model):
        places = torch.arange(tensor.numel()).view(tensor.shape)
        for axis, kept in cuts.get(name, {}).items():
            places = places.index_select(axis, torch.from_numpy(kept))
        survivors[name] = places
    return result.model, survivors, {"export": export, "analysis": analysis, "whole": whole}


def by_torch_pruning(model: nn.Module, inputs: tuple[Tensor, ...], hints: bool) -> Pruned:
    """Prune a copy; with hints the layers that make the output are named, and the heads of attention counted."""
    import torch_pruning

    small = copy.deepcopy(model)
    example = inputs[0] if len(inputs) == 1 else inputs
    options: dict[str, Any] = {"pruning_ratio": 0.5, **(hints_for(small, inputs) if hints else {})}
    importance = torch_pruning.importance.RandomImportance()
    pruner, analysis = timed(lambda: torch_pruning.pruner.BasePruner(small, example, importance, **options))
    for _, tensor in tensors_of(small):  # each entry becomes its own position, and tells afterwards where it was
        tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape)
    _, cut = timed(pruner.step)
    dense, survivors = dict(tensors_of(model)), {}
    for name, tensor in tensors_of(small):
        survivors[name] = tensor.detach().round().long()
        tensor.data = dense[name].detach().flatten()[survivors[name]]
    return small, survivors, {"analysis": analysis, "whole": analysis + cut}


def hints_for(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """What a user of Torch-Pruning has to say: the layers as wide as the output, and how many heads there are."""
    widths = {each.shape[1] for each in outputs_of(model, inputs) if each.dim() > 1}
    layers = [each for each in model.modules() if isinstance(each, nn.Linear | nn.Conv2d | nn.Conv3d)]
    last = [each for each in layers if each.weight.shape[0] in widths and not _is_inner(model, each)]
    heads = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            heads[module] = module.num_heads
        elif hasattr(module, "num_heads") and isinstance(getattr(module, "qkv", None), nn.Linear):
            heads[module.qkv] = module.num_heads
    return {"ignored_layers": last, "num_heads": heads}


def _is_inner(model: nn.Module, layer: nn.Module) -> bool:
    """Whether a layer is in the first half of the model: as wide as the output by chance."""
    order = [each for each in model.modules() if hasattr(each, "weight")]
    return order.index(layer) < len(order) // 2


TOOLS: dict[str, Callable[..., Pruned]] = {
    "graphprune": by_graphprune,
    "torch-pruning": by_torch_pruning,
}


# ------------------------------------------------------------------ the comparison
def masked_outputs(model: nn.Module, survivors: Survivors, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What the dense model computes when everything that did not survive is zero."""
    masked, kept = copy.deepcopy(model), {}
    for name, tensor in tensors_of(masked):
        mask = torch.zeros(tensor.numel(), dtype=torch.bool)
        mask[survivors[name].flatten()] = True
        tensor.data = tensor.data * mask.view(tensor.shape)
        if tensor.dim() == 1:
            kept[id(tensor)] = survivors[name]
    plain = F.layer_norm

    def over_survivors(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        places = kept.get(id(weight))
        if places is None or len(places) == x.shape[-1]:
            return plain(x, shape, weight, bias, eps)
        found = plain(x[..., places], (len(places),), weight[places], None if bias is None else bias[places], eps)
        return torch.zeros_like(x).index_copy(-1, places, found)

    F.layer_norm = over_survivors
    try:
        return outputs_of(masked, inputs)
    finally:
        F.layer_norm = plain


def gap(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference, as a share of the largest number of that output; not a number where one is none."""
    pairs = zip(found, expected, strict=True)
    return float(torch.stack([(a - b).abs().max() / b.abs().max().clamp(min=1e-12) for a, b in pairs]).max())


def examined(tool: str, name: str, hints: bool) -> dict[str, Any]:
    """Prune once. `outcome` is "same" where the result computes what it should, else what went wrong."""
    torch.manual_seed(0)
    model, inputs = built(name), inputs_of(name)
    expected, dense = outputs_of(model, inputs), macs_of(model, inputs)
    record: dict[str, Any] = {"outcome": "", "class": type(model).__name__}
    try:
        small, survivors, record["seconds"] = TOOLS[tool](model, inputs, hints)
        found = outputs_of(small, inputs)
        record["macs"], record["class"] = macs_of(small, inputs) / dense, type(small).__name__
    except Exception as error:  # noqa: BLE001 - a failure of either tool is a result
        first = (str(error).strip().splitlines() or [""])[0]
        return {**record, "outcome": "fails", "note": f"{type(error).__name__}: {first}"[:200]}
    if [each.shape for each in found] != [each.shape for each in expected]:
        return {**record, "outcome": "other shape", "note": f"{found[0].shape} instead of {expected[0].shape}"}
    if record["macs"] > 0.99:
        return {**record, "outcome": "uncut"}
    masked = masked_outputs(model, survivors, inputs)
    record["gap"], record["control"] = gap(found, masked), gap(masked, expected)
    if not record["gap"] < SAME:  # not a number is wrong as well
        record["outcome"] = "differs"
    else:
        record["outcome"] = "same" if record["control"] > LEAST_CONTROL else "cannot tell"
    return record


def main() -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    tool, name = sys.argv[1:3]
    found = [examined(tool, name, hints) for hints in ((False, True) if tool == "torch-pruning" else (False,))]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
