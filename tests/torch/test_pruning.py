"""What `prune` and `prune_` promise of a module: everything that was not to be cut is as it was."""

import copy
import gc
import importlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

import graphprune as gp
from graphprune.errors import GraphPruneError
from graphprune.torch.pruned import pruned_of
from graphprune.torch.pruning import analyze, prune, prune_
from tests.torch import networks
from tests.torch.networks import Block, Convolutions, HardCoded, Tied, images, tokens, vectors
from tests.torch.state import state_of, what_changed

OPTIONS: dict[str, Any] = {"ratio": 0.4, "allocate": "uniform"}


def convolutions() -> Convolutions:
    torch.manual_seed(0)
    return Convolutions()


def outputs(model: Any, *inputs: Any) -> Any:
    model.eval()
    with torch.no_grad():
        return model(*inputs)


def test_changes_are_seen() -> None:
    model = Block()
    model(vectors()).sum().backward()
    before = state_of(model)
    assert what_changed(before, state_of(model)) == []
    with torch.no_grad():
        model.first.weight[0, 0] += 1e-6
    model.first.bias = nn.Parameter(model.first.bias.detach())
    model.last.weight.grad[0] = 1
    model.last.bias.requires_grad_(False)
    model.attention.head_dim = 4
    model.attention.config.hidden_size = 8
    model.norm.eval()
    model.norm.register_forward_hook(lambda *_: None)
    model.extra = 1
    assert what_changed(before, state_of(model)) == [
        "first.weight", "first.bias", "attention:config", "attention:head_dim",
        "norm:training", "norm:_forward_hooks", "last.weight", "last.bias", ":extra",
    ]  # fmt: skip


# ---------------------------------------------------------------- what is not cut is as it was
def test_the_model_that_is_given_is_not_changed() -> None:
    model = convolutions()
    loss = model(images()).sum()
    loss.backward()
    before = state_of(model)
    small = prune(model, images(), **OPTIONS).model
    assert what_changed(before, state_of(model)) == []
    shared = {id(each) for each in model.parameters()} & {id(each) for each in small.parameters()}
    assert not shared
    storages = {each.untyped_storage().data_ptr() for each in model.parameters()}
    assert not storages & {each.untyped_storage().data_ptr() for each in small.parameters()}


def test_the_graph_shares_no_memory_with_the_model() -> None:
    model = convolutions()
    before = state_of(model)
    graph = prune(model, images(), as_graph=True, **OPTIONS).model
    with torch.no_grad():
        for each in graph.parameters():
            each.add_(1)
    assert what_changed(before, state_of(model)) == []


@pytest.mark.parametrize("training", [True, False])
def test_modes_stay(training: bool) -> None:
    model = convolutions().train(training)
    model.norm.train(not training)
    for result in (prune(model, images(), **OPTIONS).model, prune_(model, images(), **OPTIONS).model):
        assert {path: each.training for path, each in result.named_modules()} == {
            path: training != (path == "norm") for path, _ in model.named_modules()
        }


def test_batch_statistics_are_those_of_the_survivors() -> None:
    model = convolutions().train()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    dense = {name: each.clone() for name, each in model.norm.state_dict().items()}
    result = prune(model, images(), **OPTIONS)
    kept = pruned_of(result.model).cuts["norm.running_mean"][0]
    for name in ("running_mean", "running_var", "weight", "bias"):
        assert torch.equal(getattr(result.model.norm, name), dense[name][kept]), name
    assert result.model.norm.num_batches_tracked == dense["num_batches_tracked"] == 0


def test_parameters_that_are_not_trained_stay_so() -> None:
    model = convolutions()
    model.stem.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
    for small in (
        prune(model, images(), **OPTIONS).model,
        prune(model, images(), as_graph=True, **OPTIONS).model,
        prune_(model, images(), **OPTIONS).model,
    ):
        assert {name for name, each in small.named_parameters() if not each.requires_grad} == frozen


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_types_stay(dtype: Any) -> None:
    model = convolutions().to(dtype)
    result = prune(model, images().to(dtype), **OPTIONS)
    assert isinstance(result.model, Convolutions), result.report.notes
    assert {each.dtype for each in result.model.parameters()} == {dtype}
    assert result.model.head.in_features < 12


