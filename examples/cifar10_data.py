"""CIFAR-10 from a folder, as tensors: whichever of its formats the folder holds. Nothing in a file is executed."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MISSING = """There is no CIFAR-10 in {folder}.
Download "CIFAR-10 binary version" or "python version" (170 MB) from https://www.cs.toronto.edu/~kriz/cifar.html,
unpack it, and give the folder that holds test_batch.bin or test_batch:

    --data cifar-10-batches-bin"""

# Of each channel of ImageNet: what the trained networks of pytorch_resnet_cifar10 expect.
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

Arrays = tuple[np.ndarray, np.ndarray]
"""Images, uint8 [n, 3, 32, 32], and labels, [n]."""


def load(folder: Path, split: str, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Normalized images, float32 [n, 3, 32, 32], and labels, int64 [n], of "train" or "test"; at most `count`.

    Raises SystemExit, with a message that says where to get the data, where the folder has none.
    """
    for first, read in _FORMATS.items():
        if (folder / first).is_file():
            images, labels = read(folder, split)
            break
    else:
        raise SystemExit(MISSING.format(folder=folder))
    pixels = torch.from_numpy(images[:count].astype(np.float32)) / 255
    return (pixels - MEAN[:, None, None]) / DEVIATION[:, None, None], torch.from_numpy(labels[:count].astype(np.int64))


def _batches(split: str, suffix: str = "") -> list[str]:
    return ["test_batch" + suffix] if split == "test" else [f"data_batch_{k}{suffix}" for k in range(1, 6)]


def _binary(folder: Path, split: str) -> Arrays:
    """Rows of a label and 3 x 32 x 32 bytes."""
    rows = [np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in _batches(split, ".bin")]
    table = np.concatenate(rows)
    return table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0]


class _ArraysOnly(pickle.Unpickler):
    """Reads the pickles of the python version, which hold numpy arrays, and refuses everything else."""

    _KNOWN = frozenset({"_reconstruct", "ndarray", "dtype", "encode"})

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] not in ("numpy", "_codecs") or name not in self._KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a batch of CIFAR-10")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _python(folder: Path, split: str) -> Arrays:
    batches = [
        _ArraysOnly(io.BytesIO((folder / name).read_bytes()), encoding="bytes").load() for name in _batches(split)
    ]
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([np.asarray(batch[b"labels"]) for batch in batches])


def _mosaics(folder: Path, split: str) -> Arrays:
    """Lossless WebP files of 25 x 40 images each, and the labels beside them."""
    try:
        from PIL import Image
    except ImportError:
        raise SystemExit("CIFAR-10 as WebP mosaics is read with Pillow: pip install pillow") from None
    found = []
    for path in sorted(folder.glob(f"{split}_*.webp")):
        mosaic = np.asarray(Image.open(path).convert("RGB")).reshape(25, 32, 40, 32, 3)
        found.append(mosaic.transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32))
    return np.concatenate(found), np.load(folder / "labels.npz", allow_pickle=False)[split]


_FORMATS: dict[str, Callable[[Path, str], Arrays]] = {
    "test_batch.bin": _binary,
    "test_batch": _python,
    "labels.npz": _mosaics,
}
"""How to read a folder that holds a file of this name."""
