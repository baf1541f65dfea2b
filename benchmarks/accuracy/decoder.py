"""The perplexity of a small decoder on WikiText-2 after cuts without training.

    python benchmarks/accuracy/decoder.py --data FOLDER --work FOLDER [--table structured] [--json PATH]
    python benchmarks/accuracy/decoder.py --data FOLDER --work FOLDER --table zeros [--plant 16] [--json PATH]

The network is that of llama.py, trained into the work folder where it is not there yet (some twenty minutes of one
core), with biases of zero added to the layers that write to the residual stream, as FLAP adds them: without, there is
nothing a bias compensation could write to. 64 windows of 256 byte pairs of the training text calibrate; perplexity is
that of all windows of the test text (--test-tokens for fewer), each token given those before it in its window.

`structured` cuts heads and hidden widths of the perceptrons, the scope of FLAP, to a share of the MACs; the residual
stream stays. `depth` leaves out one and two of the six layers, each a residual block of attention and one of a
perceptron (of *single blocks* one and two of these). `zeros` writes zeros into all linear layers inside blocks.
`--plant C` multiplies what the norms give by factors from 1 to C and divides the weights that read it by them: the
network computes the same, and criteria that follow activations have to find the same weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from llama import BATCH, LENGTH, RECIPE, STEPS, VOCABULARY, Decoder, network, perplexity, windows  # noqa: E402
from measure import machine, note  # noqa: E402
from rows import Bench, stream  # noqa: E402
from torch import nn  # noqa: E402
from wikitext import SPLITS, digest, tokens  # noqa: E402

import graphprune as gp  # noqa: E402

_CALIBRATE = 64
_FLAP = {"criterion": "flap", "normalize": "standard"}
STRUCTURED: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "random + least_squares": {"criterion": "random", "recover": "least_squares"},
    "l1": {"criterion": "l1"},
    "l2": {"criterion": "l2"},
    "wanda": {"criterion": "wanda"},
    "wanda uniform": {"criterion": "wanda", "allocate": "uniform"},
    "flap": _FLAP,
    "flap uniform": {**_FLAP, "allocate": "uniform"},
    "l2 + bias": {"criterion": "l2", "recover": "bias"},
    "wanda + bias": {"criterion": "wanda", "recover": "bias"},
    "flap + bias": {**_FLAP, "recover": "bias"},
    "flap by mean + bias": {"criterion": "flap", "recover": "bias"},
    "flap uniform + bias": {**_FLAP, "allocate": "uniform", "recover": "bias"},
    "taylor": {"criterion": "taylor"},
    "l2 + least_squares": {"criterion": "l2", "recover": "least_squares"},
    "wanda + least_squares": {"criterion": "wanda", "recover": "least_squares"},
    "flap + least_squares": {**_FLAP, "recover": "least_squares"},
    "taylor + least_squares": {"criterion": "taylor", "recover": "least_squares"},
    "obspa + obspa": {"criterion": "obspa", "recover": "obspa"},
    "obspa + least_squares": {"criterion": "obspa", "recover": "least_squares"},
    "obs by effect + least_squares": {"recipe": "reconstruct", "recover": "least_squares"},
}
DEPTH: dict[str, dict[str, Any]] = {
    "random": {"depth_by": "random", "depth_unit": 2},
    "block_influence": {"depth_by": "block_influence", "depth_unit": 2},
    "angular": {"depth_by": "angular", "depth_unit": 2},
    "single blocks by block_influence": {"depth_by": "block_influence"},
    "block_influence + least_squares": {"depth_by": "block_influence", "depth_unit": 2, "recover": "least_squares"},
}
_ROWS = "balanced/128"
"""Equally many of every 128 inputs of an output: Wanda compares the weights of one output."""
ZEROS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "l2 (magnitude)": {},
    "l2 by output": {"format": _ROWS},
    "wanda": {"criterion": "wanda"},
    "wanda by output": {"criterion": "wanda", "format": _ROWS},
    "obs": {"criterion": "obs"},
    "l2 + sparsegpt": {"recover": "sparsegpt"},
    "wanda + sparsegpt": {"criterion": "wanda", "recover": "sparsegpt"},
    "obs + sparsegpt": {"criterion": "obs", "recover": "sparsegpt"},
    "random + least_squares": {"criterion": "random", "recover": "least_squares"},
    "l2 + least_squares": {"recover": "least_squares"},
    "wanda + least_squares": {"criterion": "wanda", "recover": "least_squares"},
    "obs + sparsegpt + least_squares": {"criterion": "obs", "recover": "sparsegpt,least_squares"},
}
TABLES = {
    "structured": (["0.8", "0.6"], STRUCTURED),
    "depth": (["depth 1", "depth 2"], DEPTH),
    "zeros": (["unstructured 0.5", "2:4"], ZEROS),
}


def with_biases(model: Decoder) -> Decoder:
    """The same function, with biases of zero in the layers that write to the residual stream."""
    for block in model.blocks:
        for linear in (block.attention.o, block.down):
            linear.bias = nn.Parameter(torch.zeros(linear.out_features))
    return model


@torch.no_grad()
def planted(model: Decoder, most: float) -> Decoder:
    """The same function, with channels of the norms scaled by factors from 1 to ``most`` and their readers by the
    inverse."""
    generator = torch.Generator().manual_seed(0)
    for block in model.blocks:
        attention = block.attention
        for norm, readers in (
            (block.attention_norm, (attention.q, attention.k, attention.v)),
            (block.norm, (block.gate, block.up)),
        ):
            factors = most ** torch.rand(len(norm.weight), generator=generator)
            norm.weight *= factors
            for reader in readers:
                reader.weight /= factors
    return model


def bench(given: argparse.Namespace) -> Bench:
    text = tokens(given.data, given.work, VOCABULARY)
    model = with_biases(network(given.work, text, given.steps))
    if given.plant:
        model = planted(model, given.plant)
    held = windows(text["test"][: given.test_tokens])
    train = windows(text["train"])
    drawn = train[torch.from_numpy(np.random.default_rng(0).choice(len(train), _CALIBRATE, replace=False))]
    example = train[:2]
    data = gp.calibration([(part, part) for part in drawn.split(8)], model, example)
    facts = {
        "steps": given.steps, "batch": BATCH, "length": LENGTH, "recipe": RECIPE, "plant": given.plant,
        "sha256": {split: digest(text[split]) for split in SPLITS}, "test_tokens": held.numel(),
    }  # fmt: skip
    fixed = {"ignore": [stream(model, example)], "heads": "count"}
    return Bench(model, example, data, lambda each: {"perplexity": perplexity(each, held)}, fixed, facts, given.json)


def main() -> None:
    parser = argparse.ArgumentParser(description="The perplexity of a small decoder after cuts without training.")
    parser.add_argument("--data", type=Path, required=True, help="a folder with WikiText-2")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the encoding and the trained network")
    parser.add_argument("--table", choices=list(TABLES), default="structured")
    parser.add_argument("--cuts", help="shares of the MACs, or formats with sparsities, with commas between them")
    parser.add_argument("--rows", help="names of rows, with commas between them; all where not given")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training")
    parser.add_argument("--plant", type=float, default=0, help="the largest factor of planted scales")
    parser.add_argument("--test-tokens", type=int, help="of the test text; all where not given")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    cuts, rows = TABLES[given.table]
    cuts = given.cuts.split(",") if given.cuts else cuts
    wanted = {name: rows[name] for name in given.rows.split(",")} if given.rows else rows
    found = bench(given)
    found.facts["dense"] = found.judge(found.dense)
    print(f"perplexity of {found.facts['test_tokens']} byte pairs, dense: {found.facts['dense']['perplexity']:.2f}\n")
    found.run(f"accuracy_decoder_{given.table}", cuts, wanted)
    print(found.table(cuts, wanted, "perplexity"))


if __name__ == "__main__":
    main()
