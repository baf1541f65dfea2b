"""Criteria from derivatives against what they stand for: gates, losses that change, definitions written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

import graphprune as gp
from graphprune.calibrate import Calibration
from graphprune.criteria import CRITERIA, GradientCriterion
from graphprune.criteria.transfer import REDUCTIONS, score_groups
from graphprune.dialects.aten.derivatives import derivatives
from graphprune.dialects.aten.tools import ATEN
from graphprune.errors import GraphPruneError
from graphprune.torch.pruning import analyze
from tests.torch.networks import Block, Convolutions, images, vectors
from tests.torch.state import state_of, what_changed

GRADIENT = [name for name in CRITERIA.builtin if isinstance(CRITERIA.load(name)(), GradientCriterion)]


class Gated(nn.Module):
    """Two layers with a gate on every hidden channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6, bias=False), nn.Linear(6, 5)
        self.gate = torch.ones(6, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)) * self.gate)


class Plain(Gated):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


def network() -> Plain:
    torch.manual_seed(0)
    return Plain().double()


def data(*sizes: int) -> Calibration:
    generator = torch.Generator().manual_seed(1)
    cases = [((torch.randn(size, 4, generator=generator, dtype=torch.float64),), {}) for size in sizes]
    return Calibration(cases, [torch.randint(0, 5, (size,), generator=generator) for size in sizes])


def gate_gradients(model: Plain, calibration: Calibration) -> np.ndarray:
    """The derivative of the loss of each batch by an explicit gate on every channel."""
    gated = Gated().double()
    gated.load_state_dict(model.state_dict())
    found = []
    for case, labels in zip(calibration.cases, calibration.labels or [], strict=True):
        gated.gate = torch.ones(6, dtype=torch.float64, requires_grad=True)
        loss = nn.functional.cross_entropy(gated(*case[0]), labels)
        found.append(torch.autograd.grad(loss, gated.gate)[0].numpy())
    return np.stack(found)


def scores(model: nn.Module, calibration: Calibration | None, criterion: str, **options: Any) -> np.ndarray:
    analysis = analyze(model, torch.randn(3, 4, dtype=torch.float64))
    (group,) = analysis.groups
    options = {"normalize": "none", **options}
    return score_groups(analysis, [group], criterion=criterion, calibration=calibration, **options)[group.dim]


def split(calibration: Calibration) -> Calibration:
    """The same, one sample at a time."""
    cases = [((row[None],), {}) for case in calibration.cases for row in case[0][0]]
    return Calibration(cases, [label[None] for labels in calibration.labels or [] for label in labels])


# ---------------------------------------------------------------- gates
@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_taylor_is_the_squared_gradient_of_a_gate(reduction: str) -> None:
    model, calibration = network(), data(5, 3)
    gates = gate_gradients(model, calibration)
    found = scores(model, calibration, "taylor", reduction=reduction)
    np.testing.assert_allclose(found, np.square(gates).mean(0), rtol=1e-5)
    absolute = scores(model, calibration, "taylor_abs", reduction=reduction)
    np.testing.assert_allclose(absolute, np.abs(gates).mean(0), rtol=1e-5)
    with pytest.raises(AssertionError):  # what is compared is not the gradient over all batches
        np.testing.assert_allclose(found, np.square(gates.mean(0)), rtol=1e-5)


def test_kwon_is_the_fisher_information_of_a_mask() -> None:
    model, calibration = network(), data(5, 3)
    each = gate_gradients(model, split(calibration))
    np.testing.assert_allclose(scores(model, calibration, "kwon"), np.square(each).mean(0), rtol=1e-5)


