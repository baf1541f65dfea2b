"""Models that see or hear: images, video, speech, and pairs of text and image."""

from __future__ import annotations

from typing import Any

import torch

from tests.zoo.transformers_rows import Row, heard, ids, numbers, pixels, row, tokens
from tests.zoo.zoo import Inputs

PATCHES: dict[str, Any] = {"image_size": 32, "patch_size": 8}
STAGES: dict[str, Any] = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}
PYRAMID: dict[str, Any] = {**STAGES, "num_attention_heads": [1, 2, 4, 4]}
WINDOWS: dict[str, Any] = {"embed_dim": 16, "num_heads": [2, 4], "window_size": 4}
SPEECH: dict[str, Any] = {
    **{"conv_dim": [16, 16, 24], "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2], "num_feat_extract_layers": 3},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4},
}
SIZES: dict[str, Any] = {
    **{"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4},
}
TEXT: dict[str, Any] = {**SIZES, "vocab_size": 120, "max_position_embeddings": 64, "pad_token_id": 0}
TOWERS: dict[str, Any] = {
    "text_config": {**TEXT, "bos_token_id": 1, "eos_token_id": 2},
    "vision_config": {**SIZES, **PATCHES},
}

PLAIN = """ViTModel ViTForImageClassification DeiTModel BeitModel Dinov2Model Dinov2WithRegistersModel DINOv3ViTModel
ViTMSNModel Data2VecVisionModel IJepaModel SiglipVisionModel CLIPVisionModel Aimv2VisionModel MLCDVisionModel"""
HEARING = "Wav2Vec2 Hubert WavLM UniSpeech UniSpeechSat Data2VecAudio Wav2Vec2Conformer"


def captioned() -> Inputs:
    """A text and an image."""
    mask = torch.ones(2, 9, dtype=torch.long)
    return (), {"input_ids": tokens(), "pixel_values": torch.randn(2, 3, 32, 32), "attention_mask": mask}


def masked_pixels() -> Inputs:
    """Images, and a random order in which their patches are left out."""
    return (), {"pixel_values": torch.randn(2, 3, 32, 32), "noise": torch.rand(2, 16)}


def resnet() -> Any:
    """A small backbone with three outputs."""
    from transformers import ResNetConfig

    return ResNetConfig(embedding_size=16, **STAGES, out_features=["stage2", "stage3", "stage4"])


def convnext() -> Any:
    """A small backbone with four outputs."""
    from transformers import ConvNextConfig

    return ConvNextConfig(**STAGES, out_features=["stage1", "stage2", "stage3", "stage4"])


QUERIES: dict[str, Any] = {
    **{"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "num_queries": 5},
    "backbone_config": resnet,
}

IMAGES: list[Row] = [
    *(row(name, pixels(), **PATCHES) for name in PLAIN.split()),
    row("ViTMAEModel", masked_pixels, **PATCHES, mask_ratio=0.5),
    row("YolosModel", pixels(), image_size=[32, 32], patch_size=8, num_detection_tokens=5),
    row("ConvNextModel", pixels(), **STAGES),
    row("ConvNextV2Model", pixels(), **STAGES),
    row("SwinModel", pixels(), image_size=32, patch_size=4, depths=[2, 2], **WINDOWS),
    row("Swinv2Model", pixels(), image_size=32, patch_size=4, depths=[2, 2], **WINDOWS),
    row(
        "Swin2SRForImageSuperResolution",
        pixels(),
        image_size=32,
        patch_size=1,
        depths=[1, 1],
        upscale=2,
        **WINDOWS,
    ),
    row("ResNetModel", pixels(), embedding_size=16, **STAGES),
    row("RegNetModel", pixels(), embedding_size=16, groups_width=8, **STAGES),
    row("BitModel", pixels(), embedding_size=16, num_groups=4, **STAGES),
    row("SegformerForSemanticSegmentation", pixels(), **PYRAMID, decoder_hidden_size=32),
    row("GLPNForDepthEstimation", pixels(), **PYRAMID, decoder_hidden_size=32),
    row("PvtModel", pixels(), image_size=32, mlp_ratios=[2, 2, 2, 2], **PYRAMID),
    row("PvtV2Model", pixels(), image_size=32, mlp_ratios=[2, 2, 2, 2], **PYRAMID),
    row("PoolFormerModel", pixels(), **STAGES),
    row(
        "MobileViTModel",
        pixels(64),
        image_size=64,
        hidden_sizes=[24, 32, 40],
        neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 64],
    ),
    row("MobileViTV2Model", pixels(64), image_size=64, width_multiplier=0.25),
    row("MobileNetV1Model", pixels(), depth_multiplier=0.25),
    row("MobileNetV2Model", pixels(), depth_multiplier=0.35),
    row("EfficientNetModel", pixels(), width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320),
    row(
        "LevitModel",
        pixels(64),
        image_size=64,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[2, 4, 4],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
        patch_size=16,
    ),
    row(
        "CvtModel",
        pixels(),
        embed_dim=[16, 24, 32],
        num_heads=[1, 2, 4],
        depth=[1, 2, 4],
        cls_token=[False, False, True],
    ),
    row("FocalNetModel", pixels(), image_size=32, embed_dim=16, depths=[1, 1, 1, 1]),
    row(
        "HieraModel",
        pixels(),
        image_size=[32, 32],
        embed_dim=16,
        depths=[1, 1],
        num_heads=[1, 2],
        masked_unit_size=[4, 4],
        query_stride=[2, 2],
        num_query_pool=1,
    ),
    row("SwiftFormerModel", pixels(64), image_size=64, depths=[1, 1, 1, 1], embed_dims=[16, 24, 32, 40]),
    row("ImageGPTModel", ids()),
    row("VitDetModel", pixels(), **PATCHES, window_size=2, window_block_indices=[0]),
    row(
        "SuperPointForKeypointDetection",
        pixels(64),
        encoder_hidden_sizes=[16, 16, 24, 24],
        decoder_hidden_size=24,
        keypoint_decoder_dim=65,
        descriptor_decoder_dim=24,
    ),
    row("TextNetModel", pixels(64), stem_out_channels=16, hidden_sizes=[16, 16, 24, 32, 40]),
    row(
        "HGNetV2ForImageClassification",
        pixels(64),
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 40],
        stem_channels=[3, 8, 16],
        stage_in_channels=[16, 16, 24, 32],
        stage_mid_channels=[8, 8, 16, 16],
        stage_out_channels=[16, 24, 32, 40],
        stage_num_blocks=[1, 1, 1, 1],
    ),
    row(
        "SamVisionModel",
        pixels(64),
        image_size=64,
        patch_size=16,
        output_channels=16,
        window_size=2,
        global_attn_indexes=[1],
        num_pos_feats=16,
        mlp_dim=80,
    ),
    row(
        "DPTForDepthEstimation",
        pixels(),
        **PATCHES,
        num_hidden_layers=4,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 24, 24],
        fusion_hidden_size=16,
        is_hybrid=False,
    ),
    row("VideoMAEModel", numbers(pixel_values=(2, 4, 3, 32, 32)), **PATCHES, num_frames=4),
    row("TimesformerModel", numbers(pixel_values=(2, 4, 3, 32, 32)), **PATCHES, num_frames=4),
    row(
        "VivitModel",
        numbers(pixel_values=(2, 4, 3, 32, 32)),
        image_size=32,
        num_frames=4,
        tubelet_size=[2, 8, 8],
    ),
    row(
        "VJEPA2Model",
        numbers(pixel_values_videos=(2, 4, 3, 32, 32)),
        crop_size=32,
        patch_size=8,
        frames_per_clip=4,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        mlp_ratio=2.0,
    ),
    row("DetrModel", pixels(64), **QUERIES),
    row("ConditionalDetrModel", pixels(64), **QUERIES),
    row("TableTransformerModel", pixels(64), slow=True, **QUERIES),
    row("DeformableDetrModel", pixels(64), slow=True, **QUERIES, d_model=64),
    row(
        "UperNetForSemanticSegmentation",
        pixels(64),
        backbone_config=convnext,
        hidden_size=16,
        pool_scales=[1, 2],
        use_auxiliary_head=False,
        auxiliary_in_channels=32,
    ),
]

