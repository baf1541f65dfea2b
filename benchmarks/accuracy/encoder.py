"""A small encoder cut without training: masks of Kwon et al. beside magnitude and chance.

    python benchmarks/accuracy/encoder.py --data FOLDER --work FOLDER [--json PATH]

The network is that of bert.py, trained into the work folder where it is not there yet (some ten minutes of one core).
512 windows of 64 byte pairs of the training text calibrate, with their labels where a criterion needs a loss; all of
the test text judges: the share of byte pairs of which is told rightly whether they were replaced. Heads and widths
inside the perceptrons are cut, the masks of the paper; the residual stream stays.

The paper has three steps: masks by the Fisher information of each, as much of it kept as the budget allows (`kwon`,
not normalised, allocated by `greedy`), masks rearranged inside layers (not here), and factors for what stays
(`mask_tuning`).
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
from bert import BATCH, LENGTH, RECIPE, STEPS, VOCABULARY, judged, network, samples  # noqa: E402
from measure import machine, note  # noqa: E402
from rows import Bench, stream  # noqa: E402
from wikitext import SPLITS, digest, tokens  # noqa: E402

import graphprune as gp  # noqa: E402

_CALIBRATE = 512
_KWON = {"criterion": "kwon", "normalize": "none", "allocate": "greedy"}
ROWS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "l1": {"criterion": "l1"},
    "l2": {"criterion": "l2"},
    "taylor": {"criterion": "taylor"},
    "kwon": _KWON,
    "kwon, globally": {"criterion": "kwon"},
    "random + mask_tuning": {"criterion": "random", "recover": "mask_tuning"},
    "l1 + mask_tuning": {"criterion": "l1", "recover": "mask_tuning"},
    "l2 + mask_tuning": {"criterion": "l2", "recover": "mask_tuning"},
    "kwon + mask_tuning": {**_KWON, "recover": "mask_tuning"},
    "random + least_squares": {"criterion": "random", "recover": "least_squares"},
    "l2 + least_squares": {"criterion": "l2", "recover": "least_squares"},
    "kwon + least_squares": {**_KWON, "recover": "least_squares"},
    "obs by effect + least_squares": {"recipe": "reconstruct", "recover": "least_squares"},
    "recipe reconstruct": {"recipe": "reconstruct"},
}


def bench(given: argparse.Namespace) -> Bench:
    text = tokens(given.data, given.work, VOCABULARY)
    model = network(given.work, text, given.steps)
    shown, labels = samples(text["train"], 1 << 20)
    drawn = torch.from_numpy(np.random.default_rng(0).choice(len(shown), _CALIBRATE, replace=False))
    held, example = samples(text["test"], 0), shown[:2]
    pairs = list(zip(shown[drawn].split(32), labels[drawn].split(32), strict=True))
    data = gp.calibration(pairs, model, example, loss="token_cross_entropy")
    facts = {
        "steps": given.steps, "batch": BATCH, "length": LENGTH, "recipe": RECIPE,
        "sha256": {split: digest(text[split]) for split in SPLITS}, "test_tokens": held[0].numel(),
        "guess": 1 - float(held[1].float().mean()),
    }  # fmt: skip
    fixed = {"ignore": [stream(model, example)], "heads": "count"}
    return Bench(model, example, data, lambda each: judged(each, held), fixed, facts, given.json)


def main() -> None:
    parser = argparse.ArgumentParser(description="A small encoder cut without training.")
    parser.add_argument("--data", type=Path, required=True, help="a folder with WikiText-2")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the encoding and the trained network")
    parser.add_argument("--cuts", default="0.8,0.6", help="shares of the MACs, with commas between them")
    parser.add_argument("--rows", help="names of rows, with commas between them; all where not given")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    cuts = given.cuts.split(",")
    wanted = {name: ROWS[name] for name in given.rows.split(",")} if given.rows else ROWS
    found = bench(given)
    found.facts["dense"] = found.judge(found.dense)
    dense, guess = found.facts["dense"]["accuracy"], found.facts["guess"]
    print(f"{found.facts['test_tokens']} byte pairs, dense: {dense:.2%}, a guess: {guess:.2%}\n")
    found.run("accuracy_encoder", cuts, wanted)
    print(found.table(cuts, wanted, "accuracy", "{:.2%}"))


if __name__ == "__main__":
    main()
