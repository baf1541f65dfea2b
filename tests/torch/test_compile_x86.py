"""torch.compile with the backend graphprune-x86: built networks compute what modules do, or say why there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphprune.torch
from graphprune.errors import GraphPruneError

pytest.importorskip("tvm")
pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip


def cause(error: pytest.ExceptionInfo[BaseException]) -> GraphPruneError:
    """Dynamo wraps what a backend raises."""
    found: BaseException | None = error.value
    while found is not None and not isinstance(found, GraphPruneError):
        found = found.__cause__ or found.__context__ or getattr(found, "inner_exception", None)
    assert isinstance(found, GraphPruneError)
    return found


def test_a_module_is_built_and_computes_the_same() -> None:
    net, images = convnet(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        compiled = torch.compile(net, backend="graphprune-x86")
        assert torch.allclose(compiled(images), net(images), atol=1e-5)
        again = torch.randn(2, 3, 16, 16)
        assert torch.allclose(compiled(again), net(again), atol=1e-5)
        assert not torch.allclose(compiled(images), net(again), atol=1e-5)


def test_another_instance_has_its_own_weights() -> None:
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        for net in (convnet(), convnet()):
            assert torch.allclose(torch.compile(net, backend="graphprune-x86")(images), net(images), atol=1e-5)


def test_what_is_pruned_is_built() -> None:
    net, images = convnet(), torch.randn(2, 3, 16, 16)
    options = {"macs": 0.5}
    with torch.no_grad():
        eager = torch.compile(net, backend="graphprune", options={**options, "then": "eager"})(images)
        torch._dynamo.reset()
        compiled = torch.compile(net, backend="graphprune", options={**options, "then": "graphprune-x86"})
        assert torch.allclose(compiled(images), eager, atol=1e-5)
        assert graphprune.torch.report(compiled) is not None


def test_gradients_are_refused() -> None:
    with pytest.raises(Exception) as error:
        torch.compile(convnet(), backend="graphprune-x86")(torch.randn(1, 3, 16, 16))
    assert cause(error).code == "GP601"


def test_open_sizes_are_refused_with_the_remedy() -> None:
    with torch.no_grad(), pytest.raises(Exception) as error:
        torch.compile(convnet(), backend="graphprune-x86", dynamic=True)(torch.randn(3, 3, 16, 16))
    assert cause(error).code == "GP107" and "dynamic=False" in str(cause(error))


def test_a_misspelt_option_gets_a_suggestion() -> None:
    with torch.no_grad(), pytest.raises(Exception) as error:
        torch.compile(convnet(), backend="graphprune-x86", options={"thread": 1})(torch.randn(1, 3, 16, 16))
    assert cause(error).code == "GP107" and "threads" in str(cause(error))
