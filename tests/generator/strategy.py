"""The generator as a hypothesis strategy, which shrinks to short lists of blocks by itself."""

from __future__ import annotations

import onnx
from hypothesis import strategies as st

from .blocks import BLOCKS
from .recipe import OPSETS, STARTS, Recipe, build


def recipes(most: int = 6) -> st.SearchStrategy[Recipe]:
    """Recipes of up to `most` blocks; shrinks towards few blocks, static sizes and opset 18."""
    blocks = st.tuples(st.sampled_from(sorted(BLOCKS)), st.integers(0, 2**31 - 1))
    return st.builds(
        Recipe,
        seed=st.integers(0, 2**31 - 1),
        opset=st.sampled_from(sorted(OPSETS, key=lambda opset: abs(opset - 18))),
        start=st.sampled_from(STARTS),
        dynamic=st.sampled_from([(), ("batch",), ("places",), ("batch", "places")]),
        blocks=st.lists(blocks, min_size=1, max_size=most).map(tuple),
    )


def networks(most: int = 6) -> st.SearchStrategy[onnx.ModelProto]:
    """Valid networks of up to `most` blocks."""
    return recipes(most).map(build)
