"""Models and inputs that are hard, strange or wrong: they are pruned, or refused in three lines; none is damaged."""

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from graphprune.errors import GraphPruneError
from graphprune.torch.pruned import pruned_of
from graphprune.torch.pruning import prune, prune_
from tests.torch.networks import Block, Convolutions, images, tokens, vectors
from tests.torch.state import state_of, what_changed

OPTIONS: dict[str, Any] = {"ratio": 0.4, "allocate": "uniform"}


class Base(nn.Module):
    """Two layers; what is between them is what each case is about."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 8), nn.Linear(8, 5)

    def between(self, hidden: Tensor) -> Tensor:
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


def refused(model: Any, inputs: Any, code: str, *words: str, **options: Any) -> GraphPruneError:
    """`prune` and `prune_` refuse the model with a code and words, say what to do, and leave it bit for bit alone."""
    for function in (prune, prune_):
        before = state_of(model)
        with pytest.raises(GraphPruneError) as found:
            function(model, inputs, **{**OPTIONS, **options})
        assert found.value.code == code, found.value
        for word in words:
            assert word in str(found.value)
        assert found.value.remedy
        assert what_changed(before, state_of(model)) == []
        assert pruned_of(model) is None
    return found.value


def pruned(model: nn.Module, inputs: Any, **options: Any) -> Any:
    """The pruned copy, after checks that the model was not changed, and that in place the same comes out."""
    before = state_of(model)
    result = prune(model, inputs, **{**OPTIONS, **options})
    assert what_changed(before, state_of(model)) == []
    assert type(result.model) is type(model), result.report.notes
    return result.model


# ---------------------------------------------------------------- control flow
class Branching(Base):
    def between(self, hidden: Tensor) -> Tensor:
        if hidden.sum() > 0:  # the line
            hidden = -hidden
        return hidden


class Looping(Base):
    def between(self, hidden: Tensor) -> Tensor:
        while hidden.abs().max() > 0.1:  # the line
            hidden = hidden / 2
        return hidden


@pytest.mark.parametrize("kind", [Branching, Looping])
def test_control_flow_on_data_names_the_line(kind: Any, capfd: pytest.CaptureFixture[str]) -> None:
    error = refused(kind(), vectors(), "GP112", "branches on the numbers in a tensor", "torch.cond")
    path, _, line = error.where.rpartition(":")
    with open(path, encoding="utf-8") as file:
        assert "# the line" in file.readlines()[int(line) - 1]
    assert capfd.readouterr() == ("", "")  # PyTorch prints its graph and a traceback


def test_inputs_are_not_blamed_for_code_that_cannot_be_captured() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.GRU(7, 8, batch_first=True), nn.Linear(8, 5)

        def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True)
            return self.out(self.cell(packed)[1])

    error = refused(Packed(), (torch.randn(2, 4, 7), torch.tensor([4, 3])), "GP112")
    assert "the module itself runs" in error.remedy
    assert "must be what forward takes" not in error.remedy


def test_a_dataclass_of_outputs_has_to_be_known() -> None:
    @dataclass
    class Scores:
        numbers: Tensor

    class Scoring(Base):
        def forward(self, given: Tensor) -> Any:
            return Scores(super().forward(given))

    refused(Scoring(), vectors(), "GP112", "torch.export.register_dataclass")
    torch.export.register_dataclass(Scores)
    pruned(Scoring(), vectors())


def test_control_flow_that_is_written_for_capture() -> None:
    class Written(Base):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x * 2, (super().forward(x),))

    assert pruned(Written(), vectors()).first.out_features < 8


def test_numbers_that_are_read_from_tensors() -> None:
    class Read(Base):
        def between(self, hidden: Tensor) -> Tensor:
            return hidden * hidden.sum().item()

    assert pruned(Read(), vectors()).first.out_features < 8


# ---------------------------------------------------------------- what there is nothing to prune of
@pytest.mark.parametrize("model", [nn.Identity(), nn.Sequential(nn.ReLU(), nn.Flatten()), nn.Linear(7, 5)], ids=str)
def test_nothing_to_prune(model: nn.Module) -> None:
    with pytest.raises(GraphPruneError, match="GP302"):
        prune(model, vectors(), **OPTIONS)
    with pytest.raises(GraphPruneError, match="GP302"):
        prune_(model, vectors(), **OPTIONS)


def test_a_model_without_inputs() -> None:
    class Constant(Base):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("start", torch.randn(7))

        def forward(self) -> Tensor:
            return super().forward(self.start)

    assert pruned(Constant(), ()).first.out_features < 8


# ---------------------------------------------------------------- tensors of other kinds
def test_lazy_modules() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(5))
    refused(model, vectors(), "GP103", "lazy", "run the model once")
    model(vectors())
    assert pruned(model, vectors())[0].out_features < 8


def test_complex_numbers() -> None:
    model = nn.Sequential(nn.Linear(7, 8, dtype=torch.cfloat), nn.Linear(8, 5, dtype=torch.cfloat))
    assert pruned(model, vectors().to(torch.cfloat))[0].weight.shape[0] < 8


def test_spectra() -> None:
    class Spectral(Base):
        def between(self, hidden: Tensor) -> Tensor:
            return torch.fft.irfft(torch.fft.rfft(hidden, dim=1), n=5, dim=1)

    assert pruned(Spectral(), vectors()).first.out_features < 8


def test_quantised_layers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old quantiser is deprecated, and its models are around
        model = torch.ao.quantization.quantize_dynamic(Base(), dtype=torch.qint8)
    refused(model, vectors(), "GP103", "first", "quantised", "before it is quantised")


def test_quantised_tensors() -> None:
    class Quantised(Base):
        def __init__(self) -> None:
            super().__init__()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.register_buffer("table", torch.quantize_per_tensor(torch.randn(8, 8), 0.1, 0, torch.qint8))

        def between(self, hidden: Tensor) -> Tensor:
            return hidden @ self.table.dequantize()

    refused(Quantised(), vectors(), "GP103", "table", "quantised")


def test_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model, inputs = Base(), torch.randn(2, 5, 7)
    refused(model, inputs, "GP103", "fake", "meta device")
    refused(Base(), inputs, "GP103", "an example input", "fake")


def test_inputs_on_another_device() -> None:
    with torch.device("meta"):
        model, inputs = Base(), torch.randn(2, 5, 7)
    refused(Base(), inputs, "GP112", "DeviceMismatch", "meta and cpu")
    refused(model, vectors(), "GP112", "DeviceMismatch", "cpu and meta")


def test_weights_without_numbers() -> None:
    with torch.device("meta"):
        model, inputs = Base(), torch.randn(2, 5, 7)
    refused(model, inputs, "GP103", "meta device", "criterion='random'")


# ---------------------------------------------------------------- reparametrized layers
Normalize = Callable[[nn.Module], Any]
NORMALIZED: dict[str, Normalize] = {
    "weight_norm of old": nn.utils.weight_norm,
    "spectral_norm of old": nn.utils.spectral_norm,
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
}


def copied_outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(images())


@pytest.mark.parametrize("name", NORMALIZED)
def test_normalized_weights(name: str) -> None:
    torch.manual_seed(0)
    model = Convolutions().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        NORMALIZED[name](model.stem)
        NORMALIZED[name](model.head)
    small = pruned(model, images())
    assert small.head.in_features < 12 or name in {"spectral_norm", "orthogonal"}
    assert small.training
    expected = copied_outputs(small)
    prune_(model, images(), **OPTIONS)
    torch.testing.assert_close(copied_outputs(model), expected)
    small(images()).sum().backward()


# ---------------------------------------------------------------- wrappers
class FSDPModule(nn.Module):
    """Of this name are the modules that torch.distributed.fsdp.fully_shard makes."""


class FSDPBase(Base, FSDPModule):
    pass


def test_wrappers_are_refused() -> None:
    refused(nn.DataParallel(Base()), vectors(), "GP103", "DataParallel", "model.module")
    refused(FSDPBase(), vectors(), "GP103", "FSDP", "before wrapping")
    refused(nn.Sequential(FSDPBase()), vectors(), "GP103", "FSDP", "before wrapping")
    refused(torch.compile(Base(), backend="eager"), vectors(), "GP103", "OptimizedModule", "torch.compile")
    refused(nn.Sequential(nn.DataParallel(Base())), vectors(), "GP103", "DataParallel")


def test_scripted_modules_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = (torch.jit.trace(Base(), vectors()), torch.jit.script(nn.Sequential(nn.Linear(7, 8), nn.ReLU())))
    for model in models:
        with pytest.raises(GraphPruneError, match="GP103 ScriptModule"):
            prune(model, vectors(), **OPTIONS)


# ---------------------------------------------------------------- modes of the caller
@pytest.fixture(params=[torch.no_grad, torch.inference_mode, torch.enable_grad], ids=lambda each: each.__name__)
def mode(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield request.param


@pytest.mark.parametrize("function", [prune, prune_])
@pytest.mark.parametrize("as_graph", [None, True])
def test_what_is_made_in_any_mode_can_be_trained(function: Any, mode: Any, as_graph: bool | None) -> None:
    model = Base()
    more = {} if function is prune_ else {"as_graph": as_graph}
    with mode():
        small = function(model, vectors(), verify=False, **more, **OPTIONS).model
        found = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    assert found == {
        "no_grad": (False, False), "inference_mode": (False, True), "enable_grad": (True, False)
    }[mode.__name__]  # fmt: skip
    assert all(each.requires_grad for each in small.parameters())
    small(vectors()).sum().backward()
    assert all(each.grad is not None for each in small.parameters())


def test_models_that_were_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model, inputs = Base(), vectors()
    refused(model, inputs, "GP103", "inference mode", "outside")
    pruned(Base(), inputs)


# ---------------------------------------------------------------- copies
@pytest.mark.parametrize("as_graph", [None, True], ids=["class", "graph"])
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_of_pruned_models_are_pruned_models(copied: Any, as_graph: bool | None) -> None:
    result = prune(Convolutions(), images(), as_graph=as_graph, **OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # copying graphs is what PyTorch itself warns of
        other = copied(result.model)
    with torch.no_grad():
        assert torch.equal(other.eval()(images(3)), result.model.eval()(images(3)))
    found = pruned_of(other)
    assert found is not None and found.plan == result.plan
    again = prune(other, images(), ratio=0.5, allocate="uniform").model
    assert sum(map(torch.numel, again.parameters())) < sum(map(torch.numel, other.parameters()))


# ---------------------------------------------------------------- unusual classes
class Forwarding(Base):
    """What it has not itself it takes from its first layer, as adapters do."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["first"], name)


