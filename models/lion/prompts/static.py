"""LION's soft prompt: one learned vector, the same for every image."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import initialization as init

from models.lion.prompts.base import PromptDesign, PromptInputs

if TYPE_CHECKING:
    from models.lion.configuration import PromptConfig
    from models.lion.modeling import LionForConditionalGeneration


class StaticPrompt(PromptDesign):
    """LION's sentence with one learned vector (arXiv 2311.11860, section 3.2)."""

    kind = "static"
    groups = {"prompt": r"soft_prompt"}
    parts = ("soft_prompt",)
    released_names = {"soft_prompt_hint": "soft_prompt"}

    def slots(self, prompt: "PromptConfig") -> int:
        """Return 1."""
        return 1

    def add_modules(self, model: "LionForConditionalGeneration") -> None:
        """Add the vector (d,)."""
        model.soft_prompt = nn.Parameter(torch.empty(model.config.text_config.d_model))

    def initialize(self, model: "LionForConditionalGeneration") -> None:
        """Draw the vector from a standard normal distribution, as T5's own embeddings are."""
        init.normal_(model.get_parameter("soft_prompt"), mean=0.0, std=1.0)

    def vectors(self, model: "LionForConditionalGeneration", embeddings: Tensor, inputs: PromptInputs) -> Tensor:
        """Return the learned vector for each sample (B, 1, d)."""
        return model.get_parameter("soft_prompt").to(embeddings.dtype).expand(len(embeddings), 1, -1)
