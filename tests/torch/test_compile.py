"""The backend of `torch.compile`: what it computes, what it refuses, and that all graphs of a module agree."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.utils.prune as masks
from torch import Tensor, nn

import graphprune as gp
import graphprune.torch as door
from graphprune.dialects.aten import writer
from graphprune.dialects.aten.channels import on_channels
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.program import Node
from graphprune.verify import difference

HALF = {"macs": 0.5, "then": "eager"}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Dynamo remembers compiled code by function."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 24, 3, stride=2)
        self.head = nn.Linear(24, 5)
        self.scale = torch.linspace(0.5, 2, 24)  # a plain attribute

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu_(self.norm(self.first(images)))
        return self.head(torch.relu(self.second(hidden)).mean((2, 3)) * self.scale)


class Words(nn.Module):
    """Attention as a layer of PyTorch, and written out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.queries, self.keys, self.values = (nn.Linear(32, 32) for _ in range(3))
        self.norm = nn.LayerNorm(32)
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)
        self.out = nn.Linear(32, 50)

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        q, k, v = (f(x).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.queries, self.keys, self.values))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norm(x + mixed.transpose(1, 2).flatten(2))
        return self.out(x + self.narrow(nn.functional.gelu(self.wide(x))))


class Broken(nn.Module):
    """Dynamo makes two graphs of it, which share a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
        self.last = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        torch._dynamo.graph_break()
        return self.last(self.shared(x))


def varied(model: nn.Module) -> nn.Module:
    """Statistics and scales that are not all alike, in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
    return model.eval()


def close(a: Tensor, b: Tensor) -> bool:
    return difference(a.detach().numpy(), b.detach().numpy()) < 1e-5


def test_the_comparison_can_fail() -> None:
    assert close(torch.ones(3), torch.ones(3) + 1e-7)
    assert not close(torch.ones(3), torch.ones(3) + 1e-3)


def compiled(model: Any, **options: Any) -> Any:
    return torch.compile(model, backend="graphprune", options=options)


IMAGES, WORDS = torch.randn(2, 3, 9, 9), torch.randint(0, 50, (2, 7))


@pytest.mark.parametrize(("kind", "example"), [(Images, IMAGES), (Words, WORDS)])
def test_it_computes_what_the_pruned_module_computes(kind: type[nn.Module], example: Tensor) -> None:
    model = varied(kind())
    small = compiled(model, **HALF)
    with torch.no_grad():
        found = small(example)
        report = door.report(small)
        pruned = gp.prune(model, example, plan=report.plan).model
        assert close(found, pruned(example))
        assert not close(found, model(example))
    assert report.total.pruned.macs <= 0.5 * report.total.dense.macs
    assert report.total.cut > 0
    assert kind.__name__ in str(report)


def test_the_plan_is_the_one_that_pruning_the_module_makes() -> None:
    model = varied(Images())
    small = compiled(model, **HALF)
    with torch.no_grad():
        small(IMAGES)
    direct = gp.prune(model, IMAGES, macs=0.5).plan
    assert {cut.group: cut.keep for cut in door.report(small).plan.groups} == {c.group: c.keep for c in direct.groups}


def test_other_sizes_keep_the_decisions() -> None:
    model = varied(Words())
    small = compiled(model, **HALF)
    with torch.no_grad():
        small(WORDS)
        plan = door.report(small).plan
        pruned = gp.prune(model, WORDS, plan=plan).model
        for shape in ((2, 9), (3, 5)):
            words = torch.randint(0, 50, shape)
            assert close(small(words), pruned(words))
    assert len(door.report(small).parts) == 1
    assert door.report(small).plan.groups == plan.groups


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients(mode: Any) -> None:
    model = varied(Images())
    small = compiled(model, **HALF)
    with mode():
        found = small(IMAGES)
    assert close(found, gp.prune(model, IMAGES, plan=door.report(small).plan).model(IMAGES))
    with torch.no_grad():
        assert close(small(IMAGES), found)


