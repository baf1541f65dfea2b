"""Zeros in modules: masks that training keeps, that are saved, loaded and exported, and that become numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn.utils import parametrize

import graphprune as gp
import graphprune.torch
from graphprune.calibrate import Calibration
from graphprune.errors import GraphPruneError
from graphprune.formats import parse
from graphprune.torch.sparse_masks import SparseMask, bake, masks_of, put_masks, restore_masks
from tests.torch.small import Net, images, train

PAIRS = [("4x1", 0.75), ("2:4", None), ("unstructured", 0.9), ("balanced/4", 0.5)]


class Wide(nn.Module):
    """Layers of which formats find enough: two convolutions and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.middle = nn.Linear(16, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, images: Any) -> Any:
        hidden = torch.relu(self.second(torch.relu(self.first(images)))).mean((2, 3))
        return self.head(torch.relu(self.middle(hidden)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Wide().eval()


def zeros(module: nn.Module) -> dict[str, Any]:
    return {name: (module.get_submodule(name).weight == 0).detach().numpy() for name in ("second", "middle")}


@pytest.mark.parametrize(("text", "share"), PAIRS)
def test_the_copy_has_zeros_and_computes_what_they_make(model: nn.Module, text: str, share: float | None) -> None:
    before = copy.deepcopy(model.state_dict())
    result = gp.sparsify(model, images(1), format=text, sparsity=share)
    assert result.verification is not None and result.verification.ok
    assert "module" in {check.oracle for check in result.verification.checks}
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert sorted(result.masks) == ["middle.weight", "second.weight"]
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in result.masks.items():
            by_hand.get_parameter(name)[torch.as_tensor(~mask)] = 0
    assert torch.equal(by_hand(images(1)), result.model(images(1)))
    matrix = result.masks["second.weight"].reshape(16, 16, 9).swapaxes(1, 2)
    assert parse(text).holds(matrix)


def test_training_keeps_the_zeros(model: nn.Module) -> None:
    sparse = gp.sparsify(model, images(1), format="4x1", sparsity=0.75).model
    before, weight = zeros(sparse), sparse.second.weight.detach().clone()
    optimizer = torch.optim.AdamW(sparse.parameters(), 0.01, weight_decay=0.1)
    train(sparse, optimizer, 5)
    after = zeros(sparse)
    assert all(np.array_equal(before[name], after[name]) and before[name].any() for name in before)
    assert not torch.equal(weight, sparse.second.weight)
    gradient = sparse.second.parametrizations.weight.original.grad.numpy()
    assert not gradient[before["second"]].any() and gradient[~before["second"]].any()


def test_without_a_mask_training_loses_the_zeros(model: nn.Module) -> None:
    """The control of the test above."""
    sparse = gp.sparsify(model, images(1), format="4x1", sparsity=0.75, masks=False).model
    assert not masks_of(sparse) and zeros(sparse)["second"].any()
    train(sparse, torch.optim.AdamW(sparse.parameters(), 0.01), 2)
    assert zeros(sparse)["second"].mean() < 0.1


def test_an_optimizer_knows_the_parameters_when_masks_are_put_on(model: nn.Module) -> None:
    masks = gp.sparsify(model, images(1), format="4x1", sparsity=0.5).masks
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    train(model, optimizer, 1)
    identities = {id(each) for each in model.parameters()}
    put_masks(model, masks)
    assert {id(each) for each in model.parameters()} == identities
    train(model, optimizer, 2)
    assert np.array_equal(zeros(model)["middle"], ~masks["middle.weight"])


def test_masks_are_saved_and_loaded(model: nn.Module, tmp_path: Path) -> None:
    sparse = gp.sparsify(model, images(1), format="2:4").model
    torch.save(sparse.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = Wide().eval()
    restore_masks(fresh, state)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(images(1)), sparse(images(1)))
    assert masks_of(fresh).keys() == masks_of(sparse).keys()
    assert all(torch.equal(a, b) for a, b in zip(masks_of(fresh).values(), masks_of(sparse).values(), strict=True))


def test_baking_makes_the_zeros_numbers(model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    sparse = gp.sparsify(model, images(1), format="2:4").model
    expected, parameters = sparse(images(1)), {id(each) for each in sparse.parameters()}
    bake(sparse)
    assert not masks_of(sparse) and not parametrize.is_parametrized(sparse.second)
    assert type(sparse.second) is nn.Conv2d
    assert [name for name, _ in sparse.named_parameters()] == names
    assert {id(each) for each in sparse.parameters()} == parameters
    assert torch.equal(sparse(images(1)), expected)
    Wide().load_state_dict(sparse.state_dict())
    bake(sparse)


def test_baking_a_copy_leaves_the_original_alone(model: nn.Module) -> None:
    sparse = gp.sparsify(model, images(1), format="2:4").model
    expected = sparse(images(1))
    bake(copy.deepcopy(sparse))
    assert torch.equal(sparse(images(1)), expected)


def test_sparsity_is_raised_step_by_step(model: nn.Module) -> None:
    first = gp.sparsify(model, images(1), format="unstructured", sparsity=0.5).model
    second = gp.sparsify(first, images(1), format="unstructured", sparsity=0.9).model
    assert zeros(second)["second"].mean() == pytest.approx(0.9, abs=1e-3)
    assert not np.any(zeros(first)["second"] & ~zeros(second)["second"])
    assert zeros(first)["second"].mean() == pytest.approx(0.5)


@pytest.mark.parametrize("baked", [False, True])
def test_onnx_export_has_the_zeros(model: nn.Module, baked: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    sparse = gp.sparsify(model, images(1), format="4x1", sparsity=0.75).model
    if baked:
        bake(sparse)
    program = torch.onnx.export(sparse, (images(1),), dynamo=True, verbose=False)
    assert program is not None
    program.save(str(tmp_path / "sparse.onnx"))
    from graphprune.sparsity.zeros import zeros_of

    found = zeros_of(gp.analyze(gp.load(tmp_path / "sparse.onnx")))
    assert [each.sparsity for each in found] == [0.75, 0.75]
    assert all("4x1" in {str(one.format) for one in each.formats} for each in found)


def test_an_exported_program_has_the_zeros_as_numbers(model: nn.Module) -> None:
    program = torch.export.export(model, (images(1),))
    result = gp.sparsify(program, format="2:4")
    assert type(result.model) is torch.export.ExportedProgram
    expected = gp.sparsify(model, images(1), format="2:4").model(images(1))
    assert torch.allclose(result.model.module()(images(1)), expected, atol=1e-6)
    assert not torch.allclose(program.module()(images(1)), expected, atol=1e-4)


def test_criteria_with_gradients(model: nn.Module) -> None:
    cases = [((images(seed),), {}) for seed in range(2)]
    labels = [torch.zeros(len(images(0)), dtype=torch.int64)] * 2
    options = {"format": "unstructured", "sparsity": 0.5, "criterion": "taylor_abs"}
    result = gp.sparsify(model, images(1), **options, calibration=Calibration(cases, labels))
    plain = gp.sparsify(model, images(1), format="unstructured", sparsity=0.5)
    assert result.masks["second.weight"].mean() == pytest.approx(0.5)
    assert not np.array_equal(result.masks["second.weight"], plain.masks["second.weight"])


@pytest.mark.parametrize("allocate", ["uniform", "global"])
def test_grasp_removes_what_lowers_the_norm_of_the_gradient_first(model: nn.Module, allocate: str) -> None:
    """``w Hg`` from autograd, written out: half of it is negative, and its size says nothing about what goes."""
    batch, labels = images(0), torch.arange(len(images(0))) % 4
    options = {"format": "unstructured", "sparsity": 0.5, "criterion": "grasp", "allocate": allocate}
    result = gp.sparsify(model, images(1), **options, calibration=Calibration([((batch,), {})], [labels]))
    held = {name: dict(model.named_parameters())[name] for name in result.masks}
    loss = nn.functional.cross_entropy(model(batch), labels)
    gradients = torch.autograd.grad(loss, [*model.parameters()], create_graph=True)
    norm = sum((each.detach() * each).sum() for each in gradients)
    products = torch.autograd.grad(norm, [*held.values()])
    scores = {n: (w * hg).detach().numpy() for (n, w), hg in zip(held.items(), products, strict=True)}
    assert all((each < 0).mean() > 0.1 for each in scores.values())
    kept = {name: score[result.masks[name]].min() for name, score in scores.items()}
    gone = {name: score[~result.masks[name]].max() for name, score in scores.items()}
    if allocate == "global":
        kept = dict.fromkeys(kept, min(kept.values()))
    assert all(kept[name] >= gone[name] - 1e-4 * np.abs(score).max() for name, score in scores.items())


def test_tied_parameters_are_masked_together() -> None:
    net = Net()
    net.again = net.second
    mask = np.zeros(net.second.weight.shape, bool)
    put_masks(net, {"second.weight": mask})
    assert not net.again.weight.detach().numpy().any()
    assert isinstance(net.second.parametrizations.weight[0], SparseMask)


def test_what_is_not_finite_is_masked_too() -> None:
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
        layer.weight[0, 1] = -0.0
    put_masks(layer, {"weight": np.array([[False, True, True, True], [True] * 4])})
    shown = layer.weight.detach().numpy()
    assert shown[0, 0] == 0 and np.isfinite(shown).all() and np.signbit(shown[0, 1])


@pytest.mark.parametrize(
    ("masks", "code", "words"),
    [
        ({"third.weight": np.ones((6, 8, 3, 3), bool)}, "GP504", "no parameter 'third.weight'"),
        ({"norm.running_mean": np.ones(8, bool)}, "GP504", "no parameter"),
        ({"second.weight": np.ones((8, 6, 3, 3), bool)}, "GP504", "does not fit (6, 8, 3, 3)"),
        ({"second.weight": np.ones((6, 8, 3, 3))}, "GP504", "a mask of torch.float64"),
    ],
)
def test_masks_that_do_not_fit_change_nothing(masks: dict[str, Any], code: str, words: str) -> None:
    net = Net()
    with pytest.raises(GraphPruneError, match=code) as caught:
        put_masks(net, {"first.weight": np.ones((8, 3, 3, 3), bool), **masks})
    assert words in caught.value.what
    assert not masks_of(net)


def test_a_parameter_that_is_masked_is_not_masked_again() -> None:
    net = Net()
    mask = {"head.weight": np.ones((4, 6), bool)}
    put_masks(net, mask)
    with pytest.raises(GraphPruneError, match="GP103"):
        put_masks(net, mask)
    assert list(masks_of(net)) == ["head.weight"]


def test_names_of_the_door() -> None:
    assert graphprune.torch.bake is bake and graphprune.torch.restore_masks is restore_masks


# Weights that make up for zeros


@pytest.mark.parametrize("masks", [True, False])
def test_recovery_writes_into_the_module(masks: bool) -> None:
    """The class that went in, closer to the dense one on data that nobody saw; masks stay in training."""
    from tests.torch import test_recover as blocks

    dense, calibration = blocks.network(), blocks.images(0)
    options: dict[str, Any] = {"format": "unstructured", "sparsity": 0.6, "calibration": calibration, "masks": masks}
    plain = gp.sparsify(dense, calibration[0], **options).model
    result = gp.sparsify(
        dense, calibration[0], **options, criterion="obs", recover="sparsegpt,least_squares,batch_norm"
    )
    assert type(result.model) is nn.Sequential
    assert result.verification is not None and result.verification.ok
    assert blocks.error(dense, result.model) < 0.3 * blocks.error(dense, plain)
    assert set(masks_of(result.model)) == (set(result.masks) if masks else set())
    norm = dict(result.model.named_buffers())["1.bn1.running_mean"]
    assert not torch.equal(norm, dense[1].bn1.running_mean)
    bake(result.model)
    for name, mask in result.masks.items():
        assert not result.model.state_dict()[name].detach().numpy()[~mask].any()


def test_numbers_of_what_the_code_makes_cannot_be_written(model: nn.Module) -> None:
    from dataclasses import replace

    from graphprune.torch.sparse import _write

    choice = gp.sparsify(model, images(1), format="4x1", sparsity=0.5).choice
    with pytest.raises(GraphPruneError, match="GP504"):
        _write(model, replace(choice, others={"nobody.bias": np.zeros(3)}))


def unmasked(module: nn.Module) -> nn.Module:
    """The module with the numbers that its masks hide."""
    plain = copy.deepcopy(module)
    for mask in masks_of(plain).values():
        mask.fill_(True)
    bake(plain)
    return plain


@pytest.mark.parametrize("source", ["module", "program"])
def test_channels_in_another_order_compute_the_same(model: nn.Module, source: str) -> None:
    dense: Any = model if source == "module" else torch.export.export(model, (images(1),))
    example = images(1) if source == "module" else None
    plain, moved = (gp.sparsify(dense, example, format="2:4", permute=each) for each in (False, True))
    assert moved.verification is not None and moved.verification.ok
    assert len(moved.orders) == 2 and not plain.orders
    kept = [
        sum(float((each.weights().astype(np.float64) ** 2).sum()) for each in r.choice.layers) for r in (plain, moved)
    ]
    assert kept[1] > kept[0]
    if source == "module":
        assert type(moved.model) is Wide
        assert torch.allclose(unmasked(moved.model)(images(1)), model(images(1)), atol=1e-6)
        assert not torch.equal(unmasked(moved.model).second.weight, model.second.weight)


class Held(nn.Module):
    """One group that stored positions pick from, one that a constant of the code reads, and one that is free."""

    index: Any

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(16, 16) for _ in range(3))
        self.fourth, self.head = nn.Linear(16, 16), nn.Linear(16, 4)
        self.register_buffer("index", torch.arange(16).reshape(2, 8).T.reshape(-1))
        self.hidden = [torch.linspace(0.5, 2, 16)]

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.second(torch.relu(self.first(x).index_select(1, self.index))))
        return self.head(torch.relu(self.fourth(torch.relu(self.third(x) * self.hidden[0]))))


def test_what_the_code_of_a_module_holds_stays_in_its_order() -> None:
    torch.manual_seed(0)
    module = Held().eval()
    x = torch.randn(3, 16)
    result = gp.sparsify(module, x, format="2:4", permute=True)
    assert torch.allclose(unmasked(result.model)(x), module(x), atol=1e-6)
    assert set(result.orders) == {"second.weight:0"}
    told = " ".join(result.report.notes)
    assert "stored positions pick its entries" in told and "is no parameter of the module" in told


def test_a_checkpoint_with_masks_says_what_it_lacks(tmp_path: Path) -> None:
    sparse = gp.sparsify(Wide(), images(0), format="2:4", only=["*"]).model
    gp.save(sparse, tmp_path / "masked")
    with pytest.raises(GraphPruneError, match=r"GP506[\s\S]*graphprune.torch.bake"):
        gp.load(Wide, tmp_path / "masked")
    bake(sparse)
    gp.save(sparse, tmp_path / "baked")
    assert torch.equal(gp.load(Wide, tmp_path / "baked").first.weight, sparse.first.weight)
