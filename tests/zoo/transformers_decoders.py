"""Decoders of text: attention of all kinds, mixtures of experts, state spaces, and hybrids of them."""

from __future__ import annotations

from typing import Any

from tests.zoo.transformers_rows import Row, ids, row

PLAIN = """GPT2Model GPT2LMHeadModel GPTNeoXModel GPTBigCodeModel GPTNeoXJapaneseModel OPTModel OPTForCausalLM
BloomModel OpenAIGPTModel LlamaModel LlamaForCausalLM LlamaForSequenceClassification MistralModel Qwen2Model PhiModel
MptModel PersimmonModel Starcoder2Model OlmoModel Olmo2Model Olmo3Model CohereModel Cohere2Model GraniteModel
NemotronModel SmolLM3Model ArceeModel ApertusModel BitNetModel Exaone4Model DiffLlamaModel BioGptModel NanoChatModel"""
WIDE = """Qwen3Model GemmaModel HeliumModel GlmModel Glm4Model Ernie4_5Model HunYuanDenseV1Model DogeModel SeedOssModel
MinistralModel"""

EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2}
LOCAL: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED: dict[str, Any] = {
    **{"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1},
    **{"n_shared_experts": 1, "n_group": 1, "topk_group": 1},
}
LATENT: dict[str, Any] = {
    **{"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12, "v_head_dim": 12},
    **{"num_key_value_heads": 4, "head_dim": 8},
}
SLIDING: dict[str, Any] = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 12}
STATES: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 24, "mamba_d_state": 8, "mamba_chunk_size": 4}
HYBRID = {"layers_block_type": ["mamba", "hybrid"]}

