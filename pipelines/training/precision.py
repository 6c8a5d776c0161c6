"""The precision of a training, and what it requires of the machine and of DeepSpeed."""

import torch

from pipelines.core.errors import UserError
from pipelines.training.config import LoopConfig

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def compute_dtype(loop: LoopConfig) -> torch.dtype:
    """Return the type of weights and activations; master weights and AdamW's moments are always fp32."""
    return DTYPES[loop.precision]


def effective_stage(loop: LoopConfig) -> int:
    """Return the ZeRO stage that DeepSpeed runs: in half precision at least 1, whose fp32 masters are read by name."""
    return loop.zero_stage if loop.precision == "fp32" else max(loop.zero_stage, 1)


def require_precision(loop: LoopConfig, device: torch.device) -> None:
    """Refuse fp16 on devices without hardware for it.

    Raises:
        UserError: fp16 on a CPU.
    """
    if loop.precision == "fp16" and device.type != "cuda":
        raise UserError(
            f"loop.precision is fp16, which DeepSpeed runs on GPUs only, and this worker computes on the "
            f"{device.type}; set it to bf16 or fp32."
        )
