"""How LION generates unless told otherwise, and what of it belongs to a model."""

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
# What a file of generation settings holds besides settings of decoding: ids of tokens belong to the vocabulary.
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
    """A KV cache whose encoder part stays where it is when beams are chosen.

    transformers copies both parts into the beams' new order at each step. The beams of a sample have the same encoder
    keys and values, and those are nearly all of the cache: 353 positions beside the few that are written so far.
    """

    def reorder_cache(self, beam_idx: LongTensor) -> None:
        """Move the decoder's own keys and values to where their beams went.

        Args:
            beam_idx: (B · beams,); a beam only ever continues one of its own sample.
        """
        self.self_attention_cache.reorder_cache(beam_idx)


def cache_for(given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What ``generate`` needs beside its own arguments to use a `BeamCache`; nothing where they say otherwise.

    It grows as it is used. transformers' own is sized by the encoder's blocks, which fails where a T5's decoder is of
    another depth.
    """
    given = given or {}
    chosen = any(given.get(name) is not None for name in ("cache_implementation", "past_key_values"))
    if chosen or given.get("use_cache") is False:
        return {}
    return {"past_key_values": BeamCache(DynamicCache(), DynamicCache())}
