"""How LION generates unless told otherwise."""

from typing import Any

from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig, T5Config

from models.lion.configuration import LionConfig


def generation_defaults(config: LionConfig) -> GenerationConfig:
    """LION's published way to generate: beam 5, repetition penalty 1.5, up to 256 tokens."""
    return GenerationConfig(
        num_beams=5,
        do_sample=False,
        max_new_tokens=256,
        min_length=1,
        repetition_penalty=1.5,
        length_penalty=1.0,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )


def cache_for(config: T5Config) -> dict[str, Any]:
    """What ``generate`` needs beside its own arguments where a T5's decoder is not as deep as its encoder.

    transformers sizes the KV cache by the encoder's blocks (``num_layers``); one without a size grows as it is used.
    """
    if config.num_decoder_layers == config.num_layers:
        return {}
    return {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())}
