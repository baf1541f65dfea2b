"""What was saved comes back bit by bit: tensors, ties, types, modes and the plan, in the class that was pruned."""

import copy
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from graphprune.plan import Plan
from graphprune.torch import manifest as manifests
from graphprune.torch.checkpoint import load, save
from graphprune.torch.manifest import Manifest
from graphprune.torch.pruned import Pruned, attach, forget, pruned_of
from graphprune.torch.tensors import cut_in_place
from graphprune.torch.transplant import plan_transplant
from tests.torch.small import CUTS, EDITS, PLAN, SHAPES, Net, holding, images, kept, prune_, pruned_by, same, train


def pruned_net(**options: Any) -> Any:
    torch.manual_seed(0)
    model = Net()
    train(model, torch.optim.SGD(model.parameters(), 0.1), 2)
    prune_(model, pruned_by(**options) if options else None)
    return model


def everything(model: nn.Module) -> Any:
    """All tensors bit by bit, also those outside the state dict, and what a user can see of the model besides."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return (
        {name: (each.dtype, tuple(each.shape), each.requires_grad, bits(each)) for name, each in tensors},
        str(model),
        {name: each.training for name, each in model.named_modules()},
    )


def bits(tensor: Any) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist())


def shown(cuts: Any) -> Any:
    return {name: {axis: np.asarray(positions).tolist() for axis, positions in axes.items()}
            for name, axes in cuts.items()}  # fmt: skip


def test_a_pruned_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = pruned_net().eval()
    files = save(model, tmp_path / "small")
    assert [each.name for each in files] == [
        "buffers.safetensors", "graphprune.json", "model.safetensors", "plan.json",
    ]  # fmt: skip
    found = load(Net, tmp_path / "small")
    assert type(found) is Net
    assert everything(found) == everything(model)
    assert torch.equal(found(images(1)), model(images(1)))
    was, now = pruned_of(model), pruned_of(found)
    assert was is not None and now is not None
    assert now.plan == was.plan == Plan.load(tmp_path / "small" / "plan.json")
    assert shown(now.cuts) == shown(was.cuts)
    assert (now.edits, now.shapes, now.kind) == (EDITS, was.shapes, "module")


def test_the_comparison_of_models_can_fail() -> None:
    model = pruned_net()
    other = copy.deepcopy(model)
    assert everything(other) == everything(model)
    other.table[0] = -other.table[0] * 0
    other.table[0] *= -1
    assert everything(other) != everything(model)
    assert everything(model.eval()) != everything(pruned_net())


def test_training_goes_on_after_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    train(model, optimizer, 2)
    prune_(model)
    plan_transplant(PLAN, model, optimizer)
    save(model, tmp_path / "small")
    found = load(Net, tmp_path / "small")
    other = torch.optim.AdamW(found.parameters(), 0.01)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 3, 20)
    train(found, other, 3, 20)
    assert everything(found) == everything(model)


TYPES = [
    "float64", "float32", "float16", "bfloat16", "complex64", "int64", "int8", "uint8", "uint16", "bool",
    "float8_e4m3fn",
]  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(0, 4), max_size=3),
    dtype=st.sampled_from(TYPES),
    persistent=st.booleans(),
    data=st.data(),
)
def test_every_bit_survives(shape: list[int], dtype: str, persistent: bool, data: Any, tmp_path: Path) -> None:
    torch_type = getattr(torch, dtype)
    size = int(np.prod(shape)) * torch_type.itemsize
    most = 1 if dtype == "bool" else 255
    raw = data.draw(st.lists(st.integers(0, most), min_size=size, max_size=size))
    dense = torch.tensor(raw, dtype=torch.uint8).view(torch_type).view(shape)
    axes = {}
    for axis, length in enumerate(shape):
        keep = data.draw(st.sets(st.integers(0, max(0, length - 1)), min_size=1).map(sorted))
        if len(keep) < length:
            axes[axis] = kept(*keep)

    def make() -> nn.Module:
        model = nn.Module()
        model.register_buffer("kept_whole", torch.zeros(2))
        model.register_buffer("weight", torch.zeros_like(dense), persistent=persistent)
        return model

    model = make()
    model.weight = dense.clone()
    cuts = {"weight": axes} if axes else {}
    cut_in_place(model, cuts)
    attach(model, Pruned(Plan(), cuts))
    save(model, tmp_path / "small")
    found = load(make, tmp_path / "small")
    if persistent or axes:  # a buffer outside the state dict that is not cut is what the class makes
        assert everything(found) == everything(model)


def test_weights_are_spread_over_files_as_hugging_face_does(tmp_path: Path) -> None:
    model = pruned_net()
    save(model, tmp_path / "small", most_bytes=300)
    names = sorted(each.name for each in tmp_path.joinpath("small").glob("model*"))
    index = json.loads((tmp_path / "small" / "model.safetensors.index.json").read_text())
    count = len(names) - 1
    assert count > 2
    assert names[:-1] == [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    assert index["metadata"]["total_size"] == sum(each.nbytes for each in model.state_dict().values())
    state = {}
    for name in set(index["weight_map"].values()):
        state.update(safetensors.load_file(tmp_path / "small" / name))
    assert same(state, dict(model.state_dict()))
    assert everything(load(Net, tmp_path / "small")) == everything(model)


def test_types_modes_and_frozen_parameters_come_back(tmp_path: Path) -> None:
    model = pruned_net().to(torch.bfloat16).eval()
    model.first.weight.requires_grad_(False)
    model.second.to(torch.float64)
    save(model, tmp_path / "small")
    found = load(Net, tmp_path / "small")
    assert everything(found) == everything(model)
    dense = Net().to(torch.bfloat16)  # its table is not cut, and not stored
    save(dense, tmp_path / "dense")
    assert load(Net, tmp_path / "dense").table.dtype == torch.bfloat16
    assert pruned_of(load(Net, tmp_path / "dense")) is None


class Tied(nn.Module):
    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.middle = nn.Linear(6, 6)
        self.head = nn.Linear(6, 7, bias=False)
        if tie:
            self.head.weight = self.embed.weight

    def forward(self, ids: Any) -> Any:
        return self.head(self.middle(self.embed(ids)))


@pytest.mark.parametrize("constructor_ties", [True, False])
@pytest.mark.parametrize("model_ties", [True, False])
@pytest.mark.parametrize("meta", [True, False])
def test_ties_are_those_of_the_saved_model(
    constructor_ties: bool, model_ties: bool, meta: bool, tmp_path: Path
) -> None:
    model = Tied(model_ties)
    cuts = {"embed.weight": {1: kept(0, 2)}, "middle.weight": {0: kept(0, 2), 1: kept(0, 2)}}
    cuts["middle.bias"] = {0: kept(0, 2)}
    if not model_ties:
        cuts["head.weight"] = {1: kept(0, 2)}
    edits = {
        "embed": {"embedding_dim": 2}, "middle": {"in_features": 2, "out_features": 2}, "head": {"in_features": 2},
    }  # fmt: skip
    prune_(model, pruned_by(cuts=cuts, edits=edits))
    save(model, tmp_path / "small")
    found = load(lambda: Tied(constructor_ties), tmp_path / "small", meta=meta)
    assert isinstance(found, Tied)
    assert (found.head.weight is found.embed.weight) == model_ties
    assert everything(found) == everything(model)
    assert torch.equal(found(torch.arange(7)), model(torch.arange(7)))
    assert len(list(found.parameters())) == len(list(model.parameters()))


def test_memory_that_two_parameters_share_is_shared_again(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight.data = model[0].weight.data
    save(model, tmp_path / "model")
    found = load(lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), tmp_path / "model")
    assert everything(found) == everything(model)
    assert found[0].weight is not found[1].weight  # type: ignore[index]
    assert found[0].weight.data_ptr() == found[1].weight.data_ptr()  # type: ignore[index]


def test_a_shared_module_stays_shared(tmp_path: Path) -> None:
    def make(shared: bool = True) -> nn.Module:
        first = nn.Linear(3, 3)
        return nn.Sequential(first, nn.ReLU(), first if shared else nn.Linear(3, 3))

    model = make()
    save(model, tmp_path / "model")
    assert everything(load(make, tmp_path / "model")) == everything(model)
    save(make(False), tmp_path / "other")
    with pytest.raises(Exception, match="GP506 the constructor shares one module, where the saved model has two"):
        load(make, tmp_path / "other")


def test_recurrent_networks_run_after_loading(tmp_path: Path) -> None:
    model = nn.LSTM(3, 4)
    gates = np.concatenate([np.asarray((0, 2)) + 4 * gate for gate in range(4)])
    cuts = {f"{kind}_l0": {0: gates} for kind in ("weight_ih", "bias_ih", "bias_hh")}
    cuts["weight_hh_l0"] = {0: gates, 1: kept(0, 2)}
    prune_(model, pruned_by(cuts=cuts, edits={"": {"hidden_size": 2}}))
    save(model, tmp_path / "small")
    found = load(lambda: nn.LSTM(3, 4), tmp_path / "small")
    assert everything(found) == everything(model)
    assert same(found(torch.ones(2, 1, 3))[0], model(torch.ones(2, 1, 3))[0])


def test_buffers_that_were_set_later_and_settings_in_objects(tmp_path: Path) -> None:
    class Config:
        width = 4

    def make() -> nn.Module:
        model = holding(nn.Parameter(torch.ones(4)))
        model.config = Config()  # type: ignore[assignment]
        model.sizes = (4, 2)  # type: ignore[assignment]
        model.register_buffer("seen", None)
        return model

    model = make()
    model.seen = torch.tensor(3.0)
    prune_(model, pruned_by(cuts={"weight": {0: kept(1)}}, edits={"": {"config.width": 1, "sizes": [1, 2]}}))
    save(model, tmp_path / "small")
    found = load(make, tmp_path / "small")
    assert everything(found) == everything(model)
    assert (found.config.width, found.sizes) == (1, (1, 2))  # type: ignore[union-attr]


def test_a_model_pruned_twice_is_one_checkpoint(tmp_path: Path) -> None:
    model = pruned_net()
    again = {"table": {0: kept(0, 2)}, "head.weight": {1: kept(0, 2)}, "second.weight": {0: kept(0, 2)}}
    plan = type(PLAN)((type(PLAN.groups[0])("second.weight:0", 3, (0, 2)),))
    edits = {"second": {"out_channels": 2}, "head": {"in_features": 2}}
    prune_(model, Pruned(plan, again, edits))
    save(model, tmp_path / "small")
    found = load(Net, tmp_path / "small")
    assert everything(found) == everything(model)
    assert [len(cut.keep) for cut in Plan.load(tmp_path / "small" / "plan.json").groups] == [5, 2]
    assert same(found(images(1)), model(images(1)))


def test_wrappers_are_looked_through(tmp_path: Path) -> None:
    model = pruned_net()
    save(nn.DataParallel(torch.compile(model)), tmp_path / "small")
    assert everything(load(Net, tmp_path / "small")) == everything(model)


def test_without_memory_for_the_dense_weights(tmp_path: Path) -> None:
    model = pruned_net()
    save(model, tmp_path / "small")
    found = load(Net, tmp_path / "small", meta=True)
    assert everything(found) == everything(model)
    save(Net(), tmp_path / "dense")
    with pytest.raises(Exception, match="GP107 the constructor computes 'table', which is not part"):
        load(Net, tmp_path / "dense", meta=True)


def test_a_graph_is_traced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def rebuild_graph(module: nn.Module, plan: Plan, example_inputs: Any) -> nn.Module:
        calls.append((type(module), plan, example_inputs))
        prune_(module)
        forget(module)
        graph = torch.fx.symbolic_trace(module)
        attach(graph, pruned_by(kind="graph", reason="it was asked for"))
        return graph

    fake = ModuleType("graphprune.torch.pruning")
    fake.rebuild_graph = rebuild_graph  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "graphprune.torch.pruning", fake)
    model = rebuild_graph(Net(), PLAN, None)
    forget(model)
    attach(model, pruned_by(kind="graph", reason="view(12) in Net.forward", shapes={n: SHAPES[n] for n in CUTS}))
    calls.clear()
    save(model, tmp_path / "small")
    with pytest.raises(Exception, match=r"GP107 the saved model is a graph, .*: view\(12\) in Net.forward"):
        load(Net, tmp_path / "small")
    found = load(Net, tmp_path / "small", (images(1),))
    assert isinstance(found, torch.fx.GraphModule)
    assert same(found.state_dict(), model.state_dict())
    assert same(found(images(1)), model(images(1)))
    assert calls[0][:2] == (Net, PLAN)
    assert pruned_of(found).kind == "graph"  # type: ignore[union-attr]
    assert pruned_of(found).reason == "view(12) in Net.forward"  # type: ignore[union-attr]
    assert pruned_of(found).earlier is None  # type: ignore[union-attr]
    assert pruned_of(copy.deepcopy(found)).kind == "graph"  # type: ignore[union-attr]


names = st.text("ab.", min_size=1, max_size=3)
settings_ = st.one_of(st.integers(), st.text("x", max_size=2), st.lists(st.integers(), max_size=2), st.none())


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.dictionaries(
        names,
        st.dictionaries(st.integers(0, 3), st.sets(st.integers(0, 40), min_size=1).map(sorted), min_size=1, max_size=2),
        max_size=4,
    ),
    edits=st.dictionaries(names, st.dictionaries(names, settings_, max_size=2), max_size=2),
    shapes=st.dictionaries(names, st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=2),
    tied=st.dictionaries(names, names, max_size=2),
    frozen=st.lists(names, max_size=2).map(tuple),
    training=st.booleans(),
)
def test_manifests_come_back_as_they_were(cuts: Any, **given_fields: Any) -> None:
    manifest = Manifest(cuts=cuts, model="Net", versions={"torch": "2"}, **given_fields)
    text = manifests.write(manifest)
    found = manifests.read(text)
    assert shown(found.cuts) == cuts
    assert {**vars(found), "cuts": None} == {**vars(manifest), "cuts": None}
    assert manifests.write(found) == text
