"""A recipe that trains in seconds, and a table of recordings for it with labels and a split of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RECIPE = """
recipe = "toy"
[clip]
samples = 24000
[augment]
snrs = [20.0]
[context]
name = "whisper_toy"
backbone = "scratch"
unfrozen_layers = 1
layer_weights = true
pooling = "mean+std"
hidden = [8, 8]
[context.architecture]
model_type = "whisper"
d_model = 16
encoder_layers = 2
encoder_attention_heads = 2
encoder_ffn_dim = 24
max_source_positions = 50
[context_stage]
optimizer = "adamw"
learning_rate = 1e-3
epochs = 2
patience = 2
monitor = "accuracy"
[spectrogram]
channels = [4, 4, 4, 4]
layers = 1
feed_forward = 16
[spectrogram_stage]
optimizer = "sgd"
learning_rate = 1e-2
epochs = 1
patience = 1
monitor = "loss"
"""
LABELS = ("low", "high", "none")
PITCH = {"low": 120.0, "high": 900.0, "none": 0.0}


def write_table_corpus(folder: Path) -> Path:
    """Write corpus.csv, eighteen second-long recordings of three classes in three equal parts, and toy.toml."""
    rows, rng = ["path,label,speaker,split"], np.random.default_rng(0)
    for part in ("train", "validation", "test"):
        for number in range(6):
            label = LABELS[number % 3]
            x = 0.2 * np.sin(2 * np.pi * PITCH[label] * np.arange(16_000) / 16_000)
            name = f"{part}-{number}.wav"
            soundfile.write(folder / name, x + 0.01 * rng.standard_normal(16_000), 16_000)
            rows.append(f"{name},{label},speaker of {part},{part}")
    (folder / "corpus.csv").write_text("\n".join(rows) + "\n")
    (folder / "toy.toml").write_text(RECIPE)
    return folder
