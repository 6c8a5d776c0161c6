"""The merge of stages 1 and 2, each trained alone, into the model that stage 3 trains on both levels."""

import copy
from typing import Any

import torch
from torch import Tensor

from models.lion.adapters import LionAdapter
from models.lion.configuration import LEVELS
from models.lion.generation import decoding_settings
from models.lion.groups import FOUNDATIONS, parameter_group
from models.lion.modeling import LionForConditionalGeneration
from models.lion.prompts import prompt_groups

# The stage that each group comes from. The prompt's parts come from stage 1 where both stages have them, because
# stage 1 trains them on the broader data.
STAGE1_GROUPS = ("q_former", "query_tokens", "t5_projection", "ln_vision", "image_adapter")
STAGE2_GROUPS = ("vision_aggregator", "region_adapter")


def merge_stages(
    stage1: LionForConditionalGeneration,
    stage2: LionForConditionalGeneration,
    into: LionForConditionalGeneration,
) -> LionForConditionalGeneration:
    """Put both stages' trained parts into ``into``, a LION with both paths and a router.

    The image adapter is stage 1's and the region adapter stage 2's; Q-Former, queries, projection and ln_vision are
    stage 1's, the aggregator with its MLP and LayerNorm stage 2's. The router starts afresh, so that an image-level
    sample takes stage 1's adapters alone and a region-level sample stage 2's. ViT, T5 and tag encoder come from
    stage 1 and must be the same in both. The generation settings are stage 1's, as the processor is;
    `differing_settings` names those that stage 2 has otherwise.

    Args:
        stage1: Has a Q-Former and an image adapter.
        stage2: Has an aggregator and a region adapter.
        into: Has all of it; changed in place.

    Returns:
        ``into``.

    Raises:
        ValueError: If a part is missing or has another shape, or the frozen parts of the stages differ; nothing is
            changed then.
    """
    if tuple(into.config.adapters) != LEVELS:
        raise ValueError("The merged model needs both adapters and a router: configure adapters=['region', 'image'].")
    first, second = _parameters(stage1), _parameters(stage2)
    _check_same_foundations(first, second)
    merged: dict[str, Tensor] = {}
    for name, parameter in into.named_parameters():
        group = parameter_group(name)
        if group == "router":
            continue
        if group in STAGE2_GROUPS:
            source, origin = second, "stage 2"
        elif group in prompt_groups() or group in FOUNDATIONS:
            source, origin = (first if name in first else second), "either stage"
        else:
            source, origin = first, "stage 1"
        if name not in source:
            raise ValueError(f"{name} of the merged model is not in {origin}.")
        if source[name].shape != parameter.shape:
            theirs, ours = tuple(source[name].shape), tuple(parameter.shape)
            raise ValueError(f"{name} is {theirs} in the stage and {ours} in the merged model.")
        merged[name] = source[name]
    with torch.no_grad():
        for name, tensor in merged.items():
            into.get_parameter(name).copy_(tensor)
        for module in into.modules():
            if isinstance(module, LionAdapter):
                module.reset_router()
    into.generation_config = copy.deepcopy(stage1.generation_config)
    return into


def differing_settings(
    stage1: LionForConditionalGeneration, stage2: LionForConditionalGeneration
) -> dict[str, tuple[Any, Any]]:
    """Return the settings of decoding in which two models differ, by name: (stage 1's, stage 2's); None: not set."""
    first, second = (decoding_settings(model.generation_config.to_dict()) for model in (stage1, stage2))
    names = sorted({*first, *second})
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _parameters(model: LionForConditionalGeneration) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _check_same_foundations(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name in first.keys() & second.keys():
        if parameter_group(name) in FOUNDATIONS and not torch.equal(first[name], second[name]):
            raise ValueError(
                f"{name} is frozen, yet it differs between the stages: they started from different models."
            )
