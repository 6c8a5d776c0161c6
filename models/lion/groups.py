"""Named groups of LION's parameters, by which a stage trains, freezes or sets a learning rate."""

import re
from collections.abc import Iterable

from torch import nn

from models.lion.prompts import BUILT_IN, prompt_groups

# Frozen in every published stage; trained only to make a small LION from random weights.
FOUNDATIONS: tuple[str, ...] = ("vision_model", "language_model", "tag_encoder")

_PATTERNS: dict[str, str] = {
    "router": r"language_model\..*\.adapter\.\w+_router",
    "image_adapter": r"language_model\..*\.adapter\.image_\w+",
    "region_adapter": r"language_model\..*\.adapter\.region_\w+",
    "vision_model": r"vision_model\..+",
    "language_model": r"language_model\..+",
    "tag_encoder": r"tag_encoder\..+",
    "q_former": r"qformer\..+",
    "query_tokens": r"query_tokens",
    "t5_projection": r"t5_projection\..+",
    "ln_vision": r"ln_vision\..+",
    "vision_aggregator": r"(vision_aggregator|ln_aggregator|aggregator_projection)\..+",
}
# With the groups of the built-in prompts; `all_groups` and `trainable_groups` have those of every registered one.
GROUPS: tuple[str, ...] = (*_PATTERNS, *prompt_groups(BUILT_IN))
TRAINABLE: tuple[str, ...] = tuple(group for group in GROUPS if group not in FOUNDATIONS)


def all_groups() -> tuple[str, ...]:
    """Return the names of all parameter groups, those of every registered prompt included."""
    return (*_PATTERNS, *prompt_groups())


def trainable_groups() -> tuple[str, ...]:
    """Return the names of `all_groups` that a stage may train."""
    return tuple(group for group in all_groups() if group not in FOUNDATIONS)


def parameter_group(name: str) -> str:
    """Return the group of `all_groups` that the parameter ``name`` of a LION belongs to.

    Names come as `named_parameters` gives them; a ``module.`` that an engine put before them is ignored.

    Raises:
        ValueError: If it belongs to none, so that no parameter is ever left out silently.
    """
    bare = name.removeprefix("module.")
    for group, pattern in (_PATTERNS | prompt_groups()).items():
        if re.fullmatch(pattern, bare):
            return group
    raise ValueError(f"{name!r} is no parameter of a LION; the groups are {', '.join(all_groups())}.")


def set_trainable(model: nn.Module, groups: Iterable[str], allow_foundations: bool = False) -> list[str]:
    """Train exactly ``groups`` of ``model`` and freeze the rest; frozen modules stay in eval mode under ``train()``.

    Args:
        model: A `LionForConditionalGeneration`.
        groups: Names of `trainable_groups`.
        allow_foundations: Also accept ViT, T5 and tag encoder, to train a small LION without released weights.

    Returns:
        The names of the parameters that train now.

    Raises:
        ValueError: If a group is unknown, frozen by design, or has no parameter in this model; nothing is changed.
    """
    requested = list(groups)
    allowed = all_groups() if allow_foundations else trainable_groups()
    if not requested:
        raise ValueError(f"No group was named, so nothing would train; choose of {', '.join(trainable_groups())}.")
    present = {parameter_group(name) for name, _ in model.named_parameters()}
    for group in requested:
        if group not in allowed:
            why = "stays frozen in LION" if group in FOUNDATIONS else "is no group of a LION"
            raise ValueError(f"{group!r} {why}; choose of {', '.join(allowed)}.")
        if group not in present:
            here = ", ".join(g for g in allowed if g in present)
            raise ValueError(f"This LION has no {group!r} (its configuration leaves it out); it has {here}.")
    trained = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter_group(name) in requested)
        if parameter.requires_grad:
            trained.append(name)
    model.train(model.training)
    return trained
