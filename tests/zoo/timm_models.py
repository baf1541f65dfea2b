"""One small member of each family of timm; a family is one of timm's own modules."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from . import vision_operators
from .zoo import Inputs, Model

vision_operators.load()  # timm imports torchvision

# Family and model, and what must be known of it: the side of its image where it is not 64, and "=" where the model must
# be told the side (its tokens are counted when it is built).
_MODELS = """
beit beit_base_patch16_224 =64, byoanet halonet_h1 256, byobnet mobileone_s1, cait cait_xxs24_224 =64,
coat coat_tiny =64, convit convit_tiny =64, convmixer convmixer_768_32, convnext convnext_atto, cpubone cpubone_nano,
crossvit crossvit_tiny_240 240, csatv2 csatv2, cspnet cs3darknet_focus_s, cspnext cspnext_tiny, davit davit_tiny,
deit deit_tiny_distilled_patch16_224 =64, densenet densenet121, dla dla46_c, dpn dpn48b, edgenext edgenext_xx_small,
efficientformer efficientformer_l1 224, efficientformer_v2 efficientformerv2_s0 =64, efficientnet tinynet_e,
efficientvim efficientvim_m1, efficientvit_mit efficientvit_b0, efficientvit_msra efficientvit_m0 224,
eva eva02_tiny_patch14_224 =56, fasternet fasternet_t0, fastvit fastvit_t8, focalnet focalnet_tiny_srf,
gcvit gcvit_xxtiny 224, ghostnet ghostnet_050, hardcorenas hardcorenas_a, hgnet hgnetv2_b0, hiera hiera_tiny_224 =64,
hieradet_sam2 sam2_hiera_tiny, hrnet hrnet_w18_small, iformer iformer_t, inception_next inception_next_atto,
inception_resnet_v2 inception_resnet_v2 96, inception_v3 inception_v3 96, inception_v4 inception_v4 96,
lcnetv2 lcnetv2_small, levit levit_128 224, lowformer lowformer_b0, mambaout test_mambaout, maxxvit test_coatnet =64,
metaformer poolformer_s12, mlp_mixer gmlp_ti16_224 =64, mobilenetv3 mobilenetv3_small_050,
mobilenetv5 mobilenetv5_base 128, mobilevit mobilevit_xxs, mvitv2 mvitv2_tiny =64, naflexvit naflexvit_base_patch16_gap,
nasnet nasnetalarge 96, nest nest_tiny =128, nextvit nextvit_small, nfnet test_nfnet, pit pit_ti_224 =64,
pnasnet pnasnet5large 96, pvt_v2 pvt_v2_b0, qwen3_vit qwen3_vit_88m, rdnet rdnet_tiny, regnet regnetx_002,
repghost repghostnet_050, repvit repvit_m1, res2net res2next50, resnest resnest14d, resnet resnet18,
resnetv2 resnetv2_18, rexnet rexnet_100, selecsls selecsls42, senet legacy_seresnet18, sequencer sequencer2d_s =64,
shvit shvit_s1, sknet skresnet18, starnet starnet_s050, swiftformer swiftformer_xs,
swin_transformer swin_tiny_patch4_window7_224 =64, swin_transformer_v2 swinv2_tiny_window8_256 =64,
swin_transformer_v2_cr swinv2_cr_tiny_224 =64, tiny_vit tiny_vit_5m_224, tnt tnt_s_legacy_patch16_224 =64,
tresnet tresnet_m, twins twins_svt_small =64, vgg vgg11, visformer visformer_tiny =64,
vision_transformer vit_tiny_patch16_224 =64, vision_transformer_hybrid vit_small_r26_s32_224 =64,
vision_transformer_relpos test_vit_relpos =64, vision_transformer_sam samvit_base_patch16_224 =64,
vitamin vitamin_small_224 =64, volo volo_d1_224 =64, vovnet ese_vovnet19b_slim_dw, xception legacy_xception 96,
xception_aligned xception41p, xcit xcit_nano_12_p8_224 =64
"""
_CHEAP = """mobileone_s1 convnext_atto cs3darknet_focus_s convit_tiny deit_tiny_distilled_patch16_224 dla46_c dpn48b
    edgenext_xx_small tinynet_e fasternet_t0 ghostnet_050 hgnetv2_b0 inception_next_atto lcnetv2_small test_mambaout
    mobilenetv3_small_050 mobilevit_xxs test_nfnet pit_ti_224 pvt_v2_b0 regnetx_002 repghostnet_050 resnet18
    starnet_s050 swiftformer_xs vit_tiny_patch16_224 test_vit_relpos ese_vovnet19b_slim_dw"""


def models() -> list[Model]:
    """A model of every family."""
    cheap, found = set(_CHEAP.split()), []
    for entry in _MODELS.split(","):
        family, name, *rest = entry.split()
        size = rest[0] if rest else "64"
        side = int(size.removeprefix("="))
        given = {"img_size": side} if size.startswith("=") else {}
        build, inputs = partial(_build, name, given), partial(_inputs, side)
        found.append(Model(name, "timm", family, build, inputs, name in cheap))
    return found


def _build(name: str, given: dict[str, Any]) -> torch.nn.Module:
    import timm

    module: torch.nn.Module = timm.create_model(name, pretrained=False, **given)
    return module


def _inputs(side: int) -> Inputs:
    return (torch.randn(2, 3, side, side),), {}
