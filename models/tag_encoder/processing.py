"""Write tags with confidences as text, and tokenize them with a weight per token."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase, ProcessorMixin

from models.tags import (
    THRESHOLD,
    TOP_K,
    ScoredTag,
    TagOrder,
    TagRule,
    Threshold,
    load_thresholds,
    save_thresholds,
    surest,
)

# The settings of a `TagEncoderProcessor`, without its thresholds, which have their own file.
READING = ("top_k", "threshold", "max_length", "tag_order")


def _pieces(tags: Sequence[ScoredTag]) -> list[str]:
    """Return ``["dog: 0.98", ", ball: 0.96"]``: each piece begins with the separator before its tag."""
    return [f"{', ' if i else ''}{tag}: {score:.2f}" for i, (tag, score) in enumerate(tags)]


def format_tags(tags: Sequence[ScoredTag], top_k: int = TOP_K, threshold: float = THRESHOLD) -> str:
    """Return the ``top_k`` most confident tags above ``threshold`` as text: ``"dog: 0.98, ball: 0.96"``.

    Without a tag above the threshold the text is empty. It encodes as ``[CLS] [SEP]``, so that all images without
    tags have the same vector.
    """
    return "".join(_pieces(TagRule(top_k, threshold).select(tags)))


@dataclass(frozen=True)
class TagTokens:
    """A padded batch of texts for ``TagEncoder.encode(**tokens.as_dict())``.

    Attributes:
        input_ids: (B, T), int64.
        attention_mask: (B, T), int64; 1 for tokens, 0 for padding.
        token_weights: (B, T), float32; the confidence of the token's tag, 1 for special tokens and the tokens of
            captions, 0 for padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_weights: Tensor

    def as_dict(self) -> dict[str, Tensor]:
        """Return the three tensors by name."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "token_weights": self.token_weights,
        }

    def to(self, device: str | torch.device) -> "TagTokens":
        """Return the same tokens on ``device``."""
        return TagTokens(**{name: tensor.to(device) for name, tensor in self.as_dict().items()})


class TagEncoderProcessor(ProcessorMixin):
    """The processor that makes `TagTokens` of tags or captions. It loads from a tag encoder's or a plain BERT's folder.

    Args:
        tokenizer: a BERT tokenizer. It splits words from punctuation, so that each tag can be tokenized alone.
        top_k, threshold, tag_order, thresholds: the `models.tags.TagRule` that selects and orders tags. A saved folder
            has the thresholds in ``tag_thresholds.json``.
        max_length: largest number of tokens of a text, with ``[CLS]`` and ``[SEP]``.
    """

    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        top_k: int = TOP_K,
        threshold: Threshold = THRESHOLD,
        max_length: int = 512,
        tag_order: TagOrder = "confidence",
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        if max_length < 3:
            raise ValueError(f"max_length is {max_length}; [CLS], [SEP] and one token need 3.")
        self.top_k = top_k
        self.threshold = threshold
        self.max_length = max_length
        self.tag_order = tag_order
        self.thresholds = thresholds
        super().__init__(tokenizer)

    @property
    def rule(self) -> TagRule:
        """The rule that selects and orders tags."""
        return TagRule(self.top_k, self.threshold, self.tag_order, self.thresholds)

    @property
    def reading(self) -> dict[str, Any]:
        """The settings by name, without the tokenizer and the thresholds."""
        return {name: getattr(self, name) for name in READING}

    def __call__(self, tags: Sequence[Sequence[ScoredTag]]) -> TagTokens:
        """Return the tokens of each image's tags.

        If a text is longer than ``max_length``, its least confident tags are dropped. An image without a tag above
        the threshold becomes ``[CLS] [SEP]``.

        Args:
            tags: the tags of each image with their confidences.

        Raises:
            ValueError: there is no image, a confidence is not a number in [0, 1], or a tag is blank.
        """
        rule = self.rule
        chosen = [rule.select(image_tags) for image_tags in tags]
        pieces = [piece for image_tags in chosen for piece in _pieces(image_tags)]
        piece_ids = iter(self.tokenizer(pieces, add_special_tokens=False)["input_ids"] if pieces else [])
        ids = [[next(piece_ids) for _ in image_tags] for image_tags in chosen]
        return self._pad([self._row(*row) for row in zip(chosen, ids, strict=True)])

    def _row(self, tags: Sequence[ScoredTag], piece_ids: Sequence[list[int]]) -> tuple[list[int], list[float]]:
        """Return token ids and weights of one image: as many of the most confident tags as fit, in the rule's order."""
        room = self.max_length - 2
        if sum(map(len, piece_ids)) > room:
            tags = self._fitting(tags, room)
            piece_ids = self.tokenizer(_pieces(tags), add_special_tokens=False)["input_ids"] if tags else []
        ids = [token for piece in piece_ids for token in piece]
        weights = [score for (_, score), piece in zip(tags, piece_ids, strict=True) for _ in piece]
        return [self.tokenizer.cls_token_id, *ids, self.tokenizer.sep_token_id], [1.0, *weights, 1.0]

    def _fitting(self, tags: Sequence[ScoredTag], room: int) -> list[ScoredTag]:
        """Return as many of the most confident tags as fit in ``room`` tokens. The number is found by bisection."""
        low, high = 0, len(tags) - 1
        while low < high:
            middle = (low + high + 1) // 2
            pieces = self.tokenizer(_pieces(surest(tags, middle)), add_special_tokens=False)["input_ids"]
            low, high = (middle, high) if sum(map(len, pieces)) <= room else (low, middle - 1)
        return surest(tags, low)

    def captions(self, captions: Sequence[str]) -> TagTokens:
        """Return the tokens of captions, truncated to ``max_length``. Every token has the weight 1."""
        encoded = self.tokenizer(list(captions), truncation=True, max_length=self.max_length)
        return self._pad([(ids, [1.0] * len(ids)) for ids in encoded["input_ids"]])

    def _pad(self, rows: list[tuple[list[int], list[float]]]) -> TagTokens:
        if not rows:
            raise ValueError("There is no text to tokenize: the batch is empty.")
        padded: BatchEncoding = self.tokenizer.pad({"input_ids": [ids for ids, _ in rows]}, return_tensors="pt")
        mask = padded["attention_mask"]
        token_weights = torch.zeros(mask.shape, dtype=torch.float32)
        # Use the mask instead of positions, because a tokenizer may pad on the left.
        token_weights[mask.bool()] = torch.tensor([weight for _, weights in rows for weight in weights])
        return TagTokens(padded["input_ids"], mask, token_weights)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings of ``processor_config.json``, without the thresholds, which have their own file."""
        return {name: value for name, value in super().to_dict().items() if name != "thresholds"}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write the tokenizer, ``processor_config.json`` and, if there are thresholds, ``tag_thresholds.json``."""
        if push_to_hub:
            raise ValueError("push_to_hub would upload no thresholds; save to a folder and upload the folder.")
        files = super().save_pretrained(save_directory, **kwargs) or []
        return [*files, *save_thresholds(save_directory, self.thresholds)]

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings with the thresholds; see `from_pretrained`."""
        settings, kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        thresholds = load_thresholds(pretrained_model_name_or_path)
        return settings | ({} if thresholds is None else {"thresholds": thresholds}), kwargs
