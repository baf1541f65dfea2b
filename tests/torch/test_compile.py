"""The backend of `torch.compile`: what it computes, and that all graphs of a module agree."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

import graphprune as gp
import graphprune.torch as door
from tests.torch.compiling import (
    HALF,
    IMAGES,
    WORDS,
    Broken,
    Cache,
    Images,
    Words,
    close,
    compiled,
    fresh,
    refusal,
    varied,
)

__all__ = ["fresh"]


def test_the_comparison_can_fail() -> None:
    assert close(torch.ones(3), torch.ones(3) + 1e-7)
    assert not close(torch.ones(3), torch.ones(3) + 1e-3)


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
    assert "compiling.py" in report.parts[0].breaks
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
        model.second.weight.data = torch.randn_like(model.second.weight)  # the same object with other memory
        assert close(small(IMAGES), gp.prune(model, IMAGES, plan=plan).model(IMAGES))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("masked", ["", "mask", "src_key_padding_mask"])
def test_the_fused_encoder_layer_is_written_out(norm_first: bool, masked: str) -> None:
    model = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=norm_first).eval()
    example = torch.randn(2, 5, 16)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1) if masked == "mask" else None
    missing = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if masked == "src_key_padding_mask" else None
    small = compiled(model, ratio=0.0, then="eager", verify=False)
    half = compiled(model, ratio=0.5, then="eager")
    with torch.no_grad():
        wanted, found = (run(example, later, missing) for run in (model, small))
        seen = slice(None) if missing is None else ~missing
        assert close(found[seen], wanted[seen])
        half(example, later, missing)
    assert door.report(half).total.cut == 4  # heads, both of their widths, and the wide layer


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
