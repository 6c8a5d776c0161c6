"""Which precision is computed in, and what that asks of the machine and of DeepSpeed."""

import torch

from pipelines.core.errors import UserError
from pipelines.training.config import LoopConfig

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def compute_dtype(loop: LoopConfig) -> torch.dtype:
    """What weights and activations are computed in; master weights and AdamW's moments are fp32 in any case."""
    return DTYPES[loop.precision]


def effective_stage(loop: LoopConfig) -> int:
    """Return the ZeRO stage that is run: in half precision 0 is run as 1, whose fp32 masters can be read by name."""
    return loop.zero_stage if loop.precision == "fp32" else max(loop.zero_stage, 1)


def require_precision(loop: LoopConfig, device: torch.device) -> None:
    """Refuse fp16 where it is not computed by hardware.

    Raises:
        UserError: fp16 on a CPU.
    """
    if loop.precision == "fp16" and device.type != "cuda":
        raise UserError(
            f"loop.precision is fp16, which DeepSpeed runs on GPUs alone, and this worker computes on the "
            f"{device.type}; set it to bf16 or fp32."
        )
