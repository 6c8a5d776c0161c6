"""LION and Dynamic LION in Hugging Face form.

Each name is imported on first use: `models.lion.prompts`, which a command line reads, then costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.lion.configuration import LEVELS, LionConfig, PromptConfig
    from models.lion.groups import GROUPS, TRAINABLE, parameter_group, set_trainable
    from models.lion.modeling import LionForConditionalGeneration, LionOutput
    from models.lion.processing import LionProcessor

_MODULES = {
    **dict.fromkeys(("LEVELS", "LionConfig", "PromptConfig"), "configuration"),
    **dict.fromkeys(("GROUPS", "TRAINABLE", "parameter_group", "set_trainable"), "groups"),
    **dict.fromkeys(("LionForConditionalGeneration", "LionOutput"), "modeling"),
    "LionProcessor": "processing",
}
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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
