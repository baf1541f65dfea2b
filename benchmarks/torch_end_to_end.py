"""How long `gp.prune` takes on PyTorch modules beside `torch.export` alone: ResNet-50 on an image of 224 x 224, and
BERT-base on 128 tokens.

    PYTHONPATH=. python benchmarks/torch_end_to_end.py [--rounds N] [--json PATH]

Columns, medians in seconds of processor time on one thread: `forward` is one run of the dense module; `export` is
torch.export alone, with batch and tokens open, as graphprune calls it; `prune` is all of gp.prune without verification,
that export included; `checked` is gp.prune with it. Needs torchvision and transformers.
"""

from __future__ import annotations

import argparse
import functools
import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from measure import interleaved, machine, note, table, write_json

import graphprune as gp
from graphprune.dialects.aten import capture
from tests.zoo import vision_operators

GOAL = 1.5
PHASES = ("forward", "export", "prune", "checked")


def resnet() -> tuple[torch.nn.Module, Any]:
    from torchvision import models

    return models.resnet50(), torch.randn(1, 3, 224, 224)


def bert() -> tuple[torch.nn.Module, Any]:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig()), {"input_ids": torch.randint(0, 30000, (1, 128))}


def walk(model: torch.nn.Module, inputs: Any) -> dict[str, float]:
    """Seconds by phase."""
    found: dict[str, float] = {}
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
    steps: dict[str, Callable[[], Any]] = {
        "forward": lambda: model(*args, **kwargs),
        "export": lambda: capture._export(model, *capture._widened((args, kwargs)), dynamic=True),
        "prune": lambda: gp.prune(model, inputs, macs=0.5, verify=False),
        "checked": lambda: gp.prune(model, inputs, macs=0.5),
    }
    for name, step in steps.items():
        gc.collect()
        start = time.process_time()
        with torch.no_grad():
            step()
        found[name] = time.process_time() - start
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Time gp.prune on PyTorch modules.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    vision_operators.load()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    runs: dict[str, Callable[[], dict[str, float]]] = {}
    for name, make in (("ResNet-50", resnet), ("BERT-base", bert)):
        model, inputs = make()
        runs[name] = functools.partial(walk, model.eval(), inputs)
    times = interleaved(runs, given.rounds)
    rows = []
    for name, phases in times.items():
        export = phases["export"].median
        ratios = [f"{phases[phase].median / export:.2f}" for phase in ("prune", "checked")]
        rows.append((name, *(f"{phases[phase].median:.2f}" for phase in PHASES), *ratios))
    print(table(("model", *PHASES, "prune / export", "checked / export"), rows))
    worst = max(phases["prune"].median / phases["export"].median for phases in times.values())
    print(f"\nthe goal of {GOAL} times the export, without verification, is {'met' if worst < GOAL else 'NOT met'}")
    write_json(given.json, "torch_end_to_end", times)


if __name__ == "__main__":
    main()
