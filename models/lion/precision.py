"""Precision by parameter group: most of a LION in bfloat16, chosen parts in float32."""

from collections.abc import Mapping

import torch
from torch import nn

from models.lion.groups import all_groups, parameter_group


def set_precision(model: nn.Module, dtype: torch.dtype, groups: Mapping[str, torch.dtype] | None = None) -> nn.Module:
    """Cast ``model`` in place to ``dtype``, and each group of ``groups`` to its own.

    Hidden states are cast at the border between two groups. T5's residual stream keeps T5's precision: adapters and
    router are folded in their own precision and multiply in T5's.

    Args:
        model: A `LionForConditionalGeneration`.
        dtype: Of everything that ``groups`` does not name.
        groups: Precision by group of `models.lion.groups`. None: float32 for the configuration's ``fp32_groups``.

    Raises:
        ValueError: If a group is unknown.
    """
    chosen = dict.fromkeys(model.config.fp32_groups, torch.float32) if groups is None else dict(groups)  # type: ignore[union-attr,arg-type]
    unknown = [group for group in chosen if group not in all_groups()]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no group of a LION; choose of {', '.join(all_groups())}.")
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(chosen.get(parameter_group(name), dtype))
    return model