class Curved(nn.Module):
    """A bias and an activation between what computes a channel and what reads it: a mask on the channel is not one on
    the weights that compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.gate = nn.Linear(4, 6), nn.Linear(6, 5), torch.ones(6, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = nn.functional.gelu(self.first(x)) * self.gate
        return self.last(hidden)


def test_the_mask_of_kwon_is_behind_the_activation() -> None:
    torch.manual_seed(0)
    model, each = Curved().double(), split(data(5, 3))
    expected = []
    for case, label in zip(each.cases, each.labels or [], strict=True):
        model.gate = torch.ones(6, dtype=torch.float64, requires_grad=True)
        loss = nn.functional.cross_entropy(model(*case[0]), label)
        expected.append(torch.autograd.grad(loss, model.gate)[0].square().numpy())
    model.gate = torch.ones(6, dtype=torch.float64)
    found = scores(model, data(5, 3), "kwon")
    np.testing.assert_allclose(found, np.mean(expected, 0), rtol=1e-5)
    with pytest.raises(AssertionError):  # the weights that compute a channel say something else
        np.testing.assert_allclose(scores(model, data(5, 3), "taylor"), np.mean(expected, 0), rtol=1e-2)


def test_taylor_is_exact_where_the_loss_is_linear() -> None:
    model = network()
    calibration = Calibration(data(5).cases, loss=lambda outputs, _: outputs.sum())
    found = scores(model, calibration, "taylor")
    for entry in range(6):
        cut = network()
        with torch.no_grad():
            cut.last.weight[:, entry] = 0
            change = model(*calibration.cases[0][0]).sum() - cut(*calibration.cases[0][0]).sum()
        np.testing.assert_allclose(found[entry], change.item() ** 2, rtol=1e-9)


def test_a_loss_of_ones_own_is_given_labels_as_tensors() -> None:
    cases = data(5)
    own = replace(cases, labels=[each.tolist() for each in cases.labels or ()], loss=nn.functional.cross_entropy)
    np.testing.assert_array_equal(scores(network(), own, "taylor"), scores(network(), cases, "taylor"))
    texts = replace(own, labels=[["a"] * 5], loss=lambda outputs, labels: outputs.sum() * len(labels))
    assert np.isfinite(scores(network(), texts, "taylor")).all()


# ---------------------------------------------------------------- definitions
def both(model: Plain, kind: str, calibration: Calibration | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and a derivative by them, hidden channels first: of the layer that computes them, and the one that reads
    them."""
    analysis = analyze(model, torch.randn(3, 4, dtype=torch.float64))
    found = next(derivatives(analysis.program, kind, calibration, 0))
    first, last = model.first.weight.detach().numpy(), model.last.weight.detach().numpy()
    return [(first, found["first.weight"]), (last.T, found["last.weight"].T)]


DEFINITIONS: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "snip": ("gradient", lambda w, g: np.abs(g * w)),
    "mag_taylor": ("gradient", lambda w, g: np.abs(w) * np.abs(w * g)),
    "obd": ("squared gradient", lambda w, h: h * w**2 / 2),
    "hutchinson": ("hessian diagonal", lambda w, h: h * w**2 / 2),
    "grasp": ("hessian-gradient product", lambda w, hg: w * hg),
    "synflow": ("synaptic flow", lambda w, r: np.abs(w) * r),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_sums_over_the_weights_of_an_entry(name: str) -> None:
    kind, formula = DEFINITIONS[name]
    model, calibration = network(), data(5, 3)
    parts = [formula(w, d).sum(1) for w, d in both(model, kind, calibration)]
    found = scores(model, calibration, name, reduction="sum")
    np.testing.assert_allclose(found, parts[0] + parts[1], rtol=1e-5)
    assert len(np.unique(found)) == 6


def test_snip_is_what_a_gate_on_each_weight_changes() -> None:
    model, calibration = network(), data(5)
    ((inputs,), _), labels = calibration.cases[0], (calibration.labels or [])[0]
    expected = np.zeros(6)
    step = 1e-6
    for layer, axis in ((model.first.weight, 0), (model.last.weight, 1)):
        for place in np.ndindex(*layer.shape):
            sides = []
            for gate in (1 + step, 1 - step):
                with torch.no_grad():
                    kept = layer[place].item()
                    layer[place] *= gate
                    sides.append(nn.functional.cross_entropy(model(inputs), labels).item())
                    layer[place] = kept
            expected[place[axis]] += abs(sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(scores(model, calibration, "snip", reduction="sum"), expected, rtol=1e-2)


def test_the_sign_of_grasp_on_a_quadratic() -> None:
    """The loss is w'Aw / 2 with a diagonal A: Hg is AAw, and w Hg what the squared norm of Aw loses with each entry."""

    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight)

    scale = torch.tensor([[3.0, 1.0, 0.5]], dtype=torch.float64)
    model = Quadratic()
    calibration = Calibration(
        [((torch.diag(scale[0].sqrt()),), {})], loss=lambda outputs, _: outputs.square().sum() / 2
    )
    analysis = analyze(model, torch.eye(3, dtype=torch.float64))
    found = next(derivatives(analysis.program, "hessian-gradient product", calibration, 0))["weight"]
    weight = model.weight.detach().numpy()
    np.testing.assert_allclose(found, scale.numpy() ** 2 * weight)
    worth = CRITERIA.load("grasp")().products(weight, found)[0]
    squared_norm = np.square(scale.numpy() * weight)[0]
    np.testing.assert_allclose(worth, squared_norm)
    assert np.argsort(worth).tolist() == np.argsort(squared_norm).tolist()


def test_synflow_needs_no_data_and_weights_of_an_entry_agree() -> None:
    model = network()
    found = [scores(model, None, "synflow", reduction=reduction) for reduction in ("mean", "max")]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)


