"""Every model of torchvision: classification, quantizable (their float versions), segmentation, detection, video,
optical flow."""

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
    module: torch.nn.Module = vision.get_model(name, **given)
    return module


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
    if "detection" in module:
        return ([torch.rand(3, side, side)],), {}
    return (image,), {}
