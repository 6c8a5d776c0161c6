"""Checks of LION's inputs; each refusal names the input, the value and the cure."""

import torch
from torch import Tensor

from models.lion.configuration import LEVELS


def check_levels(levels: Tensor | None, batch: int, routed: bool) -> None:
    """Refuse levels that are not one router row (B,) for each sample.

    Raises:
        ValueError: If a router has none, or their shape, type or value is wrong (values on the CPU only: on a GPU the
            routing itself refuses them).
    """
    if levels is None:
        if routed:
            raise ValueError("levels is missing: the router needs each sample's level, 0 region or 1 image.")
        return
    if levels.shape != (batch,) or levels.is_floating_point():
        raise ValueError(f"levels is {levels.dtype} {tuple(levels.shape)}; give int64 of shape ({batch},).")
    if levels.device.type == "cpu" and not ((levels >= 0) & (levels < len(LEVELS))).all():
        raise ValueError(f"levels is {levels.tolist()}; a level is 0 (region) or 1 (image).")


def check_pixels(pixel_values: Tensor, size: int) -> None:
    """Refuse images that are not (B, 3, size, size) or hold NaN or infinity, which would silently spoil the weights.

    Raises:
        ValueError: Naming the samples.
    """
    if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != (3, size, size):
        raise ValueError(
            f"pixel_values is {tuple(pixel_values.shape)}; this LION reads (batch, 3, {size}, {size}). "
            "LionProcessor resizes images to that."
        )
    if pixel_values.device.type != "meta":
        # A sum is NaN or infinite where one of its terms is, and takes no tensor of the images' size as isfinite does.
        sums = pixel_values.sum(dim=(1, 2, 3), dtype=torch.float32)
        bad = (~torch.isfinite(sums)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"pixel_values of samples {bad} hold NaN or infinity; repair these images or leave them out."
            )


def check_soft_tokens(places: Tensor, soft_tokens: int) -> None:
    """Refuse prompts whose ``places`` of the soft prompt (B, L) are not one for each of its vectors.

    Raises:
        ValueError: Naming the prompts.
    """
    if places.device.type == "meta":
        return
    wrong = (places.sum(dim=1) != soft_tokens).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"Prompts {wrong} of the batch do not hold <extra_id_0> {soft_tokens} times, once for each soft prompt "
            "vector; build them with LionProcessor."
        )