ROWS: list[Row] = [
    *(row(name, ids()) for name in PLAIN.split()),
    *(row(name, ids(), head_dim=12) for name in WIDE.split()),
    row("LlamaForCausalLM", ids(), "tied", tie_word_embeddings=True),
    row("GPTNeoModel", ids(), attention_types=[[["global", "local"], 1]], num_layers=2, window_size=4),
    row("GPTJModel", ids(), rotary_dim=8),
    row("CodeGenModel", ids(), rotary_dim=8, n_ctx=64),
    row("CTRLModel", ids(), dff=80),
    row("XGLMModel", ids(), attention_heads=4),
    row("StableLmModel", ids(), hidden_size=64),
    row("Phi3Model", ids(), original_max_position_embeddings=64),
    row("FalconModel", ids(), "multiquery", new_decoder_architecture=False, multi_query=True),
    row("FalconModel", ids(), "grouped", new_decoder_architecture=True, num_kv_heads=2, alibi=False),
    row("FalconModel", ids(), "alibi", alibi=True),
    row("Gemma2Model", ids(), head_dim=12, sliding_window=4),
    row("Gemma3TextModel", ids(), **SLIDING),
    row(
        "Gemma3nTextModel",
        ids(),
        **SLIDING,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=120,
        laurel_rank=8,
        num_kv_shared_layers=0,
        altup_num_inputs=2,
        intermediate_size=[80, 80],
        activation_sparsity_pattern=[0.5, 0.0],
    ),
    row("VaultGemmaModel", ids(), head_dim=12, sliding_window=4),
    row(
        "ModernBertDecoderModel",
        ids(),
        global_attn_every_n_layers=2,
        local_attention=4,
        cls_token_id=3,
        sep_token_id=4,
    ),
    row("MoshiModel", ids(), head_dim=12),
    # Mixtures of experts.
    row("MixtralModel", ids(), **LOCAL),
    row("MixtralForCausalLM", ids(), **LOCAL),
    row("PhimoeModel", ids(), **LOCAL),
    row("OlmoeModel", ids(), **EXPERTS, intermediate_size=24),
    row("FlexOlmoModel", ids(), **EXPERTS),
    row("Qwen2MoeModel", ids(), **EXPERTS, moe_intermediate_size=24, shared_expert_intermediate_size=40),
    row("Qwen3MoeModel", ids(), **EXPERTS, moe_intermediate_size=24, head_dim=12),
    row("GraniteMoeModel", ids(), **LOCAL),
    row("GraniteMoeSharedModel", ids(), **LOCAL, shared_intermediate_size=40),
    row("GptOssModel", ids(), **LOCAL, head_dim=12, sliding_window=4),
    row("HunYuanMoEV1Model", ids(), head_dim=12, num_experts=4, moe_topk=2),
    row("JetMoeModel", ids(), **LOCAL, kv_channels=12),
    row(
        "Ernie4_5_MoeModel",
        ids(),
        moe_num_experts=4,
        moe_k=2,
        moe_intermediate_size=24,
        moe_layer_start_index=1,
    ),
    row("Glm4MoeModel", ids(), **ROUTED, head_dim=12),
    row("Dots1Model", ids(), **ROUTED, head_dim=12),
    row("AfmoeModel", ids(), **EXPERTS, **SLIDING, moe_intermediate_size=24, num_dense_layers=1),
    row(
        "Llama4TextModel",
        ids(),
        head_dim=12,
        num_local_experts=4,
        intermediate_size_mlp=80,
        moe_layers=[1],
        attention_chunk_size=8,
    ),
    # Latent attention.
    row("DeepseekV2Model", ids(), **{**LATENT, **ROUTED}),
    row("DeepseekV3Model", ids(), **{**LATENT, **ROUTED, "n_group": 2}),
    row("YoutuModel", ids(), **{key: each for key, each in LATENT.items() if key != "head_dim"}),
    # State spaces and hybrids.
    row("MambaModel", ids(), state_size=8, time_step_rank=4),
    row("FalconMambaModel", ids(), state_size=8, time_step_rank=4),
    row("Mamba2Model", ids(), num_heads=4, head_dim=24, state_size=8, n_groups=2, chunk_size=4),
    row("BambaModel", ids(), attn_layer_indices=[1], **STATES),
    row(
        "FalconH1Model",
        ids(),
        slow=True,
        mamba_d_ssm=32,
        mamba_n_groups=1,
        **{**STATES, "mamba_d_head": 8},
    ),
    row(
        "GraniteMoeHybridModel",
        ids(),
        **LOCAL,
        **STATES,
        shared_intermediate_size=40,
        layer_types=["mamba", "attention"],
    ),
    row(
        "NemotronHModel",
        ids(),
        layers_block_type=["mamba", "attention"],
        mamba_num_heads=4,
        mamba_head_dim=24,
        ssm_state_size=8,
        n_groups=2,
        chunk_size=4,
        head_dim=12,
    ),
    row(
        "JambaModel",
        ids(),
        **EXPERTS,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_d_state=8,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    row(
        "ZambaModel",
        ids(),
        slow=True,
        num_hidden_layers=4,  # its hybrid layers share their weights, and one alone has nothing to share with
        layers_block_type=["mamba", "hybrid"] * 2,
        mamba_d_state=8,
        mamba_dt_rank=4,
        n_mamba_heads=2,
        use_mamba_kernels=False,
        attention_head_dim=24,
    ),
    row(
        "Zamba2Model",
        ids(),
        **HYBRID,
        mamba_d_state=8,
        n_mamba_heads=4,
        mamba_headdim=24,
        mamba_ngroups=1,
        chunk_size=4,
        use_mamba_kernels=False,
        num_mem_blocks=1,
    ),
    row("Lfm2Model", ids(), layer_types=["conv", "full_attention"], block_multiple_of=8, block_ff_dim=80),
    row(
        "Lfm2MoeModel",
        ids(),
        **EXPERTS,
        layer_types=["conv", "full_attention"],
        moe_intermediate_size=24,
        num_dense_layers=1,
    ),
    row(
        "RecurrentGemmaModel",
        ids(),
        lru_width=48,
        attention_window_size=16,
        block_types=["recurrent", "attention"],
        head_dim=12,
    ),
    row("RwkvModel", ids(), attention_hidden_size=48, context_length=64),
    row(
        "MiniMaxModel",
        ids(),
        **LOCAL,
        head_dim=12,
        block_size=4,
        layer_types=["linear_attention", "full_attention"],
    ),
    row("xLSTMModel", ids(), slow=True, num_heads=2, chunk_size=4, num_blocks=2, embedding_dim=48, qk_dim_factor=0.5),
    row(
        "Qwen3NextModel",
        ids(),
        slow=True,
        **EXPERTS,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=40,
        head_dim=16,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
    ),
    Row(
        "LongcatFlashModel",
        ids(),
        {"num_layers": 1, "num_hidden_layers": 2, "ffn_hidden_size": 80, "expert_ffn_hidden_size": 24, **LATENT}
        | {"n_routed_experts": 4, "zero_expert_num": 2, "moe_topk": 2},
    ),
]
