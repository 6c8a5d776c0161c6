"""The dynamic soft prompt: vectors of each image, projected from its tags and their confidences."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.lion.prompts.base import PromptDesign, PromptInputs
from models.tag_encoder import TagEncoder

if TYPE_CHECKING:
    from models.lion.configuration import PromptConfig
    from models.lion.modeling import LionForConditionalGeneration


class DynamicPrompt(PromptDesign):
    """LION's sentence with ``prompt.tokens`` vectors, projected from the tag encoder's vector of the image."""

    kind = "dynamic"
    groups = {"projector": r"prompt_projector\..+"}
    parts = ("prompt_projector.", "tag_encoder.")
    uses_tag_encoder = True

    def slots(self, prompt: "PromptConfig") -> int:
        """Return ``prompt.tokens``."""
        return prompt.tokens

    def add_modules(self, model: "LionForConditionalGeneration") -> None:
        """Add the tag encoder and the projector."""
        config = model.config
        model.tag_encoder = TagEncoder(config.tag_encoder_config)
        model.prompt_projector = _projector(
            config.tag_encoder_config.hidden_size,
            config.text_config.d_model,
            config.prompt.tokens,
            config.prompt.projector,
        )

    def initialize(self, model: "LionForConditionalGeneration") -> None:
        """Set nothing: the modules initialize themselves."""

    def vectors(self, model: "LionForConditionalGeneration", embeddings: Tensor, inputs: PromptInputs) -> Tensor:
        """Encode each image's tags and project them to (B, tokens, d).

        Raises:
            ValueError: If the tags are missing.
        """
        if inputs.tag_input_ids is None or inputs.tag_attention_mask is None:
            raise ValueError("A dynamic prompt needs tags: tag_input_ids and tag_attention_mask are missing.")
        encoder, projector = model.tag_encoder, model.get_submodule("prompt_projector")
        trains = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in encoder.parameters())
        with torch.set_grad_enabled(trains):
            tags = encoder.encode(inputs.tag_input_ids, inputs.tag_attention_mask, inputs.tag_token_weights)
        # The projector may have another precision than the tag encoder (`models.lion.precision`).
        projected = projector(tags.to(next(projector.parameters()).dtype)).to(embeddings.dtype)
        return projected.view(len(embeddings), model.config.prompt.tokens, -1)


def _projector(tag_width: int, text_width: int, tokens: int, kind: str) -> nn.Module:
    if kind == "linear":
        return nn.Linear(tag_width, tokens * text_width)
    return nn.Sequential(nn.Linear(tag_width, text_width), nn.GELU(), nn.Linear(text_width, tokens * text_width))
