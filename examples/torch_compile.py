"""Prune a network inside `torch.compile`, and measure honestly what it brings.

    python examples/torch_compile.py
    python examples/torch_compile.py --macs 0.3 --batch 8 --rounds 50

The dense and the pruned network are compiled by the same backend (inductor, which needs a C++ compiler; `--then eager`
does without) and run in turns, so that whatever else the machine does hits both alike. The weights are random: this is
about time, not about accuracy. For that see cifar10_finetune.py.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

import graphprune.torch


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(x + self.norms[1](self.second(hidden)))


def network(width: int = 64, blocks: int = 4, classes: int = 10) -> nn.Module:
    """A small residual network for images of any size."""
    stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(stem, *(Block(width) for _ in range(blocks)), *tail)


def seconds(run: nn.Module, images: Tensor) -> float:
    """One run; on a GPU until its work is done."""
    if images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="prune inside torch.compile, and measure it")
    parser.add_argument("--macs", type=float, default=0.5, help="share of the multiplications that remains")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--align", type=int, default=8, help="widths are multiples of this, which kernels like")
    parser.add_argument("--then", default="inductor", help="the backend that compiles what is left")
    given = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = network().eval().to(device)
    images = torch.randn(given.batch, 3, 64, 64, device=device)

    dense = torch.compile(model, backend=given.then)
    options = {"macs": given.macs, "align": given.align, "then": given.then}
    pruned = torch.compile(model, backend="graphprune", options=options)

    with torch.inference_mode():
        for run in (dense, pruned):
            start = time.perf_counter()
            run(images)
            print(f"first run, with compilation: {time.perf_counter() - start:.1f} s")
            run(images)
        print()
        print(graphprune.torch.report(pruned))
        times = [(seconds(dense, images), seconds(pruned, images)) for _ in range(given.rounds)]

    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    low, middle, high = statistics.quantiles([a / b for a, b in times], n=4)
    print()
    print(f"{given.rounds} runs in turns, batch {given.batch}, {device}, medians:")
    print(f"  dense  {before * 1e3:8.2f} ms")
    print(f"  pruned {after * 1e3:8.2f} ms")
    print(f"  {middle:.2f} times as fast; half of the pairs lie between {low:.2f} and {high:.2f}")


if __name__ == "__main__":
    main()
