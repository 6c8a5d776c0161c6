"""Text of tags with confidences, and its tokens with their weights."""

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

# The settings of a `TagEncoderProcessor` beside its thresholds, which are a file of their own.
READING = ("top_k", "threshold", "max_length", "tag_order")


def _pieces(tags: Sequence[ScoredTag]) -> list[str]:
    """``["dog: 0.98", ", ball: 0.96"]``: each tag carries the separator before it."""
    return [f"{', ' if i else ''}{tag}: {score:.2f}" for i, (tag, score) in enumerate(tags)]


def format_tags(tags: Sequence[ScoredTag], top_k: int = TOP_K, threshold: float = THRESHOLD) -> str:
    """``"dog: 0.98, ball: 0.96"``: the ``top_k`` most confident tags above ``threshold``, by falling confidence.

    No tag above the threshold gives the empty string, which encodes as ``[CLS] [SEP]``: all such images share one
    vector, the encoder's word for "nothing was seen".
    """
    return "".join(_pieces(TagRule(top_k, threshold).select(tags)))


@dataclass(frozen=True)
class TagTokens:
    """A padded batch of texts, ready for ``TagEncoder.encode(**tokens.as_dict())``.

    Attributes:
        input_ids: (B, T), int64.
        attention_mask: (B, T), int64; 1 for tokens, 0 for padding.
        token_weights: (B, T), float32; the confidence of the tag that a token belongs to, 1 for special tokens and
            the tokens of captions, 0 for padding.
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
    """Tags or captions into `TagTokens`. Loads from a tag encoder's folder and from any plain BERT folder.

    Args:
        tokenizer: A BERT tokenizer. Words and punctuation are split apart, so that tags tokenize one by one.
        top_k, threshold, tag_order, thresholds: Which tags are read and in which order, as in `models.tags.TagRule`.
            A saved folder has the thresholds in ``tag_thresholds.json``.
        max_length: Longest text in tokens, ``[CLS]`` and ``[SEP]`` included.
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
        """Which tags are read, and in which order."""
        return TagRule(self.top_k, self.threshold, self.tag_order, self.thresholds)

    @property
    def reading(self) -> dict[str, Any]:
        """The settings beside the tokenizer and the thresholds, by name."""
        return {name: getattr(self, name) for name in READING}

    def __call__(self, tags: Sequence[Sequence[ScoredTag]]) -> TagTokens:
        """Tokens of each image's tags.

        A text over ``max_length`` loses its least confident tags, whole ones only. An image with no tag above the
        threshold becomes ``[CLS] [SEP]``.

        Args:
            tags: For each image its tags and confidences.
        """
        rule = self.rule
        chosen = [rule.select(image_tags) for image_tags in tags]
        pieces = [piece for image_tags in chosen for piece in _pieces(image_tags)]
        piece_ids = iter(self.tokenizer(pieces, add_special_tokens=False)["input_ids"] if pieces else [])
        ids = [[next(piece_ids) for _ in image_tags] for image_tags in chosen]
        return self._pad([self._row(*row) for row in zip(chosen, ids, strict=True)])

    def _row(self, tags: Sequence[ScoredTag], piece_ids: Sequence[list[int]]) -> tuple[list[int], list[float]]:
        """Token ids and weights of one image's tags: as many of the most confident as fit, in the rule's order."""
        room = self.max_length - 2
        if sum(map(len, piece_ids)) > room:
            tags = self._fitting(tags, room)
            piece_ids = self.tokenizer(_pieces(tags), add_special_tokens=False)["input_ids"] if tags else []
        ids = [token for piece in piece_ids for token in piece]
        weights = [score for (_, score), piece in zip(tags, piece_ids, strict=True) for _ in piece]
        return [self.tokenizer.cls_token_id, *ids, self.tokenizer.sep_token_id], [1.0, *weights, 1.0]

    def _fitting(self, tags: Sequence[ScoredTag], room: int) -> list[ScoredTag]:
        """Return the most tags, the most confident ones, whose text takes no more than ``room`` tokens."""
        low, high = 0, len(tags) - 1
        while low < high:
            middle = (low + high + 1) // 2
            pieces = self.tokenizer(_pieces(surest(tags, middle)), add_special_tokens=False)["input_ids"]
            low, high = (middle, high) if sum(map(len, pieces)) <= room else (low, middle - 1)
        return surest(tags, low)

    def captions(self, captions: Sequence[str]) -> TagTokens:
        """Tokens of captions, cut at ``max_length``; every token weighs 1."""
        encoded = self.tokenizer(list(captions), truncation=True, max_length=self.max_length)
        return self._pad([(ids, [1.0] * len(ids)) for ids in encoded["input_ids"]])

    def _pad(self, rows: list[tuple[list[int], list[float]]]) -> TagTokens:
        if not rows:
            raise ValueError("There is no text to tokenize: the batch is empty.")
        padded: BatchEncoding = self.tokenizer.pad({"input_ids": [ids for ids, _ in rows]}, return_tensors="pt")
        mask = padded["attention_mask"]
        token_weights = torch.zeros(mask.shape, dtype=torch.float32)
        # By the mask and not by position, so that a tokenizer that pads on the left stays right.
        token_weights[mask.bool()] = torch.tensor([weight for _, weights in rows for weight in weights])
        return TagTokens(padded["input_ids"], mask, token_weights)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings of ``processor_config.json``: all but the thresholds, which are a file of their own."""
        return {name: value for name, value in super().to_dict().items() if name != "thresholds"}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write the tokenizer, ``processor_config.json`` and, where there are thresholds, ``tag_thresholds.json``."""
        if push_to_hub:
            raise ValueError("Pushing would leave the thresholds behind: save to a folder and upload the folder.")
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