class Strict(Base):
    """It lets nobody set what it does not know, and makes numbers of its size read-only."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in {"first", "last", "training"}:
            raise AttributeError(f"{name} is not an attribute of Strict")
        super().__setattr__(name, value)

    @property
    def width(self) -> int:
        return self.first.out_features


class WithSlots(Base):
    __slots__ = ("note",)

    def __len__(self) -> int:
        return 0  # so that the model is false

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = nn.Module.__hash__


@pytest.mark.parametrize("kind", [Forwarding, Strict, WithSlots])
def test_unusual_classes(kind: Any) -> None:
    small = pruned(kind(), vectors())
    assert small.first.out_features == small.last.in_features < 8
    model = kind()
    prune_(model, vectors(), **OPTIONS)
    assert model.first.out_features < 8


def test_a_class_that_cannot_be_copied() -> None:
    class Uncopyable(Base):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("it holds a connection")

    model = Uncopyable()
    before = state_of(model)
    with pytest.raises(GraphPruneError, match="GP103 it cannot be copied: it holds a connection") as found:
        prune(model, vectors(), **OPTIONS)
    assert "gp.prune_" in found.value.remedy
    assert what_changed(before, state_of(model)) == []
    prune_(model, vectors(), **OPTIONS)
    assert model.first.out_features < 8


class Counting(Base):
    """It changes its buffers whenever it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(8))

    def between(self, hidden: Tensor) -> Tensor:
        self.calls += 1
        self.average.mul_(0.9).add_(0.1 * hidden.mean((0, 1)))
        return hidden - self.average


