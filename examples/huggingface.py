"""Prune a causal language model of Hugging Face transformers, save it, load it again, and generate with it.

    pip install -e ".[torch]" transformers
    python examples/huggingface.py --macs 0.6

The model is small and its weights are random, so nothing is downloaded and what it says means nothing. For a trained
one, make it with `AutoModelForCausalLM.from_pretrained(...)` instead; `gp.load` then only needs its configuration.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

import graphprune as gp

try:
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
except ImportError as error:
    raise SystemExit(f"This example needs the transformers library: pip install transformers ({error})") from None

SIZES = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def dense(kind: str) -> PreTrainedModel:
    """A small model of an architecture, such as llama, from its configuration alone."""
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES)).eval()


def generated(model: PreTrainedModel, prompt: torch.Tensor, **options: Any) -> list[list[int]]:
    """The most likely continuation of every prompt, ten tokens."""
    how = GenerationConfig(max_new_tokens=10, min_new_tokens=10, do_sample=False, pad_token_id=0, **options)
    return model.generate(prompt, generation_config=how)[:, prompt.shape[1] :].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description="Prune a language model, save it, load it and generate with it.")
    parser.add_argument("--kind", default="llama", help="an architecture of transformers: llama, qwen3, gpt2, ...")
    parser.add_argument("--macs", type=float, default=0.6, help="the share of the multiply-accumulates that remains")
    given = parser.parse_args()
    torch.manual_seed(0)
    model, prompt = dense(given.kind), torch.randint(3, SIZES["vocab_size"], (2, 16))

    # use_cache=False: what is pruned is the pass over a whole prompt. as_graph=False: the result has to be of the class
    # that went in, since `generate` is a method of that; whatever its code cannot follow is left alone, and named.
    example = {"input_ids": prompt, "use_cache": False}
    result = gp.prune(model, example, macs=given.macs, as_graph=False)
    small = result.model
    print(result.report)

    tokens = generated(small, prompt)
    assert tokens == generated(small, prompt, use_cache=False), "its cache of keys and values is wrong"
    print(f"\na {type(small).__name__} that generates, with its cache and without: {tokens[0]}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small"
        files = gp.save(small, path)
        again = gp.load(lambda: dense(given.kind), path)
    assert generated(again, prompt) == tokens, "the model that was loaded says something else"
    print(f"saved as {', '.join(each.name for each in files)}; loaded again, it generates the same")


if __name__ == "__main__":
    main()
