"""A small Whisper encoder that classifies, as the transformers library has it, for clips of one second."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import WhisperConfig, WhisperForAudioClassification


def build(labels: int = 6, words: Sequence[str] = ()) -> WhisperForAudioClassification:
    """An untrained classifier of input_features (B, 80, 100), whose configuration names the words where they are given."""
    names = list(words) or [f"LABEL_{number}" for number in range(labels)]
    config = WhisperConfig(
        num_mel_bins=80,
        max_source_positions=50,
        d_model=128,
        encoder_layers=4,
        encoder_attention_heads=4,
        encoder_ffn_dim=512,
        dropout=0.1,
        classifier_proj_size=128,
        use_weighted_layer_sum=False,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    return WhisperForAudioClassification(config)
