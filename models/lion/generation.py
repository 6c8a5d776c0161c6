"""Generation: LION's published settings, the settings that a model's folder states, and the cache of beam search."""

from collections.abc import Mapping
from typing import Any

from torch import LongTensor
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig

from models.lion.configuration import LionConfig

PUBLISHED: Mapping[str, bool | int | float] = {
    "num_beams": 5,
    "do_sample": False,
    "max_new_tokens": 256,
    "min_length": 1,
    "repetition_penalty": 1.5,
    "length_penalty": 1.0,
}
"""The released LION's settings: beam 5, repetition penalty 1.5, up to 256 tokens."""
# Entries of a generation config that are no settings of decoding; ids of tokens belong to the vocabulary.
_NO_SETTING = ("transformers_version", "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


def generation_defaults(config: LionConfig) -> GenerationConfig:
    """Return LION's published settings with the ids of a model's special tokens."""
    return GenerationConfig(
        **PUBLISHED,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )


def decoding_settings(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of decoding that a `generation_config.json`, or `GenerationConfig.to_dict()`, states.

    Token ids, private keys and settings left open (None) are no part of it.
    """
    return {
        name: value
        for name, value in document.items()
        if value is not None and name not in _NO_SETTING and not name.startswith("_")
    }


class BeamCache(EncoderDecoderCache):
    """A KV cache whose encoder part is not reordered when beams are chosen.

    transformers copies both parts into the beams' new order at each step. The beams of a sample have the same encoder
    keys and values, and those are nearly all of the cache: 353 positions against the few that are decoded so far.
    """

    def reorder_cache(self, beam_idx: LongTensor) -> None:
        """Reorder the decoder's self-attention keys and values by beam.

        Args:
            beam_idx: (B · beams,); a beam continues only beams of the same sample.
        """
        self.self_attention_cache.reorder_cache(beam_idx)


def cache_for(arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the further arguments of ``generate`` that make it use a `BeamCache`.

    The cache grows as it is used. The default cache of transformers has as many layers as the encoder, which fails
    where the decoder has another depth.

    Args:
        arguments: of ``generate``. Where they choose a cache, or none, the result is empty.
    """
    arguments = arguments or {}
    chosen = any(arguments.get(name) is not None for name in ("cache_implementation", "past_key_values"))
    if chosen or arguments.get("use_cache") is False:
        return {}
    return {"past_key_values": BeamCache(DynamicCache(), DynamicCache())}
