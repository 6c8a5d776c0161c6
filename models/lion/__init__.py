"""LION and Dynamic LION in Hugging Face form."""

from models.lion.configuration import LEVELS, LionConfig, PromptConfig
from models.lion.groups import GROUPS, TRAINABLE, parameter_group, set_trainable
from models.lion.modeling import LionForConditionalGeneration, LionOutput
from models.lion.processing import LionProcessor

__all__ = [
    "GROUPS",
    "LEVELS",
    "LionConfig",
    "LionForConditionalGeneration",
    "LionOutput",
    "LionProcessor",
    "PromptConfig",
    "TRAINABLE",
    "parameter_group",
    "set_trainable",
]
