"""Encoders of text."""

from __future__ import annotations

import torch

from tests.zoo.transformers_rows import Row, ids, numbers, row, tokens


def boxes() -> torch.Tensor:
    """Corners of words on a page."""
    return torch.randint(0, 500, (2, 9, 4)).sort(-1).values


PLAIN = """BertModel BertForMaskedLM BertGenerationEncoder CamembertModel Data2VecTextModel DebertaModel DebertaV2Model
ErnieModel EuroBertModel FNetModel IBertModel MegatronBertModel MPNetModel NomicBertModel RobertaModel
RobertaPreLayerNormModel SplinterModel XLMRobertaModel XLMRobertaXLModel YosoModel JinaEmbeddingsV3Model FlavaTextModel
TapasModel BertForSequenceClassification RobertaForTokenClassification"""

ROWS: list[Row] = [
    *(row(name, ids()) for name in PLAIN.split()),
    row("AlbertModel", ids(), embedding_size=24),
    row("ConvBertModel", ids(), embedding_size=24),
    row("DistilBertModel", ids(), dim=48, hidden_dim=80),
    row("ElectraModel", ids(), embedding_size=24),
    row("EsmModel", ids(), mask_token_id=3),
    row("MobileBertModel", ids(), embedding_size=24, intra_bottleneck_size=24, num_feedforward_networks=2),
    row("ModernBertModel", ids(), global_attn_every_n_layers=2, local_attention=4, cls_token_id=3, sep_token_id=4),
    row("NystromformerModel", ids(12), num_landmarks=12, segment_means_seq_len=12, conv_kernel_size=3),
    row("RemBertModel", ids(), input_embedding_size=24, output_embedding_size=24),
    row("RoFormerModel", ids(), embedding_size=24),
    row("XmodModel", ids(), languages=["en_XX"], default_language="en_XX"),
    row("LayoutLMModel", ids(bbox=boxes)),
    row("LiltModel", ids(bbox=boxes), channel_shrink_ratio=2),
    row("MraModel", ids(64), max_position_embeddings=66),
    row("SqueezeBertModel", ids(), embedding_size=48),
    row(
        "RoCBertModel",
        ids(high=50, input_shape_ids=lambda: tokens(high=50), input_pronunciation_ids=lambda: tokens(high=50)),
        pronunciation_vocab_size=50,
        shape_vocab_size=50,
        pronunciation_embed_dim=16,
        shape_embed_dim=16,
    ),
    row("DebertaModel", ids(), "relative", relative_attention=True, pos_att_type=["c2p", "p2c"]),
    row(
        "DebertaV2Model",
        ids(),
        "relative",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        conv_kernel_size=3,
    ),
    row("BigBirdModel", ids(), "full", attention_type="original_full"),
    row("BigBirdModel", ids(64), "sparse", slow=True, attention_type="block_sparse", block_size=4, num_random_blocks=2),
    row("LongformerModel", ids(16), attention_window=4),
    row("FlaubertModel", ids(), n_words=120),
    row("XLMModel", ids(), n_words=120),
    row("XLNetModel", ids(), d_inner=80),
    row("FunnelModel", ids(), block_sizes=[1, 1], d_inner=80, d_head=12),
    row("LukeModel", ids(), entity_vocab_size=20, entity_emb_size=24),
    row("MarkupLMModel", ids(), max_depth=4, xpath_unit_hidden_size=8),
    row(
        "CanineModel",
        ids(32),
        downsampling_rate=4,
        upsampling_kernel_size=4,
        num_hash_functions=2,
        num_hash_buckets=64,
        local_transformer_stride=16,
    ),
    row(
        "PerceiverModel",
        numbers(inputs=(2, 9, 20)),
        d_latents=32,
        d_model=20,
        num_latents=6,
        num_blocks=1,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=4,
    ),
    row(
        "ReformerModel",
        ids(16),
        attn_layers=["local", "local"],
        attention_head_size=12,
        feed_forward_size=80,
        axial_pos_embds=False,
        local_attn_chunk_length=4,
    ),
]
