"""Inputs of ONNX files in the form that these were trained with: those that calibrate, and those that judge."""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = (512, 2000)
"""How many images of CIFAR-10 calibrate, and how many judge."""


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(each) for each in text.split(",")]


@dataclass(frozen=True)
class Samples:
    """Inputs by name and labels, samples along the first axis; ``whole`` where each of them is a case by itself."""

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    whole: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """Whole batches."""
        size = 1 if self.whole else size
        for begin in range(0, len(self) - size + 1, size):
            part: Any = begin if self.whole else slice(begin, begin + size)
            labels = None if self.labels is None else self.labels[begin : begin + size]
            yield {name: np.asarray(array[part]) for name, array in self.inputs.items()}, labels

    def digest(self) -> str:
        """The first half of a SHA-256 of all arrays: which data a table is about."""
        arrays = [self.inputs[name] for name in sorted(self.inputs)]
        arrays += [] if self.labels is None else [self.labels]
        found = hashlib.sha256()
        for array in arrays:
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:32]

    def halves(self) -> tuple[Samples, Samples]:
        """The first half without its labels, and the second."""
        half = len(self) // 2
        first, second = ({n: a[part] for n, a in self.inputs.items()} for part in (slice(half), slice(half, None)))
        labels = None if self.labels is None else self.labels[half:]
        return Samples(first, None, self.whole), Samples(second, labels, self.whole)


def archive(path: Path, ranks: dict[str, int]) -> tuple[Samples, Samples]:
    """The halves of a file of arrays. Arrays with one axis more than the inputs have hold whole cases."""
    with np.load(path) as file:
        arrays = dict(file)
    labels = arrays.pop("labels", None)
    whole = all(array.ndim == ranks[name] + 1 for name, array in arrays.items())
    return Samples(arrays, labels, whole).halves()


def standardised(pixels: np.ndarray, given: argparse.Namespace) -> np.ndarray:
    """Images ``[n, 3, height, width]`` in 0..1 as the network wants them."""
    pixels = pixels[:, ::-1] if given.bgr else pixels
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (given.mean, given.std))
    found: np.ndarray = ((pixels * given.peak - mean) / std).astype(np.float32)
    return found


def cifar10(given: argparse.Namespace, name: str, counts: tuple[int | None, int | None]) -> tuple[Samples, Samples]:
    """Training images, which calibrate, and test images with labels."""
    import cifar10_data

    found = []
    for split, count in zip(("train", "test"), counts, strict=True):
        images, labels = cifar10_data.load(given.cifar10, split, count)
        pixels = images * cifar10_data.DEVIATION[:, None, None] + cifar10_data.MEAN[:, None, None]
        array = standardised(pixels.numpy(), given)
        found.append(Samples({name: array}, labels.numpy() if split == "test" else None))
    return found[0], found[1]


def pictures(given: argparse.Namespace, name: str, size: tuple[int, int]) -> tuple[Samples, Samples]:
    """The files of a folder, named by their class: those of every second class calibrate, the others judge.

    size: height and width of the input; the middle of the picture is taken, resized where that is too small
    """
    from PIL import Image

    height, width = size
    pixels, labels = [], []
    for path in sorted(given.pictures.iterdir()):
        image = Image.open(path).convert("RGB")
        scale = max(1.0, height / image.height, width / image.width)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        cut = np.asarray(image.crop((left, top, left + width, top + height)), np.float32)
        pixels.append(cut.transpose(2, 0, 1) / 255)
        labels.append(int(path.stem) if path.stem.isdigit() else -1)
    array, known = standardised(np.stack(pixels), given), np.array(labels)
    second = known[1::2] if given.labels else None
    return Samples({name: array[::2]}, None), Samples({name: array[1::2]}, second)


def options(parser: argparse.ArgumentParser) -> None:
    """What says where inputs come from."""
    parser.add_argument("--data", type=Path, help="arrays by the names of the inputs, and labels")
    parser.add_argument("--cifar10", type=Path, help="a folder with CIFAR-10")
    parser.add_argument("--pictures", type=Path, help="a folder of pictures; half of them calibrate")
    parser.add_argument("--labels", action="store_true", help="the names of pictures are the numbers of their classes")
    parser.add_argument("--mean", type=numbers, default=[0.4914, 0.4822, 0.4465])
    parser.add_argument("--std", type=numbers, default=[0.2023, 0.1994, 0.2010])
    parser.add_argument("--peak", type=float, default=1.0, help="what white is, before mean and std")
    parser.add_argument("--bgr", action="store_true", help="blue first")


def chosen(parser: argparse.ArgumentParser, given: argparse.Namespace, dense: Any, counts: Any) -> tuple[Samples, ...]:
    """The samples that the options name."""
    inputs = dense.graph.inputs
    if given.data:
        return archive(given.data, {each.name: len(each.shape) for each in inputs})
    if given.pictures:
        height, width = inputs[0].shape[2:]
        return pictures(given, inputs[0].name, (int(height), int(width)))
    if given.cifar10 is None:
        parser.error("give --data, --cifar10 or --pictures")
    return cifar10(given, inputs[0].name, counts)


def first(samples: Samples, size: int, count: int) -> list[dict[str, np.ndarray]]:
    """Some batches without labels."""
    return [case for case, _ in itertools.islice(samples.batches(size), count)]
