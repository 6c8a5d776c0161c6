"""The static and the dynamic prompt in one sentence."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.lion.prompts.base import PromptDesign, PromptInputs
from models.lion.prompts.dynamic import DynamicPrompt
from models.lion.prompts.static import StaticPrompt

if TYPE_CHECKING:
    from models.lion.configuration import PromptConfig
    from models.lion.modeling import LionForConditionalGeneration

_STATIC, _DYNAMIC = StaticPrompt(), DynamicPrompt()


class StaticAndDynamicPrompt(PromptDesign):
    """LION's sentence with the static prompt's vector first, then those of the dynamic prompt."""

    kind = "both"
    groups = {**_STATIC.groups, **_DYNAMIC.groups}
    parts = (*_STATIC.parts, *_DYNAMIC.parts)
    released_names = _STATIC.released_names
    uses_tag_encoder = True

    def slots(self, prompt: "PromptConfig") -> int:
        """Return the slots of both."""
        return _STATIC.slots(prompt) + _DYNAMIC.slots(prompt)

    def add_modules(self, model: "LionForConditionalGeneration") -> None:
        """Add the parameters of both."""
        _STATIC.add_modules(model)
        _DYNAMIC.add_modules(model)

    def initialize(self, model: "LionForConditionalGeneration") -> None:
        """Set the start values of both."""
        _STATIC.initialize(model)
        _DYNAMIC.initialize(model)

    def vectors(self, model: "LionForConditionalGeneration", embeddings: Tensor, inputs: PromptInputs) -> Tensor:
        """Return the vectors of both, (B, 1 + tokens, d).

        Raises:
            ValueError: If the tags are missing.
        """
        static = _STATIC.vectors(model, embeddings, inputs)
        return torch.cat([static, _DYNAMIC.vectors(model, embeddings, inputs)], dim=1)
