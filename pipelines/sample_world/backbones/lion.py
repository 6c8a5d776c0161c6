"""A LION of the tiny backbones: its ViT and T5 know the sample world, everything between them is new."""

import os
from typing import Any

import torch
from transformers import InstructBlipVisionModel, PreTrainedTokenizerFast

from models.lion import LionConfig, LionForConditionalGeneration, LionProcessor
from pipelines.sample_world.backbones.language import SOFT_TOKEN, load_reader

# Boxes repeat their digits, and answers are short: LION's own beam 5 with a repetition penalty of 1.5 would forbid the
# one and wait for the other.
_GENERATION = {"num_beams": 1, "repetition_penalty": 1.0, "max_new_tokens": 40}


def make_lion(vision: str, language: str, tag_encoder: str, target: str, seed: int = 0, **fields: Any) -> str:
    """Write the `from_pretrained` folder of a LION with pre-trained backbones and an untrained rest.

    Args:
        vision: the ViT's folder.
        language: the T5's folder, with its tokenizer.
        tag_encoder: a BERT's folder; its tokenizer also reads the Q-Former's questions.
        target: where to write.
        seed: of the untrained weights.
        fields: of `LionConfig`, over the preset `tiny`; `visual_input="qformer"` is what stage 1 starts from,
            `"aggregator"` stage 2.

    Returns:
        `target`.
    """
    vit = InstructBlipVisionModel.from_pretrained(vision, dtype=torch.float32)
    reader, tokens = load_reader(language)
    question_tokens = PreTrainedTokenizerFast.from_pretrained(tag_encoder)
    config = LionConfig.preset(
        "tiny",
        **{
            "vision_config": vit.config.to_dict(),
            "text_config": reader.t5.config.to_dict(),
            "aggregator_levels": _levels(vit.config.num_hidden_layers),
            "qformer_config": {"vocab_size": len(question_tokens)},
            # BERT's 0.02 is for a width of 768. Here what LION says would start at a twentieth of a word embedding's
            # length, and much of the training would go into making it louder.
            "initializer_range": float(reader.t5.config.d_model) ** -0.5,
            "soft_prompt_token_id": tokens.convert_tokens_to_ids(SOFT_TOKEN),
            **fields,
        },
    )
    torch.manual_seed(seed)
    model = LionForConditionalGeneration(config)
    copy_weights(vit, model.vision_model)
    copy_weights(reader.t5, model.language_model)
    model.generation_config.update(**_GENERATION)
    model.save_pretrained(target)
    processor = LionProcessor.for_config(config, tokens, question_tokens)
    processor.save_pretrained(target)
    return os.path.abspath(target)


def _levels(depth: int) -> list[int]:
    """The last three blocks; LION fuses the last, and two at half and three quarters of a ViT ten times as deep."""
    return list(range(depth - 1, depth - 4, -1))


def copy_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy every weight that the target has; adapters and LION's stand-in for the ViT's last norm are its own.

    Raises:
        ValueError: the target has another weight that the source lacks.
    """
    weights = source.state_dict()
    result = target.load_state_dict({k: v for k, v in weights.items() if "post_layernorm" not in k}, strict=False)
    missing = [name for name in result.missing_keys if ".adapter." not in name]
    if missing or result.unexpected_keys:
        raise ValueError(f"The backbone does not fit: missing {missing[:3]}, unexpected {result.unexpected_keys[:3]}.")