def test_hooks_stay_and_are_called_on_the_pruned_module_alone() -> None:
    model, seen = convolutions(), []
    model.stem.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    model.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    expected = outputs(copy.deepcopy(model), images())
    small = prune(model, images(), ratio=0.0).model
    seen.clear()
    torch.testing.assert_close(outputs(small, images()), expected)
    assert seen == [8]
    small = prune(model, images(), **OPTIONS).model
    seen.clear()
    outputs(small, images())
    assert seen == [small.stem.out_channels]


def test_other_attributes_stay() -> None:
    model = convolutions()
    model.labels, model.stem.note, model.number = ["cat", "dog"], "first", 8
    small = prune(model, images(), **OPTIONS).model
    assert (small.labels, small.stem.note, small.number) == (["cat", "dog"], "first", 8)


# ---------------------------------------------------------------- in place
def test_in_place_every_tensor_stays_the_same_object() -> None:
    model = convolutions()
    model(images()).sum().backward()
    before = {name: (id(each), each.grad.clone()) for name, each in model.named_parameters()}
    buffers = {name: id(each) for name, each in model.named_buffers()}
    result = prune_(model, images(), **OPTIONS)
    assert result.model is model
    assert {name: id(each) for name, each in model.named_parameters()} == {name: x for name, (x, _) in before.items()}
    assert {name: id(each) for name, each in model.named_buffers()} == buffers
    cuts = pruned_of(model).cuts
    for name, each in model.named_parameters():
        expected = before[name][1].numpy()
        for axis, kept in cuts.get(name, {}).items():
            expected = np.take(expected, kept, axis)
        assert each.grad is not None and np.array_equal(each.grad.numpy(), expected), name


def test_in_place_and_as_a_copy_are_the_same() -> None:
    model = convolutions()
    copied = prune(model, images(), **OPTIONS)
    placed = prune_(model, images(), **OPTIONS)
    assert copied.plan.to_json() == placed.plan.to_json()
    assert torch.equal(outputs(copied.model, images(3)), outputs(placed.model, images(3)))


def test_an_optimizer_goes_on() -> None:
    model = convolutions()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    prune_(model, images(), **OPTIONS)
    weight = model.stem.weight.detach().clone()
    model(images()).square().sum().backward()
    optimizer.step()
    assert not torch.equal(weight, model.stem.weight)


def test_what_cannot_be_done_in_place_leaves_the_module_alone() -> None:
    model = Block(HardCoded)
    model(vectors()).sum().backward()
    before = state_of(model)
    plan = prune(model, vectors(), as_graph=True, verify=False, **OPTIONS).plan
    with pytest.raises(GraphPruneError, match="GP507 its own code cannot run at the new sizes") as found:
        prune_(model, vectors(), plan=plan)
    assert "networks.py" in found.value.what and "GraphModule" in found.value.remedy
    assert what_changed(before, state_of(model)) == []
    assert pruned_of(model) is None


def test_a_failed_verification_puts_the_module_back(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = importlib.import_module("graphprune.verify")
    failed = verify.Verification((verify.Check("mask", "y", 0.5, 1e-6, False),))
    monkeypatch.setattr(verify, "verify_models", lambda *_, **__: failed)
    model = convolutions().train()
    model(images()).sum().backward()
    before = state_of(model)
    with pytest.raises(GraphPruneError, match="GP401"):
        prune_(model, images(), **OPTIONS)
    assert what_changed(before, state_of(model)) == []
    assert pruned_of(model) is None


def test_an_interrupt_puts_the_module_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.torch import pruning

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pruning._Cut, "_compare", interrupted)
    model = convolutions()
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        prune_(model, images(), **OPTIONS)
    assert what_changed(before, state_of(model)) == []


# ---------------------------------------------------------------- what goes in comes out
def test_a_graph_module_comes_out_as_one() -> None:
    traced = torch.fx.symbolic_trace(convolutions())
    result = prune(traced, images(), **OPTIONS)
    assert isinstance(result.model, torch.fx.GraphModule)
    assert isinstance(result.model.stem, nn.Conv2d)
    assert result.model.stem.out_channels == len(result.model.stem.weight) < 8
    prune_(traced, images(), **OPTIONS)
    assert torch.equal(outputs(traced, images()), outputs(result.model, images()))