SOUNDS: list[Row] = [
    *(row(f"{name}Model", numbers(input_values=(2, 1000)), **SPEECH) for name in HEARING.split()),
    row("SEWModel", numbers(input_values=(2, 1000)), **SPEECH, squeeze_factor=2),
    row("SEWDModel", numbers(input_values=(2, 1000)), **SPEECH, squeeze_factor=2),
    row("Wav2Vec2BertModel", numbers(input_features=(2, 20, 160))),
    row(
        "WhisperModel",
        heard(input_features=(2, 80, 40)),
        max_source_positions=20,
        max_target_positions=20,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    ),
    row(
        "Speech2TextModel",
        heard(input_features=(2, 40, 80)),
        conv_channels=32,
        max_source_positions=50,
        max_target_positions=20,
    ),
    row(
        "MoonshineModel",
        heard(input_values=(2, 4000)),
        slow=True,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        encoder_num_key_value_heads=4,
        decoder_num_key_value_heads=4,
        decoder_start_token_id=1,
    ),
    row("SpeechT5Model", numbers(input_values=(2, 10, 48), decoder_input_values=(2, 6, 48))),
    row(
        "ASTModel",
        numbers(input_values=(2, 32, 16)),
        patch_size=4,
        frequency_stride=4,
        time_stride=4,
        max_length=32,
        num_mel_bins=16,
    ),
    row(
        "ClapAudioModel",
        numbers(input_features=(2, 1, 64, 16)),
        spec_size=32,
        num_mel_bins=16,
        patch_size=4,
        patch_stride=[4, 4],
        patch_embeds_hidden_size=16,
        hidden_size=32,
        depths=[1, 1],
        num_attention_heads=[2, 4],
        window_size=4,
    ),
    row("ParakeetEncoder", numbers(input_features=(2, 40, 80)), subsampling_conv_channels=16, conv_kernel_size=5),
    row(
        "DacModel",
        numbers(input_values=(2, 1, 320)),
        encoder_hidden_size=8,
        decoder_hidden_size=32,
        downsampling_ratios=[2, 4],
        upsampling_ratios=[4, 2],
        n_codebooks=2,
        codebook_size=32,
        codebook_dim=8,
        hidden_size=32,
    ),
    row(
        "MimiModel",
        numbers(input_values=(2, 1, 640)),
        slow=True,
        num_filters=8,
        codebook_size=32,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        upsampling_ratios=[4, 2],
        upsample_groups=48,
        num_semantic_quantizers=1,
        num_quantizers=2,
        head_dim=12,
    ),
    row(
        "UnivNetModel",
        numbers(input_features=(2, 10, 16), noise_sequence=(2, 10, 8)),
        model_in_channels=8,
        model_hidden_channels=8,
        num_mel_bins=16,
        resblock_stride_sizes=[2, 2],
        resblock_kernel_sizes=[3, 3],
        resblock_dilation_sizes=[[1, 3], [1, 3]],
        kernel_predictor_hidden_channels=8,
    ),
    row(
        "EncodecModel",
        numbers(input_values=(2, 1, 320)),
        num_filters=8,
        hidden_size=16,
        codebook_size=32,
        codebook_dim=16,
        upsampling_ratios=[4, 2],
        num_lstm_layers=1,
    ),
    row(
        "VitsModel",
        ids(),
        slow=True,
        noise_scale=0.0,
        noise_scale_duration=0.0,
        use_stochastic_duration_prediction=False,
    ),
]

