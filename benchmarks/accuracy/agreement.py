"""How near a network is to its teacher where labels say nothing: on inputs that it was not trained with.

A network knows the labels of the images it was trained with by heart, and so does one that was made of it. Its answers
to moved, cut, and mixed images, and to pictures of another kind, are not known to it; there student and teacher are
compared: by the divergence ``KL(teacher || student)`` and by how often both give the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from cifar10_data import DEVIATION, MEAN
from torch import Tensor, nn
from torch.nn import functional as F

_SIDE = 11
"""Of the squares that are cut out."""


def moved(images: Tensor, generator: torch.Generator | None = None, most: int = 4) -> Tensor:
    """Each by up to so many pixels down or right, and half of them mirrored, every image by itself."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (most,) * 4)
    down, right = (torch.randint(0, 2 * most + 1, (count, 1), generator=generator) for _ in range(2))
    rows, columns = torch.arange(height) + down, torch.arange(width) + right
    every = torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None]
    found = padded[(*every, rows[:, None, :, None], columns[:, None, None, :])]
    return torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.5, found, found.flip(3))


def _cut(images: Tensor, generator: torch.Generator) -> Tensor:
    images = images.clone()
    most = images.shape[-1] - _SIDE + 1
    for image, (down, right) in zip(images, torch.randint(0, most, (len(images), 2), generator=generator), strict=True):
        image[:, down : down + _SIDE, right : right + _SIDE] = 0
    return images


def inputs(images: Tensor, pictures: Iterable[Path] = ()) -> dict[str, Tensor]:
    """Kinds of inputs by name, of images [n, 3, 32, 32] and of files of pictures."""
    generator = torch.Generator().manual_seed(77)
    found = {"moved": moved(images, generator), "cut out": _cut(moved(images, generator), generator)}
    first = moved(images, generator)
    share = torch.rand(len(images), 1, 1, 1, generator=generator) / 2 + 0.5
    found["mixed"] = share * first + (1 - share) * first.flip(0)
    if read := [_picture(each) for each in pictures]:
        found["pictures"] = torch.cat([torch.stack(read), torch.stack(read).flip(3)])
    return found


def _picture(path: Path) -> Tensor:
    """The middle square of a picture, as small as an image of CIFAR-10."""
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    small = picture.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1) / 255
    return (pixels - MEAN[:, None, None]) / DEVIATION[:, None, None]


@torch.no_grad()
def answers(model: nn.Module, images: Tensor) -> Tensor:
    """Logits [n, classes]."""
    model.eval()
    return torch.cat([model(part) for part in images.split(250)])


def compared(found: Tensor, wanted: Tensor) -> tuple[float, float]:
    """The divergence of answers from those of the teacher, and the share of the same ones."""
    sums = F.kl_div(found.log_softmax(1), wanted.log_softmax(1), reduction="batchmean", log_target=True)
    return float(sums), float((found.argmax(1) == wanted.argmax(1)).float().mean())
