"""The training loss of RAM."""

import torch
from torch import Tensor


def asymmetric_loss(
    logits: Tensor, labels: Tensor, gamma_neg: float = 7.0, gamma_pos: float = 0.0, clip: float = 0.05
) -> Tensor:
    """Return the asymmetric loss for multi-label classification (Ben-Baruch et al., ICCV 2021, eq. 4 to 7).

    With p = sigmoid(logit) and p_m = max(p − clip, 0), a present tag costs −(1 − p)^γ+ · log(p) and an absent tag
    −p_m^γ− · log(1 − p_m). This keeps the thousands of absent tags from dominating the few present ones.

    Args:
        logits: (B, n_tags), any float type; the loss is computed in float32.
        labels: (B, n_tags), any type: 1 if the tag is present, else 0.
        gamma_neg, gamma_pos: focusing exponents of absent and of present tags.
        clip: probability below which an absent tag costs nothing.

    Returns:
        A scalar: the sum over tags, as in the released code, and the mean over the batch, so that the loss does not
        depend on the batch size.

    Raises:
        ValueError: the shapes differ.
    """
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels are {tuple(labels.shape)} and logits {tuple(logits.shape)}; their shapes must be equal."
        )
    present = labels.to(torch.float32)
    p = torch.sigmoid(logits.float())
    p_shifted = (p - clip).clamp_min(0.0)
    # The floor keeps the logarithm finite where a probability rounds to 0 or 1.
    positive = (1 - p) ** gamma_pos * torch.log(p.clamp_min(1e-8))
    negative = p_shifted**gamma_neg * torch.log((1 - p_shifted).clamp_min(1e-8))
    return -(present * positive + (1 - present) * negative).sum(dim=-1).mean()
