"""Derivatives of captured models against autograd on the module itself, finite differences and closed forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.criteria import DERIVATIVES
from graphprune.dialects.aten.derivatives import derivatives
from graphprune.dialects.aten.tools import ATEN
from graphprune.errors import GraphPruneError
from graphprune.torch.losses import LOSSES, loss_of
from graphprune.torch.pruning import analyze
from tests.torch.networks import Convolutions, Tied, images, tokens
from tests.torch.state import state_of, what_changed

Arrays = Mapping[str, np.ndarray]


def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().double()


def batches(*sizes: int) -> Calibration:
    """Batches of images of these sizes, with labels."""
    generator = torch.Generator().manual_seed(1)
    cases = [((torch.randn(size, 3, 8, 8, generator=generator, dtype=torch.float64),), {}) for size in sizes]
    labels = [torch.randint(0, 5, (size,), generator=generator) for size in sizes]
    return Calibration(cases, labels)


def several(analysis: Analysis, kind: str, calibration: Calibration | None, seed: int = 0) -> list[Arrays]:
    return [dict(each) for each in derivatives(analysis.program, kind, calibration, seed)]


def one(analysis: Analysis, kind: str, calibration: Calibration | None, seed: int = 0) -> Arrays:
    (found,) = several(analysis, kind, calibration, seed)
    return found


def by_autograd(model: nn.Module, inputs: Any, labels: Any) -> dict[str, np.ndarray]:
    """Gradients of the mean cross entropy, from a copy of the module."""
    model.eval()
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(nn.functional.cross_entropy(model(inputs), labels), weights)
    return {name: each.numpy() for name, each in zip(names, found, strict=True)}


def assert_equal(found: Arrays, expected: Arrays, tolerance: float = 1e-9) -> None:
    """The same names, and numbers that differ by a share of the largest at most."""
    assert sorted(found) == sorted(expected)
    for name, each in expected.items():
        assert found[name].shape == each.shape
        assert np.abs(found[name] - each).max() <= tolerance * max(1e-9, np.abs(each).max()), name


def test_the_comparison_sees_a_difference() -> None:
    array = np.array([1.0, 2.0])
    assert_equal({"w": array}, {"w": array})
    for other in ({"w": array * (1 + 1e-6)}, {"v": array}, {"w": array, "v": array}, {"w": -array}):
        with pytest.raises(AssertionError):
            assert_equal(other, {"w": array})


# ---------------------------------------------------------------- the kinds
def test_the_gradient_is_that_of_the_module_over_all_samples() -> None:
    model, data = made(Convolutions), batches(4, 2)
    assert data.labels is not None
    everything = torch.cat([case[0][0] for case in data.cases])
    expected = by_autograd(model, everything, torch.cat(list(data.labels)))
    analysis = analyze(model, images().double())
    assert_equal(one(analysis, "gradient", data), expected)


def test_batches_and_samples_one_after_the_other() -> None:
    model, data = made(Convolutions), batches(3, 2)
    analysis = analyze(model, images().double())
    each_batch = several(analysis, "gradient of each batch", data)
    each_sample = several(analysis, "gradient of each sample", data)
    pairs = [(case[0][0], labels) for case, labels in zip(data.cases, data.labels or [], strict=True)]
    assert len(each_batch) == 2
    for found, (inputs, labels) in zip(each_batch, pairs, strict=True):
        assert_equal(found, by_autograd(model, inputs, labels))
    singles = [(inputs[k : k + 1], labels[k : k + 1]) for inputs, labels in pairs for k in range(len(labels))]
    assert len(each_sample) == 5
    for found, (inputs, labels) in zip(each_sample, singles, strict=True):
        assert_equal(found, by_autograd(model, inputs, labels))
    squares = {name: np.mean([each[name] ** 2 for each in each_batch], axis=0) for name in each_batch[0]}
    assert_equal(one(analysis, "squared gradient", data), squares)


def test_a_fixed_batch_size_keeps_batches_whole() -> None:
    data = batches(2, 2)
    analysis = analyze(made(Convolutions), data.cases[0][0][0], dynamic=False)
    assert len(several(analysis, "gradient of each sample", data)) == 2


def test_the_hessian_times_the_gradient_is_a_finite_difference() -> None:
    model, data = made(Convolutions), batches(4, 2)
    analysis = analyze(model, images().double())
    gradient = one(analysis, "gradient", data)
    norm = np.sqrt(sum(np.square(each).sum() for each in gradient.values()))
    sides = []
    for step in (1e-5 / norm, -1e-5 / norm):
        moved = {
            stored.name: stored.read() + step * gradient[stored.name]
            for stored in analysis.program.stored
            if stored.name in gradient
        }
        there = ATEN.read(ATEN.with_stored(analysis.program, moved))
        sides.append(next(iter(derivatives(there, "gradient", data, 0))))
    expected = {name: (sides[0][name] - sides[1][name]) / (2e-5 / norm) for name in gradient}
    assert_equal(one(analysis, "hessian-gradient product", data), expected, 1e-2)


class Two(nn.Module):
    """Two linear functions, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 4, bias=False)
        self.last = nn.Linear(4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(x))


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x)