def test_an_exported_program_comes_out_as_one() -> None:
    model = convolutions().eval()
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    result = prune(program, **OPTIONS)
    assert isinstance(result.model, torch.export.ExportedProgram)
    assert result.model.state_dict.keys() == program.state_dict.keys()
    assert len(result.model.state_dict["stem.weight"]) < 8
    assert len(program.state_dict["stem.weight"]) == 8
    expected = outputs(prune(model, images(), plan=result.plan).model, images(3))
    torch.testing.assert_close(result.model.module()(images(3)), expected)
    buffer = io.BytesIO()
    torch.export.save(result.model, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.export.load(buffer).module()(images(3)), expected)


def test_arguments_by_keyword_and_nested() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(7, 8), nn.Linear(8, 5)

        def forward(self, pair: Any, *, scale: Any, factor: float = 1.0) -> Any:
            hidden = self.first(pair["x"] + pair["more"][0]) * scale * factor
            return {"logits": self.last(hidden), "hidden": (hidden.sum(-1), [hidden.mean()])}

    inputs = {"pair": {"x": vectors(), "more": [vectors()]}, "scale": torch.tensor(2.0), "factor": 0.5}
    result = prune(Nested(), inputs, **OPTIONS)
    assert isinstance(result.model, Nested)
    assert list(result.model(**inputs)) == ["logits", "hidden"]


# ---------------------------------------------------------------- plans
def test_a_plan_fits_another_checkpoint_of_the_model() -> None:
    first, second = convolutions(), Convolutions()
    plan = prune(first, images(), **OPTIONS).plan
    small = prune(second, images(), plan=plan)
    assert small.verification is not None and small.verification.ok
    assert small.plan.groups == plan.groups
    kept = pruned_of(small.model).cuts["stem.weight"][0]
    assert torch.equal(small.model.stem.weight, second.stem.weight[kept])


def test_a_plan_of_another_network_is_refused() -> None:
    plan = prune(Tied(), tokens(), **OPTIONS).plan
    model = convolutions()
    before = state_of(model)
    with pytest.raises(GraphPruneError, match="GP501"):
        prune_(model, images(), plan=plan)
    assert what_changed(before, state_of(model)) == []


@pytest.mark.parametrize("criterion", ["l2", "random"])
def test_the_same_seed_gives_the_same_plan(criterion: str) -> None:
    texts = [
        prune(convolutions(), images(), criterion=criterion, seed=seed, verify=False, **OPTIONS).plan.to_json()
        for seed in (3, 3, 4)
    ]
    assert texts[0] == texts[1]
    assert criterion == "l2" or texts[0] != texts[2]


def test_a_model_is_pruned_twice() -> None:
    model = convolutions()
    once = prune(model, images(), ratio=0.25, allocate="uniform").model
    twice = prune(once, images(), ratio=0.5, allocate="uniform").model
    assert isinstance(twice, Convolutions)
    assert twice.stem.out_channels < once.stem.out_channels < 8
    pruned = pruned_of(twice)
    assert pruned is not None and pruned.earlier is not None and pruned.earlier.plan == pruned_of(once).plan
    prune_(model, images(), ratio=0.25, allocate="uniform")
    prune_(model, images(), ratio=0.5, allocate="uniform")
    assert torch.equal(outputs(model, images()), outputs(twice, images()))


def test_a_graph_that_was_pruned_is_pruned_again() -> None:
    graph = prune(Block(HardCoded), vectors(), ratio=0.25, allocate="uniform").model
    again = prune(graph, vectors(), ratio=0.3, allocate="uniform").model
    assert isinstance(again, torch.fx.GraphModule)
    count = [sum(each.numel() for each in model.parameters()) for model in (again, graph)]
    assert count[0] < count[1]


def test_weights_are_not_needed_for_a_plan() -> None:
    with torch.device("meta"):
        model, inputs = Convolutions(), torch.randn(2, 3, 6, 6)
    result = prune(model, inputs, verify=False, criterion="random", **OPTIONS)
    assert {each.device.type for each in result.model.parameters()} == {"meta"}
    assert isinstance(result.model, Convolutions) and result.model.stem.out_channels < 8
    real = prune(convolutions(), images(), plan=result.plan)
    assert real.verification is not None and real.verification.ok
    assert analyze(model, inputs).groups
    for options in ({"criterion": "l2", "verify": False}, {"criterion": "random"}):
        with pytest.raises(GraphPruneError, match="GP103 a tensor on the meta device has no numbers"):
            prune(model, inputs, **options, **OPTIONS)


