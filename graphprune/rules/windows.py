"""Output sizes of sliding windows: the arithmetic of convolution and pooling, as the ONNX specification has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphprune.rules.trace import Trace
from graphprune.sizes import Extent


def window(
    trace: Trace, spatial: Sequence[Extent], kernel: Sequence[Extent], attributes: Mapping[str, Any]
) -> list[Extent]:
    """Sizes after a convolution or pooling window. Where the input size is dynamic the result is, too: it keeps the
    size's name when the window does not change it, and gets a name of its own otherwise."""
    rank = len(spatial)
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    pads = attributes.get("pads") or [0] * (2 * rank)
    same = str(attributes.get("auto_pad", "NOTSET")).startswith("SAME")
    valid = attributes.get("auto_pad") == "VALID"
    found: list[Extent] = []
    for k, size in enumerate(spatial):
        reach = kernel[k]
        if not isinstance(size, int) or not isinstance(reach, int):
            found.append(_named(trace, size, (reach, strides[k], dilations[k], pads[k], pads[k + rank], same)))
            continue
        span = dilations[k] * (reach - 1) + 1
        room = size - span + (0 if same or valid else pads[k] + pads[k + rank])
        if same:
            found.append(-(-size // strides[k]))
        else:
            found.append(max(0, (-(-room // strides[k]) if attributes.get("ceil_mode") else room // strides[k]) + 1))
            if attributes.get("ceil_mode") and (found[-1] - 1) * strides[k] >= size + pads[k]:
                found[-1] = found[-1] - 1
    return found


def _named(trace: Trace, size: Extent, how: tuple[Any, ...]) -> Extent:
    """One symbol for one dynamic size under one window, so that parallel branches agree."""
    reach, stride, dilation, before, after, same = how
    keeps = stride == 1 and (same or (isinstance(reach, int) and before + after == dilation * (reach - 1)))
    return size if keeps else trace.derived(size, how)


def transposed_window(
    trace: Trace, spatial: Sequence[Extent], kernel: Sequence[Extent], attributes: Mapping[str, Any]
) -> list[Extent]:
    """Sizes after a transposed convolution."""
    rank = len(spatial)
    if "output_shape" in attributes:
        return [int(size) for size in attributes["output_shape"][-rank:]]
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    pads = attributes.get("pads") or [0] * (2 * rank)
    extra = attributes.get("output_padding") or [0] * rank
    same = str(attributes.get("auto_pad", "NOTSET")).startswith("SAME")
    found: list[Extent] = []
    for k, size in enumerate(spatial):
        reach = kernel[k]
        if not isinstance(size, int) or not isinstance(reach, int):
            found.append(
                trace.derived(size, (reach, strides[k], dilations[k], pads[k], pads[k + rank], extra[k], same))
            )
        elif same:
            found.append(size * strides[k])
        else:
            around = pads[k] + pads[k + rank]
            found.append((size - 1) * strides[k] + extra[k] + (reach - 1) * dilations[k] + 1 - around)
    return found