def test_models_that_change_their_buffers() -> None:
    model = Counting()
    small = pruned(model, vectors())
    assert len(small.average) == small.first.out_features < 8
    assert small.calls == 0 and not small.average.any()
    prune_(model, vectors(), **OPTIONS)
    assert model.calls == 0 and not model.average.any()


def test_models_that_return_their_buffers() -> None:
    class Returning(Counting):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), self.calls

    result = prune(Returning(), vectors(), **OPTIONS)
    assert isinstance(result.model, Returning), result.report.notes
    assert result.model.calls == 0


class Remembering(Base):
    """It keeps what it saw as an attribute, which a trace must not leave behind."""

    seen: Any = None

    def between(self, hidden: Tensor) -> Tensor:
        self.seen = hidden
        return hidden


def test_models_that_keep_what_they_saw() -> None:
    model = Remembering()
    before = state_of(model)
    prune_or_refuse = [prune, prune_]
    for function in prune_or_refuse:
        function(model, vectors(), **OPTIONS)
    assert not [name for name in what_changed(before, state_of(model)) if "seen" in name]


# ---------------------------------------------------------------- wrong inputs
def test_inputs_that_forward_does_not_take() -> None:
    refused(Convolutions(), torch.randn(2, 4, 6, 6), "GP112", "channels", "example inputs must be what forward takes")
    refused(Convolutions(), (images(), images()), "GP112", "argument")
    refused(Convolutions(), {"pictures": images()}, "GP112", "argument")
    refused(Block(), tokens(), "GP112")
    refused(Base(), "text", "GP112")
    refused(Base(), None, "GP107", "there are no inputs", "example_inputs")
    refused(Base(), (), "GP112", "argument")
    refused(Base(), vectors().numpy(), "GP107", "NumPy", "torch.from_numpy")


