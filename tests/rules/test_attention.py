"""Attention in all its operators: heads, shared heads, widths, packings, caches and rotation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphprune.dims import fresh, leaves
from tests.rules.laws import MICROSOFT, Checked, Operation, check, compare

B, Q, T, D, E = 2, 5, 5, 4, 6
_random = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return _random.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize(("heads", "keys"), [(4, 4), (6, 2), (4, 1)])
def test_four_dimensional(heads: int, keys: int, scale: float | None) -> None:
    given: dict[str, Any] = {} if scale is None else {"scale": scale}
    mask = draw(B, heads, Q, T)
    operation = Operation("Attention", [draw(B, heads, Q, D), draw(B, keys, T, D), draw(B, keys, T, E), mask], **given)
    free = {"x0:0", "x0:1", "x0:3", "x2:3"}
    checked = check(operation, free)
    # Groups of query heads and the queries in a group are two dimensions that start at the same place.
    assert len(checked.free()) == len(free) + (keys not in {heads, 1})


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize(("heads", "keys"), [(4, 4), (6, 2)])
def test_heads_counted_by_attributes(heads: int, keys: int, scale: float | None) -> None:
    given: dict[str, Any] = {} if scale is None else {"scale": scale}
    operands = [draw(B, Q, heads * D), draw(B, T, keys * D), draw(B, T, keys * E)]
    operation = Operation("Attention", operands, q_num_heads=heads, kv_num_heads=keys, **given)
    check(operation, {"x0:0", "x0:2", "x2:2"})


def test_caches_follow_heads_and_widths() -> None:
    operands = [draw(B, 4, Q, D), draw(B, 2, T, D), draw(B, 2, T, E), None, draw(B, 2, 3, D), draw(B, 2, 3, E)]
    check(Operation("Attention", operands, 4, scale=0.2), {"x0:0", "x0:1", "x0:3", "x2:3"})


def test_without_a_scale_that_of_the_dense_width_is_written_out() -> None:
    operation = Operation("Attention", [draw(B, 2, Q, D), draw(B, 2, T, D), draw(B, 2, T, E)])
    checked = check(operation, {"x0:0", "x0:1", "x0:3", "x2:3"})
    (default,) = checked.analysis.trace.defaults
    assert (default.name, default.value) == ("scale", D**-0.5)
    assert list(leaves(default.axis)) == list(leaves(checked.inputs["x0"][3]))


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize(("domain", "rotated"), [("", 0), ("", 4), (MICROSOFT, 0), (MICROSOFT, 4)])
def test_rotary_pairs_turn_together(domain: str, rotated: int, interleaved: int) -> None:
    heads, width = 3, 8
    half = (rotated or width) // 2
    ids = np.tile(np.arange(Q, dtype=np.int64), (B, 1))
    caches = [draw(10, half), draw(10, half)]
    order = [ids, *caches] if domain else [*caches, ids]
    operands = [draw(B, Q, heads * width), *order]
    operation = Operation(
        "RotaryEmbedding",
        operands,
        domain=domain,
        num_heads=heads,
        rotary_embedding_dim=rotated,
        interleaved=interleaved,
    )
    checked = check(operation, {"x0:0", "x0:1", "x0:2"})
    assert sorted(leaf.size for leaf in checked.free()) == sorted(
        [B, Q, heads, half] + ([width - rotated] if rotated else [])
    )


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_multi_head_attention_with_one_bias_for_all(scale: float) -> None:
    heads = 4
    operands = [draw(B, Q, heads * D), draw(B, T, heads * D), draw(B, T, heads * E), draw(heads * (2 * D + E))]
    operation = Operation("MultiHeadAttention", operands, domain=MICROSOFT, num_heads=heads, scale=scale)
    check(operation, {"x0:0", "x0:2", "x2:2"})


def test_group_query_attention_packed() -> None:
    heads, keys, width = 6, 2, 8
    sizes = [np.full(1, Q - 1, np.int32), np.array(Q, np.int32)]
    past = [np.zeros((1, keys, 0, width), np.float32)] * 2
    for scale in (0.0, 0.3):
        operands = [draw(1, Q, (heads + 2 * keys) * width), None, None, *past, *sizes]
        given = {"num_heads": heads, "kv_num_heads": keys, "scale": scale}
        checked = check(Operation("GroupQueryAttention", operands, 3, domain=MICROSOFT, **given), {"x0:2"})
        assert sorted(leaf.size for leaf in checked.free()) == [2, 3]


@pytest.mark.parametrize("scale", [0.0, 0.3])
@pytest.mark.parametrize("sizes", [[], [16, 16, 24]])
def test_attention_with_its_projection(sizes: list[int], scale: float) -> None:
    heads, inputs, total = 4, 10, sum(sizes) or 48
    given: dict[str, Any] = {"qkv_hidden_sizes": sizes} if sizes else {}
    operands = [draw(B, Q, inputs), draw(inputs, total) * 0.3, draw(total)]
    operation = Operation("Attention", operands, domain=MICROSOFT, num_heads=heads, scale=scale, **given)
    checked = check(operation, {"x0:0", "x0:2", "x1:1"})
    widths = [4, 6] if sizes else [4]
    assert sorted(leaf.size for leaf in checked.free()) == sorted([B, inputs, heads, *widths])


def test_the_law_itself_can_fail() -> None:
    operation = Operation("Attention", [draw(B, 2, Q, D), draw(B, 2, T, D), draw(B, 2, T, E)])
    checked = Checked(operation)
    heads = next(leaf for leaf, place in checked.free().items() if place == "x0:1")
    keep = {heads: np.array([1, 0])}
    dense = operation.run(operation.operands, operation.attributes)
    checked.results[0] = [*checked.results[0][:1], fresh(2), *checked.results[0][2:]]
    with pytest.raises(AssertionError, match="permuting"):
        compare(checked, dense, keep, operation.operands, "permuting heads")


@pytest.mark.parametrize("rotary", [0, 1])
def test_group_query_attention_with_three_tensors(rotary: int) -> None:
    heads, keys, width, past = 4, 2, 16, 3
    total = past + 1
    sizes = [np.full(1, total - 1, np.int32), np.array(total, np.int32)]
    caches = [draw(1, keys, past, width), draw(1, keys, past, width)]
    turns = [draw(9, width // 2), draw(9, width // 2)] if rotary else []
    operands = [draw(1, 1, heads * width), draw(1, 1, keys * width), draw(1, 1, keys * width), *caches, *sizes, *turns]
    given = {"num_heads": heads, "kv_num_heads": keys, "do_rotary": rotary}
    checked = check(Operation("GroupQueryAttention", operands, 3, domain=MICROSOFT, **given), {"x0:2"})
    assert sorted(leaf.size for leaf in checked.free()) == [2, 2]
