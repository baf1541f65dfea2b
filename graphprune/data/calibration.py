"""Calibration from anything that holds data: the function that knows all kinds of sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.data import arrays, images, named, noise, records, text
from graphprune.data.batches import Batches, Reading
from graphprune.data.inputs import Inputs
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError

NOISE = "noise"


@dataclass(frozen=True)
class Request:
    """A source with options of :func:`calibration`, before the model is known."""

    source: Any
    options: Mapping[str, Any]


def calibration(
    source: Any,
    model: Any,
    example_inputs: Any = None,
    *,
    batch: int = 32,
    samples: int = 512,
    seed: int = 0,
    labels: Any = None,
    loss: str | Callable[[Any, Any], Any] = "cross_entropy",
    tokenizer: Any = None,
    length: int = 128,
    mean: Any = 0.0,
    std: Any = 1.0,
    sizes: Mapping[str, int] | None = None,
) -> Calibration:
    """Inputs for a model, checked, in batches that can be read again; what `plan` and `prune` take as `calibration`.

    source:     - batches or single samples, in anything that can be iterated over, once is enough: arrays, tensors,
                  tuples of arguments (one more than the model takes: the labels), dicts by the names of the inputs
                  (`labels` beside them);
                - whole arrays, samples along the first axis: an array, a tuple or a dict of them, `.npy`, `.npz`;
                - a folder of images, a text file, a dataset of Hugging Face;
                - `"package.module:name"`, something of these, or a function without arguments that returns it;
                - None or "noise": standard normal numbers of the right shapes, or with the statistics of a batch
                  normalisation that reads the input
    model:      the model or its analysis; example_inputs: what a module is captured with
    batch:      samples of a batch, where they are not given as batches
    samples:    the most samples to take: drawn with the seed from files, whole arrays and datasets, else the first ones
    labels:     for criteria that need a loss: an array, or a `.npy` file, with one for each sample; "folders" for the
                numbers of the folders of images; the column of a dataset
    loss:       which one, for the same criteria
    tokenizer:  of a text: the folder or name of one of transformers, a function, or "bytes"; length: tokens of a
                sequence, where the model leaves it open
    mean, std:  what images are standardised with, once they are in 0..1: a number or one for each channel
    sizes:      numbers for dynamic axes by name, for images and noise

    Types are not changed, but between floats and between whole numbers that fit. Raises GraphPruneError: GP101, GP102
    and GP108 for files, GP107 for options, GP701 for no data, GP702 for data that does not fit the model, GP703 for
    numbers that are not finite.
    """
    if isinstance(source, Calibration):
        return source
    if isinstance(source, Request):
        return calibration(source.source, model, example_inputs, **{"seed": seed, "sizes": sizes, **source.options})
    for option, value in (("batch", batch), ("samples", samples), ("length", length)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise GraphPruneError("GP107", f"{value!r} is not a whole number from 1 on", f"option {option}")
    analysis = _analysed(model, example_inputs)
    known = {**analysis.program.sizes, **(sizes or {})}
    reading = Reading(seed, _labels(labels), known, tokenizer, length, mean, std)
    batches = Batches(Inputs.of(analysis.program), batch, samples)
    return _made(batches, _read(batches, source, analysis, reading), analysis, loss)


def _analysed(model: Any, example_inputs: Any) -> Analysis:
    if isinstance(model, Analysis):
        return model
    from graphprune.api import analyze

    return analyze(model, example_inputs)


def _made(batches: Batches, what: str, analysis: Analysis, loss: str | Callable[[Any, Any], Any]) -> Calibration:
    if not batches.cases:
        left = f": {batches.left} samples do not fill a batch of {batches.fixed}" if batches.left else ""
        raise GraphPruneError("GP701", f"there is not one batch of calibration data{left}", what)
    native = analysis.program.native
    tools = tools_of(native)
    return Calibration(
        cases=[tools.case(native, each) for each in batches.cases],
        labels=batches.labelled,
        loss=loss,
        source=_described(what, batches),
        data_free=what == NOISE,
    )


def _read(batches: Batches, source: Any, analysis: Analysis, reading: Reading) -> str:
    """Fill the batches; what kind of source it was. Raises GraphPruneError."""
    if source is None or (isinstance(source, str) and source == NOISE):
        noise.make(batches, analysis, reading)
        return NOISE
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        if named.is_named(name):
            return _read(batches, named.called(name), analysis, reading)
        return _read_file(batches, Path(name), reading)
    if records.is_dataset(source):
        records.from_dataset(batches, source, reading)
        return "dataset"
    if hasattr(source, "shape") or isinstance(source, Mapping | tuple):
        arrays.from_arrays(batches, source, reading, "the data")
        return "arrays"
    if isinstance(source, Iterable):
        if reading.labels is not None:
            remedy = "yield (inputs, labels), or dicts with 'labels'"
            raise GraphPruneError("GP107", "labels of batches come with them", "option labels", remedy)
        batches.take(source, "batch")
        return "batches"
    if callable(source):
        return _read(batches, source(), analysis, reading)
    raise GraphPruneError("GP702", f"a {type(source).__name__} holds no calibration data", "option calibration")


def _read_file(batches: Batches, path: Path, reading: Reading) -> str:
    suffix = path.suffix.lower()
    if path.is_dir():
        images.from_folder(batches, path, reading)
        return "images"
    if not path.exists():
        remedy = f"give a file, a folder of images, package.module:name, or {NOISE}"
        raise GraphPruneError("GP101", "there is no such file", str(path), remedy)
    if suffix in {".npy", ".npz"}:
        arrays.from_file(batches, path, reading)
        return "arrays"
    if suffix in text.SUFFIXES:
        text.from_file(batches, path, reading)
        return "text"
    remedy = "known: .npz, .npy, a text (.txt, .md), a folder of images, package.module:name"
    raise GraphPruneError("GP103", f"{suffix or 'a file without a suffix'} is no calibration data", str(path), remedy)


def _labels(labels: Any) -> Any:
    if isinstance(labels, os.PathLike) or (isinstance(labels, str) and labels.endswith(".npy")):
        return arrays.opened(Path(labels))
    return labels


def _described(what: str, batches: Batches) -> str:
    kind = "noise, no data" if what == NOISE else what
    labelled = " with labels" if batches.labelled else ""
    left = f", {batches.left} left out that fill no batch of {batches.fixed}" if batches.left else ""
    return f"{kind}: {batches.count} samples{labelled} in {len(batches.cases)} batches{left}, sha256 {batches.digest()}"