def test_graphs_of_one_module_agree() -> None:
    model = varied(Broken())
    example = torch.randn(4, 8)
    small = compiled(model, **HALF)
    with torch.no_grad():
        found = small(example)
    report = door.report(small)
    assert len(report.parts) == 2
    cuts = {cut.group: cut.keep for cut in report.plan.groups if len(cut.keep) < cut.size}
    assert set(cuts) == {"shared.0.weight:0", "last.0.weight:0"}
    assert report.parts[1].plan is not None
    assert {c.group: c.keep for c in report.parts[1].plan.groups}["shared.0.weight:0"] == cuts["shared.0.weight:0"]
    by_hand = copy.deepcopy(model)
    for name, layer in (("shared.0.weight:0", by_hand.shared), ("last.0.weight:0", by_hand.last)):
        gone = [k for k in range(layer[0].out_features) if k not in cuts[name]]
        layer[2].weight.data[:, gone] = 0
    assert close(found, by_hand(example))
    assert "test_compile.py" in report.parts[0].breaks
    assert "torch._dynamo.graph_break()" in str(report)


def test_a_parameter_is_not_cut_in_two_ways() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 32)
            self.three = nn.Linear(32, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.two(torch.relu(self.one(x)))  # what comes out of `two` crosses the break
            torch._dynamo.graph_break()
            return self.three(torch.relu(self.two(x)))

    small = compiled(varied(Tied()), **HALF)
    example = torch.randn(2, 8)
    with torch.no_grad():
        found = small(example)
    second = door.report(small).parts[1]
    assert any("kept whole" in note for note in second.notes)
    assert torch.isfinite(found).all()


def test_two_instances_are_two_compilations() -> None:
    layers = nn.ModuleList(varied(Images()) for _ in range(3))
    with torch.no_grad():
        for layer in layers:
            small = compiled(layer, **HALF)
            found = small(IMAGES)
            assert close(found, gp.prune(layer, IMAGES, plan=door.report(small).plan).model(IMAGES))


def test_a_function_of_several_modules() -> None:
    one, two = varied(Images()), nn.Sequential(nn.Linear(5, 30), nn.ReLU(), nn.Linear(30, 2)).eval()

    def both(images: Tensor) -> Tensor:
        return two(one(images))

    small = compiled(both, **HALF)
    with torch.no_grad():
        found = small(IMAGES)
        assert found.shape == (2, 2)
    names = {cut.group for cut in door.report(small).plan.groups}
    assert {"first.weight:0", "two.0.weight:0"} <= names or {"one.first.weight:0", "0.weight:0"} <= names


# ---------------------------------------------------------------- weights that change
def test_new_weights_are_followed() -> None:
    model = varied(Images())
    small = compiled(model, **HALF)
    with torch.no_grad():
        small(IMAGES)
        plan = door.report(small).plan
        other = varied(Images())
        model.load_state_dict(other.state_dict())
        assert close(small(IMAGES), gp.prune(model, IMAGES, plan=plan).model(IMAGES))
        model.head.weight = nn.Parameter(torch.randn_like(model.head.weight))
        assert close(small(IMAGES), gp.prune(model, IMAGES, plan=plan).model(IMAGES))


def test_what_came_to_life_is_not_exploited() -> None:
    model = planted(Images())
    small = compiled(model, mode="exploit", then="eager")
    with torch.no_grad():
        small(IMAGES)
        model.load_state_dict(varied(Images()).state_dict())
        with pytest.warns(UserWarning, match="no longer"):
            assert close(small(IMAGES), model(IMAGES))


# ---------------------------------------------------------------- exploit
def planted(model: Any) -> Any:
    """Channels 1, 4, 5 of the first and 0, 7 of the second convolution are dead."""
    varied(model)
    with torch.no_grad():
        for tensor in (model.first.weight, model.first.bias, model.norm.bias, model.norm.running_mean):
            tensor[[1, 4, 5]] = 0
        for tensor in (model.second.weight, model.second.bias):
            tensor[[0, 7]] = 0
    return model


def test_dead_channels_are_exploited() -> None:
    model = planted(Images())
    small = compiled(model, mode="exploit", then="eager")
    with torch.no_grad():
        assert close(small(IMAGES), model(IMAGES))
    kept = {cut.group: cut.keep for cut in door.report(small).plan.groups}
    assert set(range(16)) - set(kept["first.weight:0"]) == {1, 4, 5}
    assert set(range(24)) - set(kept["second.weight:0"]) == {0, 7}


def test_what_is_dead_makes_more_dead() -> None:
    model = planted(Images())
    with torch.no_grad():
        model.second.weight[3] = 0
        model.second.bias[3] = 0
        model.second.weight[3, [1, 4, 5]] = 1  # reads dead channels only
    small = compiled(model, mode="exploit", then="eager")
    with torch.no_grad():
        assert close(small(IMAGES), model(IMAGES))
    kept = {cut.group: cut.keep for cut in door.report(small).plan.groups}
    assert set(range(24)) - set(kept["second.weight:0"]) == {0, 3, 7}


def test_a_bias_that_shows_is_not_dead() -> None:
    model = planted(Images())
    with torch.no_grad():
        model.second.bias[0] = 1.0
        model.norm.bias[1] = 1.0
    small = compiled(model, mode="exploit", then="eager")
    with torch.no_grad():
        assert close(small(IMAGES), model(IMAGES))
    kept = {cut.group: cut.keep for cut in door.report(small).plan.groups}
    assert set(range(16)) - set(kept["first.weight:0"]) == {4, 5}
    assert set(range(24)) - set(kept["second.weight:0"]) == {7}


def test_masks_of_pytorch_are_exploited() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 3)).eval()
    for place in (0, 2):
        masks.ln_structured(model[place], "weight", amount=0.5, n=2, dim=0)
        masks.custom_from_mask(model[place], "bias", model[place].weight_mask[:, 0])
    example = torch.randn(4, 8)
    small = compiled(model, mode="exploit", then="eager")
    with torch.no_grad():
        assert close(small(example), model(example))
    total = door.report(small).total
    assert total.pruned.macs == 4 * (8 * 16 + 16 * 12 + 12 * 3)


