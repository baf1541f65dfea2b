"""Pruned modules are of the class that they were, with attributes that say what their tensors are."""

import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from graphprune.errors import GraphPruneError
from graphprune.torch.pruned import pruned_of
from graphprune.torch.pruning import prune
from tests.torch import networks
from tests.torch.networks import Attention, Block, FromConfig, HardCoded, images, tokens, vectors


def wrong_attributes(model: nn.Module) -> list[str]:
    """The submodules of PyTorch's own classes whose attributes contradict the shapes of their tensors."""
    return [path for path, layer in model.named_modules() if not _fits(layer)]


def _fits(layer: Any) -> bool:
    for kind, holds in _HOLDS.items():
        if isinstance(layer, kind):
            return bool(holds(layer))
    return True


def _convolution(layer: Any) -> bool:
    sizes = (layer.out_channels, layer.in_channels // layer.groups)
    if layer.transposed:
        sizes = (layer.in_channels, layer.out_channels // layer.groups)
    whole = layer.in_channels % layer.groups == 0 and layer.out_channels % layer.groups == 0
    return whole and tuple(layer.weight.shape[:2]) == sizes


_HOLDS: dict[Any, Callable[[Any], bool]] = {
    nn.Linear: lambda layer: tuple(layer.weight.shape) == (layer.out_features, layer.in_features),
    nn.Embedding: lambda layer: tuple(layer.weight.shape) == (layer.num_embeddings, layer.embedding_dim),
    nn.modules.conv._ConvNd: _convolution,
    nn.modules.batchnorm._BatchNorm: lambda layer: len(layer.weight) == len(layer.running_var) == layer.num_features,
    nn.LayerNorm: lambda layer: tuple(layer.weight.shape) == tuple(layer.normalized_shape),
    nn.GroupNorm: lambda layer: len(layer.weight) == layer.num_channels and layer.num_channels % layer.num_groups == 0,
    nn.RNNBase: lambda layer: (
        (layer.weight_ih_l0.shape[1], layer.weight_hh_l0.shape[1]) == (layer.input_size, layer.hidden_size)
    ),
    nn.PReLU: lambda layer: len(layer.weight) == layer.num_parameters,
}


def test_wrong_attributes_are_found() -> None:
    model = networks.Convolutions()
    assert wrong_attributes(model) == []
    model.stem.out_channels, model.head.in_features, model.norm.num_features, model.groups.num_groups = 7, 3, 9, 5
    assert wrong_attributes(model) == ["stem", "norm", "groups", "head"]


Network = Callable[[], nn.Module]
NETWORKS: dict[str, tuple[Network, Any]] = {
    "convolutions": (networks.Convolutions, images),
    "transposed": (networks.Transposed, images),
    "lstm": (networks.Recurrent, tokens),
    "gru": (lambda: networks.Recurrent(nn.GRU, bidirectional=True), tokens),
    "rnn": (lambda: networks.Recurrent(nn.RNN), tokens),
    "tied": (networks.Tied, tokens),
}


def agrees_with_the_graph(model: nn.Module, result: Any, inputs: Any) -> None:
    """The pruned module computes what the pruned graph does, also for another batch than the example."""
    graph = prune(model, inputs(2), plan=result.plan, as_graph=True, verify=False).model
    for count in (2, 3):
        with torch.no_grad():
            found, expected = result.model.eval()(inputs(count)), graph.eval()(inputs(count))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_know_their_sizes(name: str) -> None:
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    model = make()
    before = sum(each.numel() for each in model.parameters())
    result = prune(model, inputs(2), ratio=0.4, allocate="uniform")
    assert type(result.model) is type(model)
    assert wrong_attributes(result.model) == []
    assert sum(each.numel() for each in result.model.parameters()) < 0.75 * before
    assert sum(each.numel() for each in model.parameters()) == before
    assert [type(each) for each in result.model.modules()] == [type(each) for each in model.modules()]
    agrees_with_the_graph(model, result, inputs)


def test_groups_of_convolutions() -> None:
    result = prune(networks.Convolutions(), images(), ratio=0.5, allocate="uniform")
    small = result.model
    assert small.depthwise.groups == small.stem.out_channels < 8
    assert small.grouped.groups in (1, 2, 4)


def test_tied_weights_stay_tied() -> None:
    model = networks.Tied()
    small = prune(model, tokens(), ratio=0.4, allocate="uniform").model
    assert small.head.weight is small.embedding.weight
    assert small.head.weight is not model.head.weight


@pytest.mark.parametrize("heads", ["count", "width"])
@pytest.mark.parametrize("kind", [Attention, FromConfig], ids=["attributes", "config"])
def test_attention(kind: Any, heads: str) -> None:
    torch.manual_seed(0)
    model = Block(kind)
    result = prune(model, vectors(), ratio=0.34, allocate="uniform", heads=heads)
    small = result.model
    assert isinstance(small, Block), result.report.notes
    attention = small.attention
    count, width = attention.num_heads, attention.head_dim
    if kind is FromConfig:
        count, width = attention.config.num_attention_heads, attention.config.attention_head_size
    assert (count, width) == ((3, 3) if heads == "count" else (4, 2))
    assert attention.query.out_features == attention.output.in_features == count * width
    assert (model.attention.num_heads, model.attention.head_dim) == (4, 3)
    assert vars(model.attention.config) == vars(networks.Settings())
    assert wrong_attributes(small) == []
    agrees_with_the_graph(model, result, vectors)


def test_sizes_that_were_worked_out_follow() -> None:
    small = prune(Block(), vectors(), ratio=0.34, allocate="uniform", heads="count").model
    assert small.attention.all_head_size == 9


def test_numbers_in_the_code_give_a_graph_and_are_named() -> None:
    model = Block(HardCoded)
    result = prune(model, vectors(), ratio=0.34, allocate="uniform")
    assert isinstance(result.model, torch.fx.GraphModule)
    pruned = pruned_of(result.model)
    assert pruned is not None and pruned.kind == "graph"
    (note,) = result.report.notes
    assert "GraphModule" in note and pruned.reason in note
    assert "it holds the number 4 in 'shape' of aten.reshape" in note and "networks.py:" in note
    assert dict(result.model.named_parameters()).keys() == dict(model.named_parameters()).keys()
    with torch.no_grad():
        assert result.model(vectors(3)).shape == (3, 5, 5)


def test_numbers_in_the_code_are_left_alone_when_the_class_is_asked_for() -> None:
    result = prune(Block(HardCoded), vectors(), ratio=0.34, allocate="uniform", as_graph=False)
    assert isinstance(result.model, Block)
    assert result.model.attention.query.out_features == 12
    assert result.model.first.out_features < 16
    assert "left alone" in result.report.notes[0]
    assert wrong_attributes(result.model) == []


def test_the_graph_is_given_when_asked_for() -> None:
    model = networks.Convolutions()
    result = prune(model, images(), ratio=0.4, as_graph=True)
    assert isinstance(result.model, torch.fx.GraphModule)
    assert dict(result.model.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert result.model.training == model.training


def test_the_scale_that_attention_works_out_itself_is_named() -> None:
    """Without `scale`, attention divides by the square root of the width of a head: the class computes otherwise."""

    class Unscaled(Attention):
        def forward(self, hidden: Any) -> Any:
            parts = [self.split(layer(hidden)) for layer in (self.query, self.key, self.value)]
            return self.output(self.joined(nn.functional.scaled_dot_product_attention(*parts)))

    result = prune(Block(Unscaled), vectors(), ratio=0.34, allocate="uniform", heads="width")
    assert isinstance(result.model, torch.fx.GraphModule)
    assert "scale" in result.report.notes[0]
    result = prune(Block(Unscaled), vectors(), ratio=0.34, allocate="uniform", heads="width", as_graph=False)
    assert isinstance(result.model, Block)
    assert result.model.first.out_features < 16


def test_transformers_of_torch() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    inputs = torch.randn(2, 5, 16)
    result = prune(model, inputs, ratio=0.4, allocate="uniform", as_graph=False)
    assert isinstance(result.model, nn.TransformerEncoder)
    assert result.model.layers[0].linear1.out_features < 24
    assert result.model.layers[0].self_attn.num_heads == 4


def test_layers_in_containers_and_shared_layers() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(7, 8)
            self.layers = nn.ModuleList([nn.Linear(8, 8)] * 3)
            self.more = nn.ModuleDict({"a": nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5))})

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.more["a"](x)

    model = Shared()
    result = prune(model, vectors(), ratio=0.4, allocate="uniform")
    assert isinstance(result.model, Shared)
    assert result.model.layers[0] is result.model.layers[2]
    assert wrong_attributes(result.model) == []
    agrees_with_the_graph(model, result, vectors)


def test_parametrized_layers() -> None:
    model = networks.Convolutions()
    nn.utils.parametrizations.weight_norm(model.stem)
    nn.utils.parametrizations.weight_norm(model.head)
    result = prune(model, images(), ratio=0.4, allocate="uniform")
    assert isinstance(result.model, networks.Convolutions), result.report.notes
    assert nn.utils.parametrize.is_parametrized(result.model.stem)
    assert wrong_attributes(result.model) == []
    agrees_with_the_graph(model, result, images)


def test_the_old_weight_norm() -> None:
    model = networks.Convolutions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in many models
        nn.utils.weight_norm(model.stem)
    result = prune(model, images(), ratio=0.4, allocate="uniform")
    assert isinstance(result.model, networks.Convolutions), result.report.notes
    assert len(result.model.stem.weight_g) == result.model.stem.out_channels < 8
    agrees_with_the_graph(model, result, images)


class _OfConfig(nn.Module):
    """Attention whose number of heads stands in a configuration, and is read from the shape of what it makes."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.width = config, 4
        self.reads, self.writes = nn.Linear(16, 12), nn.Linear(12, 16)

    def forward(self, x: Any) -> Any:
        heads = self.reads(x).view(*x.shape[:-1], -1, self.width)
        mixed = torch.softmax(heads.reshape(-1, heads.shape[-2], self.width) @ torch.eye(4), -1)
        return x + self.writes(mixed.reshape(*x.shape[:-1], -1))


class _SharedConfig(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = types.SimpleNamespace(num_heads=3)
        self.config, self.first, self.second = config, _OfConfig(config), _OfConfig(config)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x))


@pytest.mark.parametrize(("ignored", "heads"), [((), 2), (("second.reads.weight:0/0",), 3)])
def test_a_shared_configuration_changes_only_where_it_stays_true(ignored: tuple[str, ...], heads: int) -> None:
    """It says two heads where both layers have two; where one layer has two and the other three, it is left alone."""
    torch.manual_seed(0)
    model = _SharedConfig()
    result = prune(model, torch.randn(2, 5, 16), ratio=0.4, allocate="uniform", ignore=ignored)
    small = result.model
    assert isinstance(small, _SharedConfig), result.report.notes
    assert small.config is small.first.config is small.second.config
    assert (small.first.reads.out_features, small.config.num_heads) == (8, heads)
    assert model.config.num_heads == 3
    assert any("config.num_heads is 3 as before" in note for note in result.report.notes) == (heads == 3)


class _Cached(nn.Module):
    """Returns an object that holds tensors, unless it is told not to."""

    class Cache:
        def __init__(self, x: Any) -> None:
            self.keys = x

    def __init__(self) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(use_cache=True)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Any, use_cache: bool | None = None) -> Any:
        y = self.down(torch.relu(self.up(x)))
        return (y, self.Cache(x)) if (self.config.use_cache if use_cache is None else use_cache) else (y,)


@pytest.mark.parametrize("given", [{}, {"use_cache": True}])
def test_a_cache_that_cannot_be_captured_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(GraphPruneError, match="GP112") as caught:
        prune(_Cached(), {"x": torch.randn(2, 5, 16), **given}, ratio=0.5)
    assert "use_cache=False" in str(caught.value.remedy)
    prune(_Cached(), {"x": torch.randn(2, 5, 16), "use_cache": False}, ratio=0.5)


def test_what_fails_without_a_cache_is_not_said_to_be_one() -> None:
    class Fails(_Cached):
        def forward(self, x: Any, use_cache: bool | None = None) -> Any:
            raise TypeError("something else")

    with pytest.raises(GraphPruneError, match="GP112") as caught:
        prune(Fails(), {"x": torch.randn(2, 5, 16), "use_cache": False}, ratio=0.5)
    assert "use_cache" not in str(caught.value.remedy)