def half_squares(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs - labels).square().mean() / 2


def test_the_diagonal_of_a_linear_regression() -> None:
    model = made(Last)
    inputs = torch.randn(64, 4, dtype=torch.float64)
    orthogonal = torch.linalg.qr(inputs)[0] * torch.tensor([1.0, 2.0, 3.0, 4.0])
    labels = torch.randn(64, 1, dtype=torch.float64)
    data = Calibration([((orthogonal,), {})], [labels], loss=half_squares)
    analysis = analyze(model, inputs)
    expected = {"last.weight": orthogonal.square().mean(0, keepdim=True).numpy()}
    # Random signs see the diagonal of a diagonal matrix exactly.
    assert_equal(one(analysis, "hessian diagonal", data), expected)
    # The squared gradient of one sample is residual**2 x**2: the diagonal where residuals are 1 and -1.
    signs = torch.where(torch.rand(64, 1) < 0.5, -1.0, 1.0)
    with torch.no_grad():
        labels = model(inputs) + signs
    single = [((each[None],), {}) for each in inputs]
    samples = Calibration(single, list(labels[:, None]), loss=half_squares)
    expected = {"last.weight": inputs.square().mean(0, keepdim=True).numpy()}
    assert_equal(one(analysis, "squared gradient", samples), expected)


def test_the_diagonal_is_near_that_of_any_hessian_and_follows_the_seed() -> None:
    model = made(Last)
    inputs = torch.randn(256, 4, dtype=torch.float64)
    cases = [((each,), {}) for each in inputs.split(8)]
    data = Calibration(cases, list(torch.zeros(256, 1, dtype=torch.float64).split(8)), loss=half_squares)
    analysis = analyze(model, inputs)
    found = one(analysis, "hessian diagonal", data, 3)
    assert_equal(found, {"last.weight": inputs.square().mean(0, keepdim=True).numpy()}, 0.2)
    assert_equal(found, one(analysis, "hessian diagonal", data, 3), 0)
    with pytest.raises(AssertionError):
        assert_equal(found, one(analysis, "hessian diagonal", data, 4), 0)


