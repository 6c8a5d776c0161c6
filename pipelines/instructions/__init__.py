"""Instruction data: question files and precomputed images to the `instructions` table."""

from typing import TYPE_CHECKING

from pipelines.core.lazy import lazy_names

if TYPE_CHECKING:
    from pipelines.instructions.config import InstructionsConfig, InstructionSet
    from pipelines.instructions.step import instructions

__all__ = ["InstructionSet", "InstructionsConfig", "instructions"]
__getattr__ = lazy_names(__name__, {"InstructionSet": "config", "InstructionsConfig": "config", "instructions": "step"})