TOGETHER: list[Row] = [
    *(
        row(name, captioned, slow=True, **TOWERS, projection_dim=32)
        for name in ("CLIPModel", "SiglipModel", "BlipModel", "ChineseCLIPModel", "AltCLIPModel", "CLIPSegModel")
    ),
    row("OwlViTModel", captioned, **TOWERS, projection_dim=32),
    row(
        "GroupViTModel",
        captioned,
        slow=True,
        text_config=TOWERS["text_config"],
        vision_config={
            **{**SIZES, **PATCHES, "depths": [1, 1, 1]},
            **{"num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 4]},
        },
        projection_dim=32,
        projection_intermediate_dim=40,
    ),
    row("GitModel", captioned, slow=True, vision_config=TOWERS["vision_config"]),
    row("VisualBertModel", ids(visual_embeds=lambda: torch.randn(2, 5, 20)), visual_embedding_dim=20),
    row(
        "LxmertModel",
        ids(visual_feats=lambda: torch.randn(2, 5, 20), visual_pos=lambda: torch.rand(2, 5, 4)),
        slow=True,
        l_layers=2,
        x_layers=1,
        r_layers=1,
        visual_feat_dim=20,
    ),
]

ROWS: list[Row] = [*IMAGES, *SOUNDS, *TOGETHER]
