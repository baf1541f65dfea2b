"""Networks as torch.onnx exports them: attention that is safe against masks of nothing, positions, patches, einsum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("tvm")
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from tests.targets.network.harness import check  # noqa: E402

WIDTH, HEADS, TOKENS = 32, 4, 11


class Attention(nn.Module):
    """Heads by einsum or by scaled_dot_product_attention, with a mask of what is padding."""

    def __init__(self, spelled: bool) -> None:
        super().__init__()
        self.qkv, self.out, self.spelled = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), spelled

    def forward(self, x: Any, mask: Any) -> Any:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        if self.spelled:
            scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[-1] ** 0.5
            weights = scores.masked_fill(~mask, torch.finfo(x.dtype).min).softmax(-1)
            mixed = torch.einsum("bhqk,bhkd->bqhd", weights, v).flatten(2)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return x + self.out(mixed)


class Text(nn.Module):
    """Tokens with positions that count what is not padding, as RoBERTa has them."""

    def __init__(self, spelled: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, WIDTH), nn.Embedding(TOKENS + 2, WIDTH)
        self.attention, self.norm = Attention(spelled), nn.LayerNorm(WIDTH)

    def forward(self, ids: Any) -> Any:
        there = ids.ne(1)
        places = there.int().cumsum(1) * there.int() + 1
        mask = there[:, None, None, :] & torch.ones(TOKENS, 1, dtype=torch.bool).tril(TOKENS)[None, None]
        return self.norm(self.attention(self.tokens(ids) + self.places(places.long()), mask))


class Images(nn.Module):
    """Patches, tokens and a map of them again."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.attention = nn.Conv2d(3, WIDTH, 4, 4), Attention(False)

    def forward(self, x: Any) -> Any:
        x = self.patches(x)
        tokens = x.flatten(2).transpose(1, 2)
        mask = torch.ones(1, 1, 1, tokens.shape[1], dtype=torch.bool)
        return F.gelu(self.attention(tokens, mask)).transpose(1, 2).unflatten(2, x.shape[2:])


def exported(module: nn.Module, example: Any, folder: Path) -> onnx.ModelProto:
    path = folder / "model.onnx"
    torch.onnx.export(module.eval(), (example,), path, dynamo=True, verbose=False, external_data=False)
    return onnx.load(path)


@pytest.mark.parametrize("spelled", [False, True])
def test_text(spelled: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = torch.randint(2, 50, (2, TOKENS))
    ids[1, 7:] = 1
    model = exported(Text(spelled), ids, tmp_path)
    all_padding = np.where(np.arange(2)[:, None] == 1, 1, ids.numpy())
    check(model, cases=[{model.graph.input[0].name: array} for array in (ids.numpy(), all_padding)])


def test_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    check(exported(Images(), torch.randn(2, 3, 16, 24), tmp_path))
