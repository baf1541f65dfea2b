"""Datasets with columns, such as those of Hugging Face: a record is a dict, of which the inputs of the model count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from graphprune.data.batches import Batches, Reading, draw
from graphprune.data.images import Layout, standardised
from graphprune.data.inputs import LABELS, misfit


def is_dataset(source: Any) -> bool:
    """Whether a source has columns and can be read."""
    return hasattr(source, "column_names") and hasattr(source, "__iter__")


def from_dataset(batches: Batches, source: Any, reading: Reading) -> None:
    """Take records, drawn with the seed where they can be counted, else the first ones.

    reading.labels: the name of their column; ``label`` or ``labels`` where it is True; none where it is None
    Raises GraphPruneError GP702.
    """
    if isinstance(source.column_names, Mapping):
        what = "it is several datasets: " + ", ".join(source.column_names)
        raise misfit(what, "", "give one of them, such as dataset['train']")
    column = _column(source, reading.labels)
    names = {each.name.removesuffix("_1"): each.name for each in batches.inputs}

    def converted() -> Iterator[dict[str, Any]]:
        for record in _records(source, batches.samples, reading.seed):
            found = {name: record[each] for each, name in names.items() if each in record}
            if not found and (image := _image(record)) is not None:
                each = batches.inputs.only("an image")
                found = {
                    each.name: Layout.of(each, reading.sizes).array(image, *standardised(reading.mean, reading.std))
                }
            yield {**found, **({} if column is None else {"labels": record[column]})}

    batches.take(converted(), "record")


def _records(source: Any, most: int, seed: int) -> Iterator[Mapping[str, Any]]:
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return (source[place] for place in draw(len(source), most, seed).tolist())
    return islice(iter(source), most)


def _column(source: Any, labels: Any) -> str | None:
    if labels is None:
        return None
    known = list(source.column_names or ())
    wanted = LABELS if labels is True else (labels,)
    found = [name for name in wanted if name in known]
    if not found:
        raise misfit(f"there is no column {wanted[0]!r}", f"columns: {', '.join(known)}")
    return found[0]


def _image(record: Mapping[str, Any]) -> Any:
    """The only image of Pillow in a record."""
    found = [value for value in record.values() if hasattr(value, "convert") and hasattr(value, "resize")]
    return found[0] if len(found) == 1 else None
