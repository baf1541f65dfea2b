"""Takes entries of tensors: what a cut does to every one, be it of a graph, a module or an optimizer. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from graphprune.program import Array

_OPAQUE = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64} | {
    dtype: torch.uint8
    for dtype in (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)
}
"""Types that torch can hold but not select from, and types of their size that it can."""


def gathered(tensor: Tensor, places: Mapping[int, Array]) -> Tensor:
    """The entries of a tensor at the kept positions of each cut axis (axis to positions, in their new order), without
    its history."""
    found, dtype = tensor.detach(), tensor.dtype
    if dtype in _OPAQUE:
        found = found.view(_OPAQUE[dtype])
    for axis, kept in places.items():
        chosen = torch.as_tensor(np.ascontiguousarray(kept), dtype=torch.int64, device=found.device)
        found = found.index_select(axis, chosen)
    return found if found.dtype == dtype else found.view(dtype)
