"""Hard case 15: detectors, with several outputs, constant anchors and results whose size depends on the data."""

from __future__ import annotations

import numpy as np
import onnx

from .case import case, channel, seeded


def _anchor_centres() -> np.ndarray:
    """Centres of the 6 * 6 and 3 * 3 cells, each with 2 anchors, in pixels: float32 [1, 90, 2]."""
    grids = []
    for cells, stride in ((6, 2), (3, 4)):
        rows, columns = np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij")
        centres = (np.stack([columns, rows], axis=-1).reshape(-1, 1, 2) + 0.5) * stride
        grids.append(np.repeat(centres, 2, axis=1).reshape(-1, 2))
    return np.concatenate(grids)[None].astype(np.float32)


def _scale_of_head(scale: str, source: str) -> str:
    """The shared head on one scale of the pyramid, down to rows of (4 box numbers, 3 scores), in ONNX text."""
    return f"""
        hidden_{scale} = Conv <pads = [1, 1, 1, 1]> ({source}, "head.weight", "head.bias")
        active_{scale} = Relu(hidden_{scale})
        boxes_{scale} = Conv({"active_" + scale}, "box.weight", "box.bias")
        scores_{scale} = Conv({"active_" + scale}, "score.weight", "score.bias")
        boxes_last_{scale} = Transpose <perm = [0, 2, 3, 1]> (boxes_{scale})
        scores_last_{scale} = Transpose <perm = [0, 2, 3, 1]> (scores_{scale})
        box_rows_{scale} = Reshape(boxes_last_{scale}, box_view)
        score_rows_{scale} = Reshape(scores_last_{scale}, score_view)"""


@case(
    channel(8, "stem.weight:0 frozen_scale:1 frozen_shift:1 deep.weight:1 fine.weight:1"),
    channel(12, "deep.weight:0 deep.bias:0 coarse.weight:1"),
    channel(10, "fine.weight:0 coarse.weight:0 coarse.bias:0 head.weight:1"),
    channel(9, "head.weight:0 head.bias:0 box.weight:1 score.weight:1"),
)
def anchors_and_suppression() -> onnx.ModelProto:
    """Two scales, a pyramid with a resized sum, one head applied to both, anchors, and NonMaxSuppression.

    The frozen BatchNorm is a stored product and sum [1, 8, 1, 1]. The resized sum makes both lateral convolutions one
    dimension of 10; the shared head reads it at both scales. box.weight:0 = 2 anchors * 4 and score.weight:0 = 2 * 3
    are pinned by the outputs and by the suppression.
    """
    return seeded(
        f"""
    detector (float[1, 3, 12, 12] image) => (float[1, 90, 4] boxes, float[1, 3, 90] scores, int64[found, 3] selected)
    <float[8, 3, 3, 3] "stem.weight", float[1, 8, 1, 1] "frozen_scale", float[1, 8, 1, 1] "frozen_shift",
     float[12, 8, 3, 3] "deep.weight", float[12] "deep.bias", float[10, 8, 1, 1] "fine.weight",
     float[10, 12, 1, 1] "coarse.weight", float[10] "coarse.bias", float[9, 10, 3, 3] "head.weight",
     float[9] "head.bias", float[8, 9, 1, 1] "box.weight", float[8] "box.bias", float[6, 9, 1, 1] "score.weight",
     float[6] "score.bias", float[1, 90, 2] centres, int64[3] box_view = {{1, -1, 4}},
     int64[3] score_view = {{1, -1, 3}}, float[4] factors = {{1.0, 1.0, 2.0, 2.0}}, int64[2] halves = {{2, 2}},
     float half = {{0.5}}, int64 most = {{5}}, float overlap = {{0.6}}, float threshold = {{0.4}}>
    {{
        stem = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (image, "stem.weight")
        stem_scaled = Mul(stem, frozen_scale)
        stem_shifted = Add(stem_scaled, frozen_shift)
        fine_features = Relu(stem_shifted)
        deep = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (fine_features, "deep.weight", "deep.bias")
        coarse_features = Relu(deep)
        coarse = Conv(coarse_features, "coarse.weight", "coarse.bias")
        fine_lateral = Conv(fine_features, "fine.weight")
        coarse_large = Resize <mode = "nearest"> (coarse, , factors)
        fine = Add(fine_lateral, coarse_large)
        {_scale_of_head("fine", "fine")}
        {_scale_of_head("coarse", "coarse")}
        box_rows = Concat <axis = 1> (box_rows_fine, box_rows_coarse)
        score_rows = Concat <axis = 1> (score_rows_fine, score_rows_coarse)
        offsets, sizes_raw = Split <axis = 2> (box_rows, halves)
        middles = Add(offsets, centres)
        sizes = Exp(sizes_raw)
        reach = Mul(sizes, half)
        lower = Sub(middles, reach)
        upper = Add(middles, reach)
        boxes = Concat <axis = 2> (lower, upper)
        shares = Sigmoid(score_rows)
        scores = Transpose <perm = [0, 2, 1]> (shares)
        selected = NonMaxSuppression(boxes, scores, most, overlap, threshold)
    }}""",
        centres=_anchor_centres(),
    )


@case(
    channel(8, "stem.weight:0 stem.bias:0 objectness.weight:1 region.weight:0 class.weight:0"),
    channel(6, "region.weight:1 region.bias:0 box.weight:0"),
)
def best_places_gathered() -> onnx.ModelProto:
    """A two-stage detector: TopK over objectness picks 5 places, whose features go through Linear heads.

    Picking places by computed indices leaves the channels alone. Which places are picked depends on the stem's
    channels through objectness.weight, exactly as in the dense network with those channels zeroed.
    """
    return seeded("""
    detector (float[batch, 3, 6, 6] image) =>
    (float[batch, 5, 4] boxes, float[batch, 5, 3] classes, int64[batch, 5] best)
    <float[8, 3, 3, 3] "stem.weight", float[8] "stem.bias", float[1, 8, 1, 1] "objectness.weight",
     float[8, 6] "region.weight", float[6] "region.bias", float[6, 4] "box.weight", float[8, 3] "class.weight",
     int64[2] flat = {0, -1}, int64[3] columns = {0, 8, -1}, int64[1] count = {5}, int64[1] last = {2}>
    {
        stem = Conv <pads = [1, 1, 1, 1]> (image, "stem.weight", "stem.bias")
        active = Relu(stem)
        objectness = Conv(active, "objectness.weight")
        objectness_rows = Reshape(objectness, flat)
        best_objectness, best = TopK <axis = 1> (objectness_rows, count)
        places_first = Reshape(active, columns)
        places_last = Transpose <perm = [0, 2, 1]> (places_first)
        indices = Unsqueeze(best, last)
        picked = GatherND <batch_dims = 1> (places_last, indices)
        region_product = MatMul(picked, "region.weight")
        region_sum = Add(region_product, "region.bias")
        region = Relu(region_sum)
        boxes = MatMul(region, "box.weight")
        classes = MatMul(picked, "class.weight")
    }""")
