"""torchvision's compiled operators written in PyTorch, for builds in which they do not load.

Only what its models call: `nms` and `roi_align`, under their own names and schemas, so that a captured graph is the one
that a compiled build gives. Nothing is replaced where the compiled operators are there, except `batched_nms`: it
chooses between two ways to the same result by the number of boxes, which torch.export cannot follow.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": """(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width,
        int sampling_ratio, bool aligned) -> Tensor""",
}
_library: list[torch.library.Library] = []


def load() -> None:
    """Import torchvision, with the operators written here where its own are missing; nothing where it is not there."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        if "torchvision::" not in str(error) or _library:
            raise
        library = torch.library.Library("torchvision", "DEF")
        _library.append(library)  # it lives as long as its operators
        for name, schema in _SCHEMAS.items():
            library.define(name + schema)
        _fill_in(library)
    importlib.import_module("torchvision.ops.boxes").batched_nms = _batched_nms


def _fill_in(library: torch.library.Library) -> None:
    names = ("extension", "ops.boxes", "ops.roi_align", "_meta_registrations")
    extension, boxes, roi_align, shapes = (importlib.import_module(f"torchvision.{name}") for name in names)
    library.impl("nms", _nms, "CPU")
    library.impl("roi_align", roi_align._roi_align.__wrapped__, "CPU")
    torch.library.register_fake("torchvision::roi_align", shapes.meta_roi_align, lib=library)
    for module in (extension, boxes, roi_align):
        module._assert_has_ops = lambda: None
        module._has_ops = lambda: True


def _batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """`nms` within each class: boxes of different classes are moved apart."""
    apart = idxs.to(boxes) * (boxes.max() + 1)
    found: torch.Tensor = torch.ops.torchvision.nms(boxes + apart[:, None], scores, iou_threshold)
    return found


def _nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """The positions of boxes (``[n, 4]``, corners) of which no better one covers more than the threshold."""
    area = (dets[:, 2] - dets[:, 0]) * (dets[:, 3] - dets[:, 1])
    left = torch.argsort(scores, descending=True, stable=True)
    kept = []
    while left.numel():
        best, left = left[0], left[1:]
        kept.append(best)
        low = torch.maximum(dets[best, :2], dets[left, :2])
        high = torch.minimum(dets[best, 2:], dets[left, 2:])
        common = (high - low).clamp(min=0).prod(1)
        left = left[~(common / (area[best] + area[left] - common) > iou_threshold)]  # empty boxes (0 / 0) stay
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64)
