"""What is known of quantised numbers: scale * (stored - zero), as DequantizeLinear says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphprune.targets.network.graph import Node, Value


@dataclass(frozen=True)
class Quantised:
    """Stored integers; `scale` and `zero` are one number each, or one for each place of `axis`."""

    stored: Value
    scale: np.ndarray
    zero: np.ndarray
    axis: int

    @property
    def whole(self) -> bool:
        """Whether all numbers have one scale."""
        return self.scale.size == 1

    def integers(self) -> np.ndarray:
        """Of a constant: stored - zero, as int32."""
        assert self.stored.constant is not None
        return np.asarray(self.stored.constant.astype("int32") - self.along(self.zero))

    def numbers(self) -> np.ndarray:
        """Of a constant: what it stands for, as float32."""
        return np.asarray(self.integers().astype("float32") * self.along(self.scale), "float32")

    def along(self, parameter: np.ndarray) -> np.ndarray:
        """Scale or zero, for all places."""
        if self.whole:
            return parameter.reshape(())
        shape = [1] * len(self.stored.shape)
        shape[self.axis] = -1
        return parameter.reshape(shape)


def quantised(value: Value | None) -> Quantised | None:
    """What a value was before DequantizeLinear; None where it was none with constant scales."""
    node = None if value is None else value.maker
    return None if node is None or node.op != "DequantizeLinear" else scaled(node)


def scaled(node: Node) -> Quantised | None:
    """What a QuantizeLinear or DequantizeLinear says of the integers on its side, the first input or the output."""
    x, scale, *more = node.inputs
    zero = more[0] if more else None
    if x is None or scale is None or scale.constant is None or (zero is not None and zero.constant is None):
        return None
    stored = x if node.op == "DequantizeLinear" else node.outputs[0]
    if stored.dtype not in {"uint8", "int8", "int32"} or scale.dtype != "float32" or node.attributes.get("block_size"):
        return None
    factors = scale.constant.reshape(-1)
    offsets = np.zeros(1, "int32") if zero is None or zero.constant is None else zero.constant.reshape(-1)
    axis = node.attributes.get("axis", 1) % max(1, len(stored.shape))
    if factors.size > 1 and (len(stored.shape) == 0 or factors.size != stored.shape[axis]):
        return None
    if offsets.size not in {1, factors.size}:
        return None
    return Quantised(stored, factors, np.broadcast_to(offsets.astype("int32"), factors.shape), axis)
