"""The loss that RAM is trained by."""

import torch
from torch import Tensor


def asymmetric_loss(
    logits: Tensor, labels: Tensor, gamma_neg: float = 7.0, gamma_pos: float = 0.0, clip: float = 0.05
) -> Tensor:
    """Asymmetric loss for multi-label classification (Ben-Baruch et al., ICCV 2021, eq. 4 to 7).

    With p = sigmoid(logit) and p_m = max(p − clip, 0), a present tag costs −(1 − p)^γ+ · log(p) and an absent one
    −p_m^γ− · log(1 − p_m), so that the thousands of absent tags do not drown the few present ones.

    Args:
        logits: (B, n_tags), any float type; computed in float32.
        labels: 1 where the tag is present, else 0; same shape, any type.
        gamma_neg, gamma_pos: Focusing of absent and of present tags.
        clip: Probability below which an absent tag costs nothing.

    Returns:
        A scalar: summed over tags as released, averaged over the batch so that it does not grow with it.
    """
    if labels.shape != logits.shape:
        raise ValueError(f"labels are {tuple(labels.shape)} and logits {tuple(logits.shape)}; one label per tag.")
    present = labels.to(torch.float32)
    p = torch.sigmoid(logits.float())
    p_shifted = (p - clip).clamp_min(0.0)
    # The floor keeps the logarithm finite where a probability rounds to 0 or 1.
    positive = (1 - p) ** gamma_pos * torch.log(p.clamp_min(1e-8))
    negative = p_shifted**gamma_neg * torch.log((1 - p_shifted).clamp_min(1e-8))
    return -(present * positive + (1 - present) * negative).sum(dim=-1).mean()
