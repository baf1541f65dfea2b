"""Runs inside the environment of Torch-Pruning (see peers.py): exports modules to ONNX and times its dependency graph.

    python peer_torch_pruning.py FOLDER ROUNDS

Prints one line of JSON: by module the processor seconds of every round for building the dependency graph and for
listing all groups, and whether removing half of every group gives a module that runs. Imports nothing of graphprune.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch_pruning
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, first: bool):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
        )
        shortcut = (nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
        self.shortcut = nn.Sequential(*shortcut) if first else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet_50() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            layers.append(Bottleneck(channels, width, 2 if stage and not block else 1, not block))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (f(x).view(batch, length, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        weights = torch.softmax(q @ k.transpose(-1, -2) / 8.0, -1)
        x = self.norm1(x + self.output((weights @ v).transpose(1, 2).reshape(batch, length, -1)))
        return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))


class Bert(nn.Module):
    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(30522, width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embedding(tokens))
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def timed(model: nn.Module, example: torch.Tensor) -> tuple[float, float, int]:
    """Processor seconds of building the graph, of listing its groups, and how many there are."""
    start = time.process_time()
    graph = torch_pruning.DependencyGraph().build_dependency(model, example, verbose=False)
    built = time.process_time()
    count = len(list(graph.get_all_groups()))
    return built - start, time.process_time() - built, count


def pruned(model: nn.Module, example: torch.Tensor) -> str:
    """ "runs" where a module with half of every group removed still computes something, else what went wrong."""
    heads = {m: layer.heads for layer in getattr(model, "layers", []) for m in (layer.query, layer.key, layer.value)}
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    try:
        importance = torch_pruning.importance.MagnitudeImportance(p=2)
        options = {"pruning_ratio": 0.5, "ignored_layers": [last], "num_heads": heads}
        torch_pruning.pruner.BasePruner(model, example, importance, **options).step()
        model(example)
    except Exception as error:  # noqa: BLE001 - a failure of the peer is a result
        return f"{type(error).__name__}: {error}"[:120]
    return "runs"


def main() -> None:
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {}
    examples = {"resnet-50": torch.zeros(1, 3, 64, 64), "bert-base": torch.zeros(1, 16, dtype=torch.int64)}
    for name, make in (("resnet-50", resnet_50), ("bert-base", Bert)):
        model, example = make().eval(), examples[name]
        path = folder / f"{name}.onnx"
        torch.onnx.export(model, (example,), str(path), dynamo=False, opset_version=17, input_names=["x"])
        rows = [timed(model, example) for _ in range(rounds + 1)][1:]
        found[name] = {
            "build": [row[0] for row in rows],
            "groups": [row[1] for row in rows],
            "count": rows[0][2],
            "pruned": pruned(model, example),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
