"""No prompt: the question alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from models.lion.prompts.base import PromptDesign, PromptInputs
from models.tags import ScoredTag

if TYPE_CHECKING:
    from models.lion.configuration import PromptConfig
    from models.lion.modeling import LionForConditionalGeneration


class NoPrompt(PromptDesign):
    """The question alone, without tags or vectors."""

    kind = "none"

    def slots(self, prompt: "PromptConfig") -> int:
        """Return 0."""
        return 0

    def lists_tags(self, prompt: "PromptConfig") -> bool:
        """Return False: ``tags_in_text`` has no effect without LION's sentence."""
        return False

    def text(self, prompt: "PromptConfig", question: str, tags: Sequence[ScoredTag]) -> str:
        """Return the question."""
        return question

    def add_modules(self, model: "LionForConditionalGeneration") -> None:
        """Add nothing."""

    def initialize(self, model: "LionForConditionalGeneration") -> None:
        """Set nothing."""

    def vectors(self, model: "LionForConditionalGeneration", embeddings: Tensor, inputs: PromptInputs) -> Tensor | None:
        """Return None."""
        return None