# ---------------------------------------------------------------- graphs
class Writes(nn.Module):
    """Writes to its inputs, to results that the gradient needs, to parts of them, and to a buffer."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 5)
        self.register_buffer("count", torch.zeros(2, 2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        self.count.add_(1)
        hidden = torch.sigmoid(self.first(x))
        squared = hidden * hidden
        hidden.mul_(3)
        hidden[:, :2].add_(squared[:, :2])
        return self.last(hidden) * self.count.sum()


class WritesNothing(Writes):
    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.sigmoid(self.first(2 * x))
        squared = torch.cat([hidden[:, :2] * hidden[:, :2], torch.zeros_like(hidden[:, 2:])], 1)
        return self.last(3 * hidden + squared) * (self.count + 1).sum()


@pytest.mark.parametrize("kind", ["gradient", "hessian-gradient product", "hessian diagonal"])
def test_what_a_graph_writes_to_does_not_matter(kind: str) -> None:
    inputs = torch.randn(3, 4, dtype=torch.float64)
    writes, plain = made(Writes), made(WritesNothing)
    found = []
    for model in (writes, plain):
        before, kept = state_of(model), inputs.clone()
        data = Calibration([((inputs,), {})] * 2, [torch.tensor([0, 1, 2])] * 2)
        found.append({k: v for k, v in one(analyze(model, inputs), kind, data).items() if k != "count"})
        assert what_changed(before, state_of(model)) == []
        assert torch.equal(inputs, kept)
    assert_equal(found[0], found[1])


def test_tied_weights_have_one_gradient() -> None:
    model = made(Tied)
    analysis = analyze(model, tokens())
    data = Calibration([((tokens(),), {})], loss=lambda outputs, _: outputs.square().mean())
    names, weights = zip(*model.named_parameters(), strict=True)
    model.eval()
    gradients = torch.autograd.grad(model(tokens()).square().mean(), weights)
    expected = {name: each.numpy() for name, each in zip(names, gradients, strict=True)}
    expected["head.weight"] = expected.pop("embedding.weight")
    assert_equal(one(analysis, "gradient", data), expected)


@pytest.mark.parametrize("kind", DERIVATIVES)
@pytest.mark.parametrize("training", [False, True])
def test_the_module_is_not_touched_and_twice_is_the_same(kind: str, training: bool) -> None:
    model = made(Convolutions).train(training)
    analysis, data = analyze(model, images().double()), batches(2, 2)
    before = state_of(model)
    with torch.no_grad():
        first, second = several(analysis, kind, data), several(analysis, kind, data)
    assert what_changed(before, state_of(model)) == []
    assert all(each.grad is None for each in model.parameters())
    for a, b in zip(first, second, strict=True):
        assert_equal(a, b, 0)
        assert {each.dtype for each in a.values()} == {np.dtype(np.float64)}


def test_half_precision_sums_in_double() -> None:
    model = made(Convolutions).bfloat16()
    data = batches(2, 2)
    cases = [((case[0][0].bfloat16(),), {}) for case in data.cases]
    found = one(analyze(model, images().bfloat16()), "gradient", Calibration(cases, data.labels))
    assert {each.dtype for each in found.values()} == {np.dtype(np.float64)}


# ---------------------------------------------------------------- synaptic flow
class Chain(nn.Module):
    """Convolutions and linear layers one after the other; biases and shifts are there to be left out."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6) if norm else nn.Identity()
        self.second, self.last = nn.Conv2d(6, 4, 3, stride=2), nn.Linear(4, 5)
        if norm:
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.running_mean)
            nn.init.uniform_(self.norm.running_var, 0.1, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.relu6(self.norm(self.first(x)))
        return self.last(nn.functional.gelu(self.second(hidden)).mean((2, 3)))


def flows(model: nn.Module, found: Arrays) -> dict[str, float]:
    weights = dict(model.named_parameters())
    return {name: float((weights[name].detach().abs().numpy() * each).sum()) for name, each in found.items()}


@pytest.mark.parametrize("norm", [False, True])
def test_the_same_flows_through_every_layer(norm: bool) -> None:
    model = made(lambda: Chain(norm)).float()
    found = flows(model, one(analyze(model, images()), "synaptic flow", None))
    weights = [each for name, each in found.items() if name.endswith("weight")]
    assert len(weights) == 3 + norm
    np.testing.assert_allclose(weights, weights[0], rtol=1e-4)
    assert weights[0] > 0
    assert all(each == 0 for name, each in found.items() if name.endswith("bias"))


def test_the_flow_of_a_linear_chain_is_a_product() -> None:
    model = made(Two)
    found = one(analyze(model, torch.randn(2, 4, dtype=torch.float64)), "synaptic flow", None)
    first, last = (each.detach().abs().numpy() for each in (model.hidden.weight, model.last.weight))
    expected = {"last.weight": 2 * first.sum(1)[None], "hidden.weight": 2 * np.repeat(last.T, 4, axis=1)}
    assert_equal(found, expected)


class Squeezed(nn.Module):
    """Squeeze and excitation: a gate on channels, from the channels."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate, self.first, self.last = gate, nn.Linear(4, 6, bias=False), nn.Linear(6, 5, bias=False)
        self.squeeze, self.excite = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        return self.last(hidden * self.gate(self.excite(torch.relu(self.squeeze(hidden)))))


@pytest.mark.parametrize("gate", [torch.sigmoid, nn.functional.hardsigmoid])
def test_what_opens_a_gate_carries_what_passes_through(gate: Callable[[Tensor], Tensor]) -> None:
    model = made(lambda: Squeezed(gate))
    inputs = torch.randn(2, 4, dtype=torch.float64)
    analysis = analyze(model, inputs)
    found = flows(model, one(analysis, "synaptic flow", None))
    passing = found["last.weight"]
    expected = {
        "squeeze.weight": passing,
        "excite.weight": passing,
        "last.weight": passing,
        "first.weight": 2 * passing,
    }
    assert found == pytest.approx(expected)
    # and hardsigmoid has second derivatives here, which it has not in PyTorch
    data = Calibration([((inputs,), {})], loss="self")
    assert all(np.any(each) for each in one(analysis, "hessian-gradient product", data).values())


# ---------------------------------------------------------------- losses
def test_losses_with_names_against_pytorch() -> None:
    logits, classes = torch.randn(3, 7, 5), torch.randint(0, 5, (3, 7))
    shifted = nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 5), classes[:, 1:].reshape(-1))
    aligned = nn.functional.cross_entropy(logits.reshape(-1, 5), classes.reshape(-1))
    torch.testing.assert_close(loss_of("cross_entropy")({"logits": logits}, classes), shifted)
    torch.testing.assert_close(loss_of("token_cross_entropy")((logits,), classes.numpy()), aligned)
    torch.testing.assert_close(loss_of("cross_entropy")(logits[0], classes[0].tolist()),
                               nn.functional.cross_entropy(logits[0], classes[0]))  # fmt: skip
    torch.testing.assert_close(loss_of("mse")(logits, logits + 2), torch.tensor(4.0))
    torch.testing.assert_close(loss_of("self")(logits, None), logits.square().sum() / 6)
    torch.testing.assert_close(loss_of("torch.nn.functional:mse_loss")(logits, logits + 2), torch.tensor(4.0))
    assert sorted(LOSSES) == ["cross_entropy", "mse", "self", "token_cross_entropy"]


@pytest.mark.parametrize(
    ("loss", "labels", "code", "words"),
    [
        ("cross_entropy", None, "GP704", "needs labels"),
        ("cross_entropi", [0, 1], "GP704", "did you mean 'cross_entropy'"),
        ("no.such.module:loss", [0, 1], "GP704", "cannot be imported"),
        (lambda outputs, _: outputs, None, "GP704", "one floating-point number"),
        (lambda outputs, _: outputs.detach().sum(), None, "GP704", "does not depend"),
        (lambda outputs, _: outputs.sum() * float("nan"), None, "GP703", "the loss is nan"),
        ("cross_entropy", [0, 1, 2], "GP702", "do not fit"),
        ("cross_entropy", [0.0, 1.0], "GP702", "float32"),
        ("cross_entropy", [0, 5], "GP702", "from 0 to 5 for 5 classes"),
        ("cross_entropy", [-100, -100], "GP702", "not one label"),
        ("cross_entropy", ["a", "b"], "GP702", "no tensor"),
        ("mse", [0.0, 1.0], "GP702", "do not fit"),
    ],
)
def test_what_is_wrong_with_losses_and_labels(loss: Any, labels: Any, code: str, words: str) -> None:
    analysis = analyze(made(Convolutions), images().double())
    case = ((torch.randn(2, 3, 8, 8, dtype=torch.float64),), {})
    with pytest.raises(GraphPruneError) as caught:
        one(analysis, "gradient", Calibration([case], None if labels is None else [labels], loss=loss))
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_gradient_that_is_not_finite_names_the_tensor() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good, self.bad = nn.Linear(3, 2), nn.Linear(3, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.good(x) + torch.sqrt(self.bad(x))

    model = Root()
    nn.init.zeros_(model.bad.weight)
    with pytest.raises(GraphPruneError, match=r"(?s)GP703.*bad\.weight"):
        one(analyze(model, torch.ones(2, 3)), "gradient", Calibration([((torch.ones(2, 3),), {})], loss="self"))


def test_other_errors() -> None:
    analysis = analyze(made(Convolutions), images().double())
    case = batches(2).cases[0]
    wrong: list[tuple[str, Calibration | None, str]] = [
        ("gradient", None, "GP704"),
        ("gradeint", batches(2), "GP106"),
        ("gradient", Calibration([], []), "GP701"),
        ("gradient", Calibration([case], []), "GP702"),
        ("gradient", Calibration([((torch.zeros(2, 4, 8, 8),), {})], loss="self"), "GP402"),
    ]
    for kind, data, code in wrong:
        with pytest.raises(GraphPruneError) as caught:
            one(analysis, kind, data)
        assert caught.value.code == code
