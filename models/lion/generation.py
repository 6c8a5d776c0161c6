"""How LION generates unless told otherwise."""

from transformers import GenerationConfig

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
