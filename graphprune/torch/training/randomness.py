"""The state of all global sources of random numbers: seeded for a training, saved with it, put back after it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """The states of `random`, `numpy.random` and `torch`, of all its devices.

    tensors: those of torch, by device
    numbers: those of the others, as JSON can hold them
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]

    @classmethod
    def now(cls) -> RandomState:
        """As it is."""
        tensors = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors |= {f"cuda:{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
        version, inner, gauss = random.getstate()
        kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        numpy = [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)]
        return cls(tensors, {"random": [version, list(inner), gauss], "numpy": numpy})

    def restore(self) -> None:
        """Make it so again; devices that are not there are passed over."""
        torch.set_rng_state(self.tensors["cpu"])
        for name, state in self.tensors.items():
            if name.startswith("cuda:") and torch.cuda.is_available():
                torch.cuda.set_rng_state(state, int(name.removeprefix("cuda:")))
        version, inner, gauss = self.numbers["random"]
        random.setstate((version, tuple(inner), gauss))
        kind, keys, *rest = self.numbers["numpy"]
        np.random.set_state((kind, np.asarray(keys, np.uint32), *rest))


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed everything inside the block (not with None); outside of it nothing changes."""
    before = RandomState.now()
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
        yield
    finally:
        before.restore()
