"""Architectures of the transformers library, built from their configuration classes at small sizes."""

from __future__ import annotations

from tests.zoo import (
    transformers_decoders,
    transformers_encoders,
    transformers_pairs,
    transformers_senses,
    vision_operators,
)
from tests.zoo.zoo import Model

vision_operators.load()  # transformers imports torchvision where it is installed

LISTS = (transformers_encoders, transformers_decoders, transformers_pairs, transformers_senses)


def models() -> list[Model]:
    """Text encoders, decoders, encoder-decoders, and models that see or hear."""
    rows = [row for each in LISTS for row in each.ROWS]
    return [
        Model(row.title, "transformers", row.kind, row.build, row.inputs, cheap=not row.slow, reason=row.reason)
        for row in rows
    ]
