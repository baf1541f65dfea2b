"""Files from anywhere: operands of ranks and sizes that no specification allows must pin, never crash."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.dialects.onnx.cells import ATTENTION_AND_RNN
from graphprune.dialects.onnx.contrib import CONTRIB
from tests.rules.laws import Operation

NUMBERS = ["num_heads", "kv_num_heads", "q_num_heads", "hidden_size", "K", "N", "axis", "block_size", "groups", "group"]


@pytest.mark.parametrize("name", sorted({**ATTENTION_AND_RNN, **CONTRIB}))
def test_odd_ranks_and_sizes_never_crash(name: str) -> None:
    domain, _, op = name.rpartition(":")
    random = np.random.default_rng(sum(map(ord, name)))
    for _ in range(150):
        operands = [
            None
            if random.random() < 0.2
            else np.zeros(random.choice([1, 2, 3, 4, 6], random.integers(0, 6)), np.float32)
            for _ in range(random.integers(1, 12))
        ]
        given = {key: int(random.integers(-2, 5)) for key in NUMBERS if random.random() < 0.5}
        if random.random() < 0.3:
            given["qkv_hidden_sizes"] = [int(k) for k in random.integers(-1, 9, random.integers(1, 5))]  # type: ignore[assignment]
        Operation(op, operands, int(random.integers(1, 5)), domain=domain, **given).analyze()