class Words(Base):
    """Ids below 50, looked up in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 7)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.table(x))


@pytest.mark.parametrize("verify", [False, True])
def test_inputs_that_export_takes_and_no_run_does(verify: bool) -> None:
    refused(Words(), torch.full((2, 3), 50), "GP402", "out of range", "numbers in their range", verify=verify)
    pruned(Words(), torch.full((2, 3), 49), verify=verify)


def test_wrong_options() -> None:
    refused(Base(), vectors(), "GP107", ratio=1.5)
    refused(Base(), vectors(), "GP106", "'l3'", "l2", criterion="l3")
    refused(Base(), vectors(), "GP106", "'marcs'", "macs", marcs=0.5)


def test_a_module_in_train_mode_keeps_its_mode_and_its_randomness() -> None:
    model = nn.Sequential(nn.Linear(7, 8), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Linear(8, 5)).train()
    state = torch.get_rng_state()
    small = pruned(model, vectors())
    assert torch.equal(torch.get_rng_state(), state)
    assert small.training and all(each.training for each in small.modules())
    assert small[2].num_batches_tracked == 0


def test_inputs_are_not_changed() -> None:
    class Writing(Base):
        def forward(self, x: Tensor) -> Tensor:
            x.mul_(2)
            return super().forward(x)

    inputs = vectors()
    before = inputs.clone()
    pruned(Writing(), inputs)
    assert torch.equal(inputs, before)
