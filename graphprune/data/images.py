"""A folder of images: resized, cropped in the middle, scaled to 0..1 and standardised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.data.batches import Batches, Reading, draw
from graphprune.data.inputs import Input, array_of, misfit
from graphprune.errors import GraphPruneError
from graphprune.program import Array

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Layout:
    """How an input holds an image: height, width, and the axis of the channels (1 or 3)."""

    channels: int
    height: int
    width: int
    last: bool

    @staticmethod
    def of(each: Input, sizes: Mapping[str, int]) -> Layout:
        """The layout of an input. Raises GraphPruneError GP702 where it is none of images."""
        shape = [sizes.get(size) if isinstance(size, str) else size for size in each.shape or ()]
        if len(shape) == 4 and each.dtype.kind == "f":
            for axis in (1, 3):
                channels, height, width = shape[axis], *[shape[k] for k in (1, 2, 3) if k != axis]
                if channels in (1, 3):
                    if height is None or width is None:
                        what = f"the size of images is open: {each}"
                        raise misfit(what, "", "give it by name, such as --size height=224 --size width=224")
                    return Layout(int(channels), int(height), int(width), axis == 3)
        raise misfit(f"the model takes no images: {each}", "", "give arrays instead: a .npz file")

    def array(self, image: Any, mean: Array, std: Array) -> Array:
        """An image of Pillow as the model takes it: the shorter side fits, the middle stays."""
        image = image.convert("RGB" if self.channels == 3 else "L")
        scale = max(self.width / image.width, self.height / image.height)
        wide, high = (max(least, round(side * scale)) for least, side in
                      ((self.width, image.width), (self.height, image.height)))  # fmt: skip
        left, top = (wide - self.width) // 2, (high - self.height) // 2
        image = image.resize((wide, high), 2).crop((left, top, left + self.width, top + self.height))  # 2: bilinear
        array = np.asarray(image, np.float32).reshape(self.height, self.width, self.channels) / 255
        array = (array - mean) / std
        return array if self.last else array.transpose(2, 0, 1)


def from_folder(batches: Batches, path: Path, reading: Reading) -> None:
    """Read images of a folder and its folders, drawn with the seed, in the order of their names.

    reading.labels: one for each file, in the order of their paths; "folders" for the numbers of the folders they are in
    Raises GraphPruneError: GP108 without Pillow, GP102 for files that are no images, GP701 where there are none.
    """
    image_module = _pillow()
    paths = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
    if not paths:
        raise GraphPruneError("GP701", "there are no images in this folder", str(path), "png, jpg, webp, bmp or tif")
    each = batches.inputs.only("an image")
    layout, standard = Layout.of(each, reading.sizes), standardised(reading.mean, reading.std)
    known = _labels(reading.labels, path, paths)
    for place in draw(len(paths), batches.samples, reading.seed).tolist():
        try:
            with image_module.open(paths[place]) as image:
                array = layout.array(image, *standard)
        except (OSError, ValueError, SyntaxError) as error:
            raise GraphPruneError("GP102", f"it is no image that can be read: {error}", str(paths[place])) from error
        batches.add({each.name: array}, None if known is None else np.asarray(known[place]), paths[place].name)
    batches.flush()


def standardised(mean: Any, std: Any) -> tuple[Array, Array]:
    """Numbers to subtract and to divide by. Raises GraphPruneError GP107."""
    found = np.atleast_1d(np.asarray(mean, np.float32)), np.atleast_1d(np.asarray(std, np.float32))
    if any(each.size not in (1, 3) or not np.isfinite(each).all() for each in found) or not (found[1] > 0).all():
        what = f"mean {mean!r} and std {std!r} are not one number or three, std above 0"
        raise GraphPruneError("GP107", what, "options mean and std", "of ImageNet: 0.485,0.456,0.406 0.229,0.224,0.225")
    return found


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        what = "reading images needs Pillow"
        raise GraphPruneError("GP108", what, "", "pip install pillow, or give arrays: a .npz file") from error
    return Image


def _labels(labels: Any, folder: Path, paths: Sequence[Path]) -> Sequence[Any] | Array | None:
    if labels is None:
        return None
    if isinstance(labels, str) and labels == "folders":
        classes = sorted({path.relative_to(folder).parts[0] for path in paths})
        return [classes.index(path.relative_to(folder).parts[0]) for path in paths]
    known = array_of(labels)
    if len(known) != len(paths):
        raise misfit(f"there are {len(paths)} images and {len(known)} labels", str(folder))
    return known
