"""Instruction data: question files and precomputed images to the `instructions` table."""

from pipelines.instructions.config import InstructionsConfig, InstructionSet
from pipelines.instructions.step import instructions

__all__ = ["InstructionSet", "InstructionsConfig", "instructions"]
