"""Diffusion models and autoencoders of the diffusers library at small sizes, and small models written by hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.zoo import handmade, vision_operators
from tests.zoo.zoo import Inputs, Model

vision_operators.load()  # diffusers imports transformers, and that torchvision

Shape = tuple[int, ...]
TIMES = {"timestep": lambda: torch.tensor([3.0, 7.0])}
GROUPS: dict[str, Any] = {"norm_num_groups": 4, "layers_per_block": 1, "block_out_channels": (16, 32)}
CODER: dict[str, Any] = {
    **GROUPS,
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
    "latent_channels": 4,
}
CROSSED: dict[str, Any] = {**GROUPS, "attention_head_dim": 4, "cross_attention_dim": 20}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "attention_head_dim": 8}
PATCHES: dict[str, Any] = {**HEADS, "sample_size": 8, "patch_size": 2, "in_channels": 4}
PROMPT: Shape = (2, 5, 20)


def blocks(kind: str, *, crossed: bool = True) -> dict[str, Any]:
    """Down and up blocks of a network over two or three axes, the outer ones with cross-attention."""
    outer = "CrossAttn" if crossed else "Attn"
    down, up = (f"{outer}DownBlock{kind}", f"DownBlock{kind}"), (f"UpBlock{kind}", f"{outer}UpBlock{kind}")
    return {"down_block_types": down, "up_block_types": up}


def given(*shapes: Shape, **named: Shape | Callable[[], Any]) -> Callable[[], Inputs]:
    """Normally distributed inputs by place and by name; what is callable makes its own."""

    def inputs() -> Inputs:
        values = {name: each() if callable(each) else torch.randn(each) for name, each in named.items()}
        return tuple(torch.randn(shape) for shape in shapes), {**values, "return_dict": False}

    return inputs


def ones(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.ones(shape)


def _diffusers(name: str, config: dict[str, Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        made: nn.Module = getattr(importlib.import_module("diffusers"), name)(**config)
        return made

    return build


DIFFUSERS: dict[str, tuple[dict[str, Any], Callable[[], Inputs]]] = {
    "UNet2DModel": (
        {**GROUPS, "sample_size": 16, "attention_head_dim": 8, **blocks("2D", crossed=False)},
        given((2, 3, 16, 16), **TIMES),
    ),
    "UNet2DConditionModel": (
        {**CROSSED, "sample_size": 16, **blocks("2D")},
        given((2, 4, 16, 16), **TIMES, encoder_hidden_states=PROMPT),
    ),
    "UNet3DConditionModel": (
        {**CROSSED, "sample_size": 8, **blocks("3D")},
        given((2, 4, 3, 8, 8), **TIMES, encoder_hidden_states=PROMPT),
    ),
    "ControlNetModel": (
        {
            **CROSSED,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "conditioning_embedding_out_channels": (8, 16),
        },
        given((2, 4, 16, 16), **TIMES, encoder_hidden_states=PROMPT, controlnet_cond=(2, 3, 32, 32)),
    ),
    "UNet1DModel": (
        {
            **{"block_out_channels": (8, 16), "layers_per_block": 1, "sample_size": 32, "in_channels": 2},
            **{"out_channels": 2, "extra_in_channels": 0, "time_embedding_type": "positional", "norm_num_groups": 4},
            **{"down_block_types": ("DownResnetBlock1D", "DownResnetBlock1D"), "act_fn": "swish"},
            **{"up_block_types": ("UpResnetBlock1D",), "mid_block_type": "MidResTemporalBlock1D"},
            **{"out_block_type": "OutConv1DBlock", "use_timestep_embedding": True, "flip_sin_to_cos": True},
        },
        given((2, 2, 32), **TIMES),
    ),
    "AutoencoderKL": (CODER, given((2, 3, 16, 16))),
    "VQModel": ({**CODER, "num_vq_embeddings": 16}, given((2, 3, 16, 16))),
    "AutoencoderKLTemporalDecoder": (
        {
            **{"down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"), "block_out_channels": (32, 64)},
            **{"layers_per_block": 1, "latent_channels": 4},
        },
        given((2, 3, 16, 16), num_frames=lambda: 2),
    ),
    "AutoencoderTiny": (
        {
            **{"encoder_block_out_channels": (16, 16), "decoder_block_out_channels": (16, 16)},
            **{"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)},
        },
        given((2, 3, 16, 16)),
    ),
    "AutoencoderDC": (
        {
            **{f"{side}_block_types": ("ResBlock", "EfficientViTBlock") for side in ("encoder", "decoder")},
            **{f"{side}_block_out_channels": (8, 16) for side in ("encoder", "decoder")},
            **{f"{side}_layers_per_block": (1, 1) for side in ("encoder", "decoder")},
            **{f"{side}_qkv_multiscales": ((), (5,)) for side in ("encoder", "decoder")},
            **{"latent_channels": 4, "attention_head_dim": 8},
        },
        given((2, 3, 16, 16)),
    ),
    "AutoencoderOobleck": (
        {
            **{"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "decoder_channels": 8},
            **{"decoder_input_channels": 4, "audio_channels": 2, "channel_multiples": [1, 2]},
        },
        given((2, 2, 64)),
    ),
    "DiTTransformer2DModel": (
        {**PATCHES, "num_layers": 2, "out_channels": 8, "num_embeds_ada_norm": 20, "norm_num_groups": 4},
        given((2, 4, 8, 8), **TIMES, class_labels=lambda: torch.tensor([1, 2])),
    ),
    "PixArtTransformer2DModel": (
        {**PATCHES, "num_layers": 1, "out_channels": 8, "cross_attention_dim": 32, "caption_channels": 20},
        given(
            (2, 4, 8, 8),
            **TIMES,
            encoder_hidden_states=PROMPT,
            added_cond_kwargs=lambda: {"resolution": None, "aspect_ratio": None},
        ),
    ),
    "SD3Transformer2DModel": (
        {
            **{**PATCHES, "num_layers": 2, "joint_attention_dim": 20, "caption_projection_dim": 32},
            **{"pooled_projection_dim": 12, "out_channels": 4, "pos_embed_max_size": 8},
        },
        given((2, 4, 8, 8), **TIMES, encoder_hidden_states=PROMPT, pooled_projections=(2, 12)),
    ),
    "FluxTransformer2DModel": (
        {
            **{"patch_size": 1, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16},
            **{"num_attention_heads": 2, "joint_attention_dim": 20, "pooled_projection_dim": 12},
            **{"axes_dims_rope": (4, 4, 8)},
        },
        given(
            (2, 16, 4),
            **TIMES,
            encoder_hidden_states=PROMPT,
            pooled_projections=(2, 12),
            img_ids=(16, 3),
            txt_ids=(5, 3),
        ),
    ),
    "AuraFlowTransformer2DModel": (
        {
            **{**PATCHES, "num_mmdit_layers": 1, "num_single_dit_layers": 1, "joint_attention_dim": 20},
            **{"caption_projection_dim": 32, "out_channels": 4, "pos_embed_max_size": 16},
        },
        given((2, 4, 8, 8), **TIMES, encoder_hidden_states=PROMPT),
    ),
    "SanaTransformer2DModel": (
        {
            **{**HEADS, "in_channels": 4, "out_channels": 4, "num_layers": 1, "sample_size": 8},
            **{"num_cross_attention_heads": 4, "cross_attention_head_dim": 8, "cross_attention_dim": 32},
            **{"caption_channels": 20},
        },
        given((2, 4, 8, 8), encoder_hidden_states=PROMPT, **TIMES),
    ),
    "HunyuanDiT2DModel": (
        {
            **{**PATCHES, "hidden_size": 32, "num_layers": 2, "mlp_ratio": 2.0, "cross_attention_dim": 20},
            **{"cross_attention_dim_t5": 24, "pooled_projection_dim": 16, "text_len": 5, "text_len_t5": 6},
        },
        given(
            (2, 4, 8, 8),
            **TIMES,
            encoder_hidden_states=PROMPT,
            text_embedding_mask=ones(2, 5),
            encoder_hidden_states_t5=(2, 6, 24),
            text_embedding_mask_t5=ones(2, 6),
            image_meta_size=ones(2, 6),
            style=lambda: torch.tensor([0, 0]),
            image_rotary_emb=lambda: (torch.randn(16, 8), torch.randn(16, 8)),
        ),
    ),
    "Transformer2DModel": (
        {**HEADS, "in_channels": 16, "num_layers": 1, "norm_num_groups": 4, "cross_attention_dim": 20},
        given((2, 16, 8, 8), encoder_hidden_states=PROMPT),
    ),
    "PriorTransformer": (
        {**HEADS, "num_layers": 1, "embedding_dim": 12, "num_embeddings": 5, "additional_embeddings": 4},
        given((2, 12), **TIMES, proj_embedding=(2, 12), encoder_hidden_states=(2, 5, 12)),
    ),
    "StableAudioDiTModel": (
        {
            **{**HEADS, "sample_size": 16, "in_channels": 4, "num_layers": 1, "num_key_value_attention_heads": 2},
            **{"out_channels": 4, "cross_attention_dim": 20, "time_proj_dim": 16, "global_states_input_dim": 12},
            **{"cross_attention_input_dim": 12},
        },
        given((2, 4, 16), **TIMES, encoder_hidden_states=(2, 5, 12), global_hidden_states=(2, 1, 12)),
    ),
    "LatteTransformer3DModel": (
        {
            **{**PATCHES, "num_layers": 1, "caption_channels": 20, "cross_attention_dim": 32, "out_channels": 8},
            **{"video_length": 2, "activation_fn": "gelu-approximate", "norm_type": "ada_norm_single"},
            **{"norm_elementwise_affine": False},
        },
        given((2, 4, 2, 8, 8), **TIMES, encoder_hidden_states=PROMPT),
    ),
    "CogVideoXTransformer3DModel": (
        {
            **{"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4},
            **{"time_embed_dim": 8, "text_embed_dim": 20, "num_layers": 1, "sample_width": 8, "sample_height": 8},
            **{"sample_frames": 5, "patch_size": 2, "max_text_seq_length": 5},
        },
        given((2, 2, 4, 8, 8), encoder_hidden_states=PROMPT, **TIMES),
    ),
    "WanTransformer3DModel": (
        {
            **{"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4},
            **{"text_dim": 20, "freq_dim": 16, "ffn_dim": 48, "num_layers": 1, "rope_max_seq_len": 32},
        },
        given((2, 4, 2, 8, 8), **TIMES, encoder_hidden_states=PROMPT),
    ),
    "LTXVideoTransformer3DModel": (
        {**HEADS, "in_channels": 8, "out_channels": 8, "cross_attention_dim": 32, "num_layers": 1}
        | {"caption_channels": 20},
        given(
            (2, 16, 8),
            encoder_hidden_states=PROMPT,
            **TIMES,
            encoder_attention_mask=ones(2, 5),
            num_frames=lambda: 1,
            height=lambda: 4,
            width=lambda: 4,
        ),
    ),
    "UVit2DModel": (
        {
            **{"hidden_size": 32, "cond_embed_dim": 16, "micro_cond_encode_dim": 8, "micro_cond_embed_dim": 40},
            **{"encoder_hidden_size": 20, "vocab_size": 40, "codebook_size": 32, "in_channels": 32},
            **{"block_out_channels": 32, "num_res_blocks": 1, "num_hidden_layers": 1, "num_attention_heads": 4},
            **{"block_num_heads": 4, "intermediate_size": 48, "sample_size": 8},
        },
        lambda: ((torch.randint(0, 30, (2, 8, 8)), torch.randn(PROMPT), torch.randn(2, 16), torch.ones(2, 5)), {}),
    ),
}


def letters(*shape: int, high: int = 12) -> torch.Tensor:
    """Symbols of an alphabet."""
    return torch.randint(0, high, shape)


HANDMADE: dict[type[nn.Module], Callable[[], tuple[Any, ...]]] = {
    handmade.Conformer: lambda: (torch.randn(2, 30, 20),),
    handmade.DenseGraphNetwork: lambda: (torch.randn(2, 7, 6), torch.rand(2, 7, 7)),
    handmade.MessagePassing: lambda: (torch.randn(9, 6), letters(2, 14, high=9), torch.randn(14, 3)),
    handmade.GraphAttention: lambda: (torch.randn(9, 6), letters(2, 14, high=9)),
    handmade.Transducer: lambda: (torch.randn(2, 10, 20), letters(2, 5)),
    handmade.AttentionSeq2Seq: lambda: (letters(2, 6, high=30),),
    handmade.CRNN: lambda: (torch.randn(2, 1, 16, 24),),
    handmade.SelectiveScan: lambda: (torch.randn(2, 6, 24),),
    handmade.MixtureOfExperts: lambda: (torch.randn(2, 6, 10),),
    handmade.PointNet: lambda: (torch.randn(2, 20, 3),),
    handmade.MLPMixer: lambda: (torch.randn(2, 3, 32, 32),),
    handmade.WaveNet: lambda: (letters(2, 20),),
    handmade.RecommendationModel: lambda: (torch.randn(2, 13), letters(2, 3, high=50)),
    handmade.RadianceField: lambda: (torch.randn(5, 3), torch.randn(5, 3)),
    handmade.PlainTransformer: lambda: (letters(2, 6, high=30), letters(2, 5, high=30)),
    handmade.UNet: lambda: (torch.randn(2, 3, 16, 16),),
    handmade.VariationalAutoencoder: lambda: (torch.randn(2, 1, 28, 28),),
    handmade.NeuralODE: lambda: (torch.randn(4, 6),),
    handmade.HyperNetwork: lambda: (torch.randn(3, 5), torch.randn(3, 8)),
    handmade.TemporalNetwork: lambda: (torch.randn(2, 5, 12),),
    handmade.CellLoop: lambda: (torch.randn(2, 5, 6),),
}


def models() -> list[Model]:
    """Models of diffusers and models written by hand; the largest take longer than a few seconds."""
    slow = {"UNet3DConditionModel", "UNet2DConditionModel", "FluxTransformer2DModel", "UVit2DModel"}
    found = [
        Model(name, "other", name, _diffusers(name, config), inputs, cheap=name not in slow)
        for name, (config, inputs) in DIFFUSERS.items()
    ]
    for kind, inputs in HANDMADE.items():
        found.append(Model(kind.__name__, "other", kind.__name__, kind, _positional(inputs), cheap=True))
    return found


def _positional(make: Callable[[], tuple[Any, ...]]) -> Callable[[], Inputs]:
    return lambda: (make(), {})
