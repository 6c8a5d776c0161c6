"""Build a LION from the tiny backbones: ViT and T5 are pre-trained, all other parts are untrained."""

import os
from typing import Any

import torch
from transformers import InstructBlipVisionModel, PreTrainedTokenizerFast

from models.lion import LionConfig, LionForConditionalGeneration, LionProcessor
from pipelines.sample_world.backbones.language import SOFT_TOKEN, load_reader

# LION's own settings are beam 5 with a repetition penalty of 1.5. The penalty would suppress the repeated digits of
# boxes, and beams make the short answers slower without a benefit.
_GENERATION = {"num_beams": 1, "repetition_penalty": 1.0, "max_new_tokens": 40}


def make_lion(vision: str, language: str, tag_encoder: str, target: str, seed: int = 0, **fields: Any) -> str:
    """Write a LION with pre-trained backbones as a `from_pretrained` folder.

    Args:
        vision: folder of the ViT.
        language: folder of the T5 and its tokenizer.
        tag_encoder: folder of a BERT, whose tokenizer is used for the Q-Former's questions.
        target: folder to write.
        seed: seed of the untrained weights.
        fields: fields of `LionConfig` that differ from the preset `tiny`. Stage 1 starts from
            `visual_input="qformer"`, stage 2 from `"aggregator"`.

    Returns:
        The absolute path of `target`.
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
            # BERT's 0.02 is for a width of 768. Here it would make LION's visual tokens 20 times shorter than a word
            # embedding, and training would spend many steps on enlarging them.
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
    """Return the blocks that LION fuses: the last three.

    In its released ViT, which is ten times as deep, they are the last block and those at half and three quarters.
    """
    return list(range(depth - 1, depth - 4, -1))


def copy_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy the weights of a backbone into LION.

    Not copied are adapters, which the backbone lacks, and its last norm, which LION replaces.

    Raises:
        ValueError: the source lacks another weight of the target, or has one that the target lacks.
    """
    weights = source.state_dict()
    result = target.load_state_dict({k: v for k, v in weights.items() if "post_layernorm" not in k}, strict=False)
    missing = [name for name in result.missing_keys if ".adapter." not in name]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"The backbone's weights do not fit LION: missing {missing[:3]}, unexpected {result.unexpected_keys[:3]}."
        )
