"""Encoders with decoders of text, and models of time series."""

from __future__ import annotations

import torch

from tests.zoo.transformers_rows import Row, ids, numbers, pair, row
from tests.zoo.zoo import Inputs

PLAIN = """BartModel BartForConditionalGeneration MBartModel M2M100Model MarianModel PegasusModel BlenderbotModel
BlenderbotSmallModel PLBartModel MvpModel"""


def series() -> Inputs:
    """A past, a future, and what is known about both."""
    past = {"past_values": torch.randn(2, 16), "past_time_features": torch.randn(2, 16, 2)}
    future = {"future_values": torch.randn(2, 4), "future_time_features": torch.randn(2, 4, 2)}
    return (), {**past, "past_observed_mask": torch.ones(2, 16), **future}


def steps() -> Inputs:
    """States, actions and rewards of an agent."""
    shapes = {"states": (2, 5, 7), "actions": (2, 5, 3), "rewards": (2, 5, 1), "returns_to_go": (2, 5, 1)}
    times = {"timesteps": torch.arange(5).repeat(2, 1), "attention_mask": torch.ones(2, 5)}
    return (), {**{name: torch.randn(shape) for name, shape in shapes.items()}, **times}


def forecast() -> Inputs:
    return (), {
        "past_values": torch.randn(2, 32),
        "past_values_padding": torch.zeros(2, 32),
        "freq": torch.zeros(2, 1, dtype=torch.long),
    }


PATCHES = {"context_length": 32, "patch_length": 4, "patch_stride": 4, "num_input_channels": 3}
SERIES = {
    **{"prediction_length": 4, "context_length": 10, "lags_sequence": [1, 2, 6], "num_time_features": 2},
    **{"d_model": 16},
}

ROWS: list[Row] = [
    *(row(name, pair()) for name in PLAIN.split()),
    *(row(name, pair(), d_kv=12) for name in ("T5Model", "MT5Model", "UMT5Model")),
    row("T5EncoderModel", ids(), d_kv=12),
    row("T5ForConditionalGeneration", pair(), "gated", d_kv=12, feed_forward_proj="gated-gelu"),
    row("LongT5Model", pair(16, attention_mask=lambda: torch.ones(2, 16, dtype=torch.long)), d_kv=12),
    row(
        "SwitchTransformersModel",
        pair(attention_mask=lambda: torch.ones(2, 9), decoder_attention_mask=lambda: torch.ones(2, 7)),
        d_kv=12,
        num_experts=4,
        expert_capacity=8,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
    ),
    row("PegasusXModel", pair(16), block_size=4, num_global_tokens=2),
    row(
        "ProphetNetModel",
        pair(),
        slow=True,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        hidden_size=48,
        num_buckets=8,
        relative_max_distance=16,
    ),
    row(
        "LEDModel",
        pair(16),
        attention_window=4,
        max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=64,
    ),
    row("NllbMoeModel", pair(), num_experts=4, encoder_sparse_step=2, decoder_sparse_step=2),
    row("BigBirdPegasusModel", pair(), attention_type="original_full"),
    row("FSMTModel", pair(), langs=["en", "de"], src_vocab_size=120, tgt_vocab_size=120),
    row("PatchTSTModel", numbers(past_values=(2, 32, 3)), **PATCHES),
    row("PatchTSMixerModel", numbers(past_values=(2, 32, 3)), **PATCHES, d_model=16, expansion_factor=2),
    row("DecisionTransformerModel", steps, state_dim=7, act_dim=3, max_ep_len=20),
    row("TimesFmModel", forecast, patch_length=8, context_length=32, horizon_length=8, head_dim=12),
    row("TimeSeriesTransformerModel", series, **SERIES),
    row("InformerModel", series, **SERIES, distil=False),
    row("AutoformerModel", series, **SERIES),
]
