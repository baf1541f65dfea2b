"""Every model of torchvision: classification, quantizable (their float versions), segmentation, detection, video,
optical flow.

Detectors in two stages count the regions that the first one finds (`len(rois)`), which torch.export cannot follow: they
are captured as :class:`Regions`, everything that has weights, with regions that are given.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch

from . import vision_operators
from .zoo import Inputs, Model

vision_operators.load()

from torchvision import models as vision  # noqa: E402  # its operators first

# What a model needs beyond its name: the side of its image, and arguments of its builder.
_SIDES = {"inception": 96, "googlenet": 64, "maxvit": 224, "mvit": 224, "swin3d": 64, "raft": 128, "ssd300": 300,
          "ssdlite": 320, "s3d": 224, "vit_h_14": 28}  # fmt: skip
_SIDE = 64
_CHEAP = """alexnet densenet121 efficientnet_b0 googlenet mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf
    regnet_y_400mf resnet18 shufflenet_v2_x0_5 squeezenet1_1 vit_b_32 swin_t convnext_tiny quantized_resnet18
    quantized_mobilenet_v2 lraspp_mobilenet_v3_large fcn_resnet50 r3d_18 mc3_18"""


def models() -> list[Model]:
    """A model for every name that torchvision lists."""
    return [
        Model(name, "torchvision", _family(name), partial(_build, name), partial(_inputs, name), name in _CHEAP.split())
        for name in vision.list_models()
    ]


def _family(name: str) -> str:
    """``resnet`` of ``resnet101``: the name up to its first number, or to its second word."""
    plain = name.removeprefix("quantized_")
    kind = "quantized " if plain != name else ""
    return kind + re.split(r"[\d_]", plain)[0] + next((f" {task}" for task in ("rcnn", "raft") if task in plain), "")


def _side(name: str) -> int:
    plain = name.removeprefix("quantized_")
    return next((side for start, side in _SIDES.items() if plain.startswith(start)), _SIDE)


def _build(name: str) -> torch.nn.Module:
    plain = name.removeprefix("quantized_")
    given: dict[str, Any] = {"weights": None}
    if vision.get_model_builder(name).__module__.startswith(("torchvision.models.detection", "torchvision.models.seg")):
        given["weights_backbone"] = None
    if plain.startswith(("googlenet", "inception")):
        given["init_weights"] = False
    if plain.startswith("vit_"):
        given["image_size"] = _vit_side(plain)
    if name.startswith("quantized_"):
        given["quantize"] = False
    if "rcnn" in name:
        given.update(min_size=_SIDE, max_size=_SIDE)
    elif "detection" in vision.get_model_builder(name).__module__:
        given.update(score_thresh=0.0, topk_candidates=20, nms_thresh=1.0)  # so that some are left
        if not name.startswith("ssd"):
            given.update(min_size=_SIDE, max_size=_SIDE)
    module: torch.nn.Module = vision.get_model(name, **given)
    return Regions(module) if "rcnn" in name else module


class Regions(torch.nn.Module):
    """A detector in two stages without the selection of regions and detections: predictions at every anchor, and for
    given regions."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, images: list[torch.Tensor], regions: list[torch.Tensor]) -> list[Any]:
        """What all heads make of images (``[3, h, w]`` each) and regions (``[n, 4]`` for each image)."""
        batch, _ = self.model.transform(images)
        features = self.model.backbone(batch.tensors)
        heads, sizes = self.model.roi_heads, batch.image_sizes
        found = [self.model.rpn.head(list(features.values()))]
        found.append(heads.box_predictor(heads.box_head(heads.box_roi_pool(features, regions, sizes))))
        if heads.has_mask():
            found.append(heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, regions, sizes))))
        if heads.has_keypoint():
            pooled = heads.keypoint_roi_pool(features, regions, sizes)
            found.append(heads.keypoint_predictor(heads.keypoint_head(pooled)))
        return found


def _vit_side(name: str) -> int:
    """Two patches in each direction."""
    return 2 * int(name.rpartition("_")[2])


def _inputs(name: str) -> Inputs:
    module = vision.get_model_builder(name).__module__
    side = _vit_side(name) if name.startswith("vit_") else _side(name)
    image = torch.randn(1, 3, side, side)
    if "video" in module:
        return (torch.randn(1, 3, 16, side, side),), {}
    if "optical_flow" in module:
        return (image, torch.randn(1, 3, side, side)), {}
    if "rcnn" in name:
        corners = torch.rand(10, 2) * side / 2
        return ([torch.rand(3, side, side)], [torch.cat([corners, corners + side / 2 * torch.rand(10, 2)], 1)]), {}
    if "detection" in module:
        return ([0.45 + 0.02 * torch.randn(3, side, side)],), {}  # near the mean that is taken off
    return (image,), {}