class Deep(nn.Module):
    """A chain with one layer much larger than the others, and one of small weights: what empties a layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = [8, 64, 256, 16, 4]
        self.layers = nn.Sequential(*[nn.Linear(a, b, bias=False) for a, b in pairwise(widths)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def left(weights: dict[str, np.ndarray], worth: dict[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """The weights with the largest worth of all, others zero."""
    everything = np.concatenate([each.ravel() for each in worth.values()])
    floor = np.sort(everything)[-max(1, int(share * everything.size))]
    return {name: np.where((worth[name] >= floor) & (worth[name] > 0), weights[name], 0) for name in weights}


def test_synaptic_flow_leaves_no_layer_empty_where_magnitude_does() -> None:
    torch.manual_seed(0)
    model = Deep().double()
    analysis = analyze(model, torch.ones(1, 8, dtype=torch.float64))
    dense = {stored.name: stored.read().copy() for stored in analysis.program.stored}
    by_magnitude = left(dense, {name: np.abs(each) for name, each in dense.items()}, 1e-3)
    assert min(np.count_nonzero(each) for each in by_magnitude.values()) == 0
    weights, steps = dense, 40
    for step in range(1, steps + 1):
        program = ATEN.read(ATEN.with_stored(analysis.program, weights))
        (flow,) = derivatives(program, "synaptic flow", None, 0)
        worth = {name: np.abs(weights[name]) * flow[name] for name in weights}
        weights = left(weights, worth, 1e-3 ** (step / steps))
    assert min(np.count_nonzero(each) for each in weights.values()) > 0
    total = sum(each.size for each in dense.values())
    assert sum(np.count_nonzero(each) for each in weights.values()) <= max(1e-3 * total, 8)


# ---------------------------------------------------------------- weights that are computed
class Transposed(Plain):
    """The same function of weights that are stored the other way around."""

    def __init__(self) -> None:
        super().__init__()
        self.flipped = nn.Parameter(self.first.weight.detach().t().contiguous())
        del self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(nn.functional.linear(x, self.flipped.t())))


def normalised() -> nn.Module:
    model = network()
    nn.utils.parametrizations.weight_norm(model.first)
    nn.utils.parametrizations.weight_norm(model.last)
    return model


@pytest.mark.parametrize("criterion", GRADIENT)
@pytest.mark.parametrize("reduction", ["sum", "max"])
def test_weights_count_as_they_are_used(criterion: str, reduction: str) -> None:
    calibration = data(5, 3)
    expected = scores(network(), calibration, criterion, reduction=reduction)
    torch.manual_seed(0)
    for model in (Transposed().double(), normalised()):
        found = scores(model, calibration, criterion, reduction=reduction)
        if criterion != "hutchinson":  # of which the random signs are others
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert len(np.unique(found)) == 6


# ---------------------------------------------------------------- from end to end
def batch_of(model: nn.Module) -> tuple[Any, Calibration]:
    if isinstance(model, Convolutions):
        return images(), Calibration(
            [((images(4),), {}), ((images(3),), {})], [[0, 1, 2, 3], [4, 0, 1]], source="noise"
        )
    return vectors(), Calibration([((vectors(4),), {}), ((vectors(3),), {})], loss="self", source="noise")


@pytest.mark.parametrize("build", [Convolutions, Block])
@pytest.mark.parametrize("criterion", GRADIENT)
def test_pruning_modules(criterion: str, build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = build()
    before = state_of(model)
    inputs, calibration = batch_of(model)
    options: dict[str, Any] = {"macs": 0.6, "criterion": criterion, "calibration": calibration}
    result = gp.prune(model, inputs, **options)
    assert what_changed(before, state_of(model)) == []
    assert result.verification is not None
    assert result.verification.ok
    assert result.plan.options["criterion"] == criterion
    assert gp.plan(model, inputs, **options).to_json() == result.plan.to_json()
    analysis = analyze(model, inputs)
    for name in REDUCTIONS:
        found = score_groups(analysis, analysis.groups, criterion=criterion, calibration=calibration, reduction=name)
        assert all(np.isfinite(each).all() for each in found.values())
        assert all(len(np.unique(each)) > 1 for each in found.values())


@pytest.mark.parametrize("criterion", sorted(set(GRADIENT) - {"synflow"}))
def test_what_is_missing_is_named(criterion: str) -> None:
    torch.manual_seed(0)
    model = Convolutions()
    for calibration, words in ((None, "calibration data"), (Calibration([((images(),), {})]), "labels")):
        with pytest.raises(GraphPruneError, match=words) as caught:
            gp.prune(model, images(), macs=0.6, criterion=criterion, calibration=calibration)
        assert caught.value.code == "GP704"