def test_outputs_that_are_weights_alone() -> None:
    class Telling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.scale = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)), torch.ones(3)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return self.body(x), self.body[0].weight.norm(dim=1), self.scale, self.body[2].weight

    model = Telling().eval()
    small = compiled(model, **HALF)
    example = torch.randn(4, 8)
    with torch.no_grad():
        for _ in range(2):
            _, norms, scale, weight = small(example)
            assert close(norms, model.body[0].weight.norm(dim=1))
            assert close(scale, model.scale)
            assert close(weight, model.body[2].weight)
            model.body[0].weight.mul_(2)
    assert door.report(small).total.cut == 1


class Cache(nn.Module):
    """Writes to a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(8, 16), nn.Linear(16, 3)
        self.register_buffer("past", torch.zeros(4, 16))
        self.past: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.past[:2].copy_(self.inner(x))
        return self.out(torch.relu(self.past))


def test_a_buffer_that_the_code_writes_is_not_cut() -> None:
    model = Cache().eval()
    example = torch.randn(2, 8)
    assert refusal(copy.deepcopy(model), example, **HALF).code == "GP302"
    small = compiled(model, mode="exploit", then="eager")
    with torch.no_grad():
        for factor in (1, 2):
            found = small(factor * example)
            assert close(model.past[:2], model.inner(factor * example))
            assert close(found, model.out(torch.relu(model.past)))


def test_a_compiled_module_can_be_forgotten() -> None:
    model = varied(Images())
    small = compiled(model, **HALF)
    with torch.no_grad():
        small(IMAGES)
    module, weight = weakref.ref(model), weakref.ref(model.first.weight)
    del model, small
    gc.collect()
    assert module() is None
    assert weight() is None


def test_patterns_about_other_graphs_are_left_out() -> None:
    small = compiled(varied(Broken()), ratio=0.5, then="eager", ignore=["shared.*"])
    with torch.no_grad():
        small(torch.randn(4, 8))
    cuts = {cut.group for cut in door.report(small).plan.groups if len(cut.keep) < cut.size}
    assert cuts == {"last.0.weight:0"}
    assert any("no dimension can be pruned" in note for note in door.report(small).parts[0].notes)


def test_reports_are_told_apart_by_options() -> None:
    model = varied(Images())
    half, third = compiled(model, **HALF), compiled(model, then="eager", ratio=0.3)
    with torch.no_grad():
        half(IMAGES)
        with pytest.raises(GraphPruneError, match="GP603"):
            door.report(third)
        third(IMAGES)
    assert door.report(half).plan.groups != door.report(third).plan.groups
    torch._dynamo.reset()
    with pytest.raises(GraphPruneError, match="GP603"):
        door.report(half)


def test_every_graph_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    gather = writer.gathered

    def turned(tensor: Tensor, places: Any) -> Tensor:
        """Matrices in another order than the vectors that they are coupled to."""
        return gather(tensor, {axis: kept[::-1] if tensor.dim() == 4 else kept for axis, kept in places.items()})

    with monkeypatch.context() as patch:
        patch.setattr(writer, "gathered", turned)
        assert refusal(varied(Images()), IMAGES, **HALF).code == "GP401"
    small = compiled(varied(Images()), **HALF, verify="full")
    with torch.no_grad():
        small(IMAGES)
    checked = door.report(small).total.verification
    assert checked is not None
    assert {"permutation", "mask"} <= {check.oracle for check in checked.checks}


def test_channels_that_are_constant() -> None:
    unknown = Node("pow", "aten.nonsense", [], [])
    assert on_channels(unknown, [torch.zeros(3).numpy()]) is None


# ---------------------------------------------------------------- options
def refusal(model: nn.Module, example: Tensor, grad: bool = False, **options: Any) -> GraphPruneError:
    with pytest.raises(GraphPruneError) as caught, torch.set_grad_enabled(grad):
        torch.compile(model, backend="graphprune", options=options)(example)
    return caught.value


@pytest.mark.parametrize(
    ("options", "code", "remedy"),
    [
        ({"mcas": 0.5}, "GP106", "did you mean 'macs'"),
        ({"macs": 0.5, "mode": "prun"}, "GP107", "did you mean 'prune'"),
        ({"macs": 0.5, "then": "inductr"}, "GP107", "did you mean 'inductor'"),
        ({"macs": 50}, "GP107", "write 0.5"),
        ({"then": "eager"}, "GP107", "macs"),
        ({"mode": "exploit", "macs": 0.5}, "GP107", "leave them out"),
        ({"plan": "nowhere.json"}, "GP101", ""),
        ({"plan": 3}, "GP107", "path of a plan"),
        ({"macs": 0.001, "then": "eager"}, "GP301", ""),
    ],
)
def test_options_are_checked(options: dict[str, Any], code: str, remedy: str) -> None:
    error = refusal(varied(Images()), IMAGES, **options)
    assert error.code == code
    assert remedy in error.remedy
    assert isinstance(error, BudgetNotMet) == (code == "GP301")


def test_training_is_refused() -> None:
    error = refusal(varied(Images()), IMAGES, True, **HALF)
    assert error.code == "GP601"
    assert "no_grad" in error.remedy
    error = refusal(Images().train(), IMAGES, **HALF)
    assert error.code == "GP602"
    assert "eval()" in error.remedy


def test_frozen_parameters_need_no_mode() -> None:
    model = varied(Images()).requires_grad_(False)
    small = compiled(model, **HALF)
    images = IMAGES.clone().requires_grad_()
    small(images).sum().backward()
    wanted = IMAGES.clone().requires_grad_()
    gp.prune(model, IMAGES, plan=door.report(small).plan).model(wanted).sum().backward()
    assert images.grad is not None
    assert wanted.grad is not None
    assert close(images.grad, wanted.grad)


def test_a_plan_from_a_file(tmp_path: Path) -> None:
    model = varied(Images())
    result = gp.prune(model, IMAGES, ratio=0.3)
    result.plan.save(tmp_path / "plan.json")
    small = compiled(model, plan=str(tmp_path / "plan.json"), then="eager")
    with torch.no_grad():
        assert close(small(IMAGES), result.model(IMAGES))
    error = refusal(varied(Words()), WORDS, plan=result.plan, then="eager")
    assert error.code == "GP501"


def test_a_report_needs_a_run() -> None:
    small = compiled(Images(), **HALF)
    with pytest.raises(GraphPruneError, match="GP603"):
        door.report(small)


def test_inductor_compiles_what_is_left() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    small = compiled(model, macs=0.5)
    example, more = torch.randn(4, 8), torch.randn(6, 8)
    with torch.no_grad():
        found = small(example)
        plan = door.report(small).plan
        assert close(found, gp.prune(model, example, plan=plan).model(example))
        model[0].weight.mul_(2.0)
        model[2].bias.add_(1.0)
        assert close(small(example), gp.prune(model, example, plan=plan).model(example))
        assert close(small(more), gp.prune(model, example, plan=plan).model(more))
    assert door.report(small).parts[0].then == "inductor"


def test_another_backend_is_handed_a_smaller_graph() -> None:
    seen: list[int] = []

    def counting(graph: Any, inputs: list[Any], options: dict[str, Any]) -> Any:
        seen.append(sum(tensor.numel() for tensor in graph.buffers()) + options["more"])
        return graph.forward

    model = varied(Images())
    small = compiled(model, ratio=0.5, then=counting, then_options={"more": 0})
    with torch.no_grad():
        small(IMAGES)
    assert 0 < seen[0] < sum(tensor.numel() for tensor in model.parameters()) * 0.5
