"""A text file as token numbers: those of a tokenizer, or its bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphprune.data.batches import Batches, Reading, draw
from graphprune.data.inputs import Input, misfit
from graphprune.errors import GraphPruneError
from graphprune.program import Array

SUFFIXES = frozenset({".txt", ".text", ".md"})
BYTES = "bytes"
_BESIDES = ("attention_mask", "token_type_ids", "position_ids")


def from_file(batches: Batches, path: Path, reading: Reading) -> None:
    """Cut a text into sequences of one length. Raises GraphPruneError: GP101, GP108, GP701, GP702."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GraphPruneError("GP101", f"it cannot be read as text: {error}", str(path)) from error
    tokens = _main(batches)
    fixed = tokens.shape[1] if tokens.shape and len(tokens.shape) == 2 else None
    length = fixed if isinstance(fixed, int) else reading.length
    numbers = np.asarray(_tokens(text, reading.tokenizer))
    rows = numbers[: len(numbers) // length * length].reshape(-1, length)
    if not len(rows):
        what = f"the text has {len(numbers)} tokens, fewer than one sequence of {length}"
        raise GraphPruneError("GP701", what, str(path), "give more text, or shorter sequences")
    rows = rows[draw(len(rows), batches.samples, reading.seed)]
    arrays = {each.name: _besides(each, rows) for each in batches.inputs if each is not tokens}
    batches.split({tokens.name: rows, **arrays}, None, np.arange(len(rows)), path.name)


def _main(batches: Batches) -> Input:
    found = [
        each for each in batches.inputs if each.dtype.kind in "iu" and each.name.removesuffix("_1") not in _BESIDES
    ]
    if len(found) != 1:
        raise misfit("a text gives one input of whole numbers", str(batches.inputs), "give arrays: a .npz file")
    return found[0]


def _tokens(text: str, tokenizer: Any) -> Any:
    if tokenizer is None:
        remedy = f"give the folder or name of a tokenizer of transformers, a function, or {BYTES!r}"
        raise GraphPruneError("GP107", "a text needs a tokenizer", "option tokenizer", remedy)
    if isinstance(tokenizer, str | Path):
        if str(tokenizer) == BYTES:
            return list(text.encode())
        tokenizer = _loaded(str(tokenizer))
    encode = getattr(tokenizer, "encode", tokenizer)
    found = encode(text)
    return getattr(found, "ids", found)  # what the tokenizers package returns


def _loaded(name: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise GraphPruneError("GP108", "a tokenizer needs transformers", name, "pip install transformers") from error
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise GraphPruneError("GP101", f"it is no tokenizer: {str(error).splitlines()[0]}", name) from error


def _besides(each: Input, rows: Array) -> Array:
    name = each.name.removesuffix("_1")
    if name not in _BESIDES:
        raise misfit(f"a text does not say what the input {each.name!r} is", str(each), "give arrays: a .npz file")
    if name == "position_ids":
        return np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    return np.full(rows.shape, name == "attention_mask").astype(each.dtype)
