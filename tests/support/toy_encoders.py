"""Tiny speech encoders of every family, with random weights."""

from __future__ import annotations

from typing import Any

WAVEFORM: dict[str, Any] = {
    "conv_dim": [8] * 7,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.0,
}
CONVOLVED = WAVEFORM | {"num_conv_pos_embeddings": 8}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
"""How the large models of a family differ from the base ones."""
WHISPER: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "max_source_positions": 200,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "vocab_size": 60,
    "pad_token_id": 0,
}
DEPTH, WIDTH = 3, 16

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "wav2vec2": CONVOLVED,
    "wav2vec2-large": CONVOLVED | LARGE,
    "hubert": CONVOLVED | {"model_type": "hubert"},
    "hubert-large": CONVOLVED | LARGE | {"model_type": "hubert"},
    "wavlm": CONVOLVED | {"model_type": "wavlm", "num_buckets": 32, "max_bucket_distance": 80},
    "wavlm-large": CONVOLVED | LARGE | {"model_type": "wavlm", "num_buckets": 32},
    "data2vec-audio": WAVEFORM | {"model_type": "data2vec-audio", "num_conv_pos_embeddings": 2},
    "whisper": WHISPER | {"model_type": "whisper"},
}
"""Values of `ContextConfig.architecture`, by a name for the test."""
