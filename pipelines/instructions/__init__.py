"""Instruction data: question files and precomputed images become the table `instructions`.

config      the settings of a build
questions   question files cut into shards
images      the index of the precomputed images
leakage     images of evaluation splits, kept out of training
templates   the phrasings of the tasks
builder     a question and its image become rows
stages      the work on one shard
statistics  the counts for the data card
card        the data card; `charts` are its tables and figures
step        the whole build
"""

from typing import TYPE_CHECKING

from pipelines.core.lazy import lazy_names

if TYPE_CHECKING:
    from pipelines.instructions.config import InstructionsConfig, InstructionSet
    from pipelines.instructions.step import instructions

__all__ = ["InstructionSet", "InstructionsConfig", "instructions"]
__getattr__ = lazy_names(__name__, {"InstructionSet": "config", "InstructionsConfig": "config", "instructions": "step"})
