"""The interface of a prompt design."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from models.tags import ScoredTag

if TYPE_CHECKING:
    from models.lion.configuration import PromptConfig
    from models.lion.modeling import LionForConditionalGeneration

SOFT_TOKEN = "<extra_id_0>"


@dataclass(frozen=True)
class PromptInputs:
    """The inputs of a batch that a prompt's vectors may depend on, besides the text.

    Attributes:
        tag_input_ids: Tags in the tag encoder's vocabulary (B, L''); None without tags.
        tag_attention_mask: 1 for each token of a tag (B, L'').
        tag_token_weights: The confidence of each token's tag (B, L'').
    """

    tag_input_ids: Tensor | None = None
    tag_attention_mask: Tensor | None = None
    tag_token_weights: Tensor | None = None


class PromptDesign(ABC):
    """A value of ``prompt.kind``: the text before the question, and the vectors written over ``<extra_id_0>`` in it.

    A design has no state: its parameters belong to the model, its settings to the `PromptConfig`.

    Attributes:
        kind: Its name in ``prompt.kind``.
        groups: Its parameter groups, which a stage with this prompt trains: name to the regular expression that fits
            the parameters' whole names.
        parts: Prefixes of its parameters. They may be new where a model with another prompt is the parent.
        released_names: Released names of its parameters, and ours, for conversion from and to the released weights.
        uses_tag_encoder: Whether the model has a tag encoder for this prompt, which stays frozen.
    """

    kind: ClassVar[str]
    groups: ClassVar[Mapping[str, str]] = {}
    parts: ClassVar[tuple[str, ...]] = ()
    released_names: ClassVar[Mapping[str, str]] = {}
    uses_tag_encoder: ClassVar[bool] = False

    @property
    def is_released(self) -> bool:
        """Whether the released LION has all of its parameters."""
        return set(self.parts) <= set(self.released_names.values())

    @abstractmethod
    def slots(self, prompt: "PromptConfig") -> int:
        """Return the number of ``<extra_id_0>`` in each text."""

    def lists_tags(self, prompt: "PromptConfig") -> bool:
        """Return whether the text lists the image's tags."""
        return prompt.tags_in_text

    def reads_tags(self, prompt: "PromptConfig") -> bool:
        """Return whether the text or the vectors depend on the image's tags."""
        return self.uses_tag_encoder or self.lists_tags(prompt)

    def text(self, prompt: "PromptConfig", question: str, tags: Sequence[ScoredTag]) -> str:
        """Return the text of a question with all of ``tags``: LION's sentence; no tags give ``tags: []``."""
        sentence = f"According to {SOFT_TOKEN * self.slots(prompt)}, "
        if self.lists_tags(prompt):
            listed = ", ".join(f"{tag}: {score:.2f}" if prompt.confidence_in_text else tag for tag, score in tags)
            sentence += f"you are allowed to use or partially use the following tags: [{listed}]. "
        return sentence + question

    @abstractmethod
    def add_modules(self, model: "LionForConditionalGeneration") -> None:
        """Add the design's parameters and modules to a new model; their names start with one of ``parts``."""

    @abstractmethod
    def initialize(self, model: "LionForConditionalGeneration") -> None:
        """Set start values of parameters that no module initializes.

        Use the functions of `transformers.initialization`: they leave parameters alone that a checkpoint has.
        """

    @abstractmethod
    def vectors(self, model: "LionForConditionalGeneration", embeddings: Tensor, inputs: PromptInputs) -> Tensor | None:
        """Compute the vectors that replace the embeddings of ``<extra_id_0>``.

        Args:
            embeddings: T5's embeddings of the text (B, L, d).
            inputs: The batch's other inputs.

        Returns:
            (B, slots, d) in the precision of ``embeddings``; None where there are no slots.

        Raises:
            ValueError: If an input is missing.
        """