# ---------------------------------------------------------------- afterwards
Network = Callable[[], nn.Module]
TRAINED: dict[str, tuple[Network, Any]] = {
    "convolutions": (convolutions, images),
    "recurrent": (networks.Recurrent, tokens),
    "tied": (Tied, tokens),
    "graph": (lambda: Block(HardCoded), vectors),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_pruned_model_trains(name: str) -> None:
    torch.manual_seed(0)
    make, inputs = TRAINED[name]
    model = prune(make(), inputs(), verify=False, **OPTIONS).model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    target = torch.randn_like(model(inputs()).detach())
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = (model(inputs()) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(each.grad is not None for each in model.parameters())
    assert losses[-1] < 0.9 * losses[0]


def test_a_pruned_model_is_exported() -> None:
    small = prune(convolutions(), images(), **OPTIONS).model.eval()
    program = torch.export.export(small, (images(),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.testing.assert_close(program.module()(images(3)), outputs(small, images(3)))


@pytest.mark.parametrize("as_graph", [None, True], ids=["class", "graph"])
def test_a_pruned_model_is_exported_to_onnx(as_graph: bool | None, tmp_path: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    small = prune(convolutions(), images(), as_graph=as_graph, **OPTIONS).model.eval()
    path = tmp_path / "small.onnx"
    torch.onnx.export(small, (images(),), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images().numpy()})
    np.testing.assert_allclose(found, outputs(small, images()).numpy(), rtol=1e-4, atol=1e-5)


def test_a_pruned_model_is_compiled() -> None:
    small = prune(convolutions(), images(), **OPTIONS).model.eval()
    compiled = torch.compile(small, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), small(images()))


def test_nothing_of_the_dense_model_is_kept_alive() -> None:
    def dense_kernels() -> int:
        gc.collect()
        held = [each for each in gc.get_objects() if type(each) is nn.Parameter]
        return sum(tuple(each.shape) == (8, 3, 3, 3) for each in held)

    others = dense_kernels()  # of tests that ran before
    model = convolutions()
    assert dense_kernels() == others + 1
    result = prune_(model, images(), **OPTIONS)
    del result
    assert dense_kernels() <= others


def test_tied_weights_stay_tied_in_the_graph() -> None:
    """`torch.export` reads both by one name; the other must not stay as a dense copy that nobody reads."""
    result = prune(Tied(), tokens(), ratio=0.5, as_graph=True)
    held = dict(result.model.named_parameters(remove_duplicate=False))
    assert held["head.weight"] is held["embedding.weight"]
    assert sum(each.numel() for each in result.model.parameters()) == result.report.pruned.parameters


def test_the_path_of_a_plan_is_not_a_plan() -> None:
    with pytest.raises(GraphPruneError, match=r"GP107 'plan.json' is not a plan[\s\S]*gp.Plan.load"):
        prune(Convolutions(), images(), plan="plan.json")  # type: ignore[arg-type]


def test_complex_parameters_are_counted() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(7, 8), nn.Linear(8, 5)
            self.scale = nn.Parameter(torch.ones(8, dtype=torch.cfloat))

        def forward(self, given: Any) -> Any:
            return self.second((self.first(given) * self.scale).abs())

    model = Scaled()
    dense = prune(model, vectors(), params=0.7).report.dense
    assert dense.parameters == sum(each.numel() for each in model.parameters())


# ---------------------------------------------------------------- analyses
def test_of_the_analysis_of_a_module_comes_a_module() -> None:
    dense = Block()
    analysis = gp.analyze(dense, vectors())
    found = gp.prune(analysis, **OPTIONS)
    wanted = outputs(gp.prune(dense, vectors(), **OPTIONS).model, vectors())
    assert type(found.model) is Block and torch.equal(outputs(found.model, vectors()), wanted)
    assert torch.equal(outputs(gp.apply(analysis, found.plan), vectors()), wanted)
    with pytest.raises(GraphPruneError, match="an analysis has its rules"):
        gp.prune(analysis, rules={"aten:x": "a -> a"}, **OPTIONS)
