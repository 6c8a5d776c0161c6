"""Text of tags with confidences, and its tokens with their weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase, ProcessorMixin

ScoredTag = tuple[str, float]


def select_tags(tags: Sequence[ScoredTag], top_k: int = 40, threshold: float = 0.5) -> list[ScoredTag]:
    """The ``top_k`` most confident tags whose confidence is above ``threshold``, by falling confidence.

    Equal confidences keep the order given. A confidence equal to the threshold is not above it.

    Raises:
        ValueError: If a confidence is not a number in [0, 1], a tag is blank, or ``top_k`` is below 1.
    """
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; keep at least one tag.")
    for tag, score in tags:
        if not tag.strip():
            raise ValueError(f"A tag with confidence {score} is blank.")
        if math.isnan(score) or not 0.0 <= score <= 1.0:
            raise ValueError(f"The confidence of tag {tag!r} is {score}; it must be a number between 0 and 1.")
    kept = [(tag, score) for tag, score in tags if score > threshold]
    return sorted(kept, key=lambda item: -item[1])[:top_k]


def _pieces(tags: Sequence[ScoredTag]) -> list[str]:
    """``["dog: 0.98", ", ball: 0.96"]``: each tag carries the separator before it, so that any prefix reads well."""
    return [f"{', ' if i else ''}{tag}: {score:.2f}" for i, (tag, score) in enumerate(tags)]


def format_tags(tags: Sequence[ScoredTag], top_k: int = 40, threshold: float = 0.5) -> str:
    """``"dog: 0.98, ball: 0.96"``, chosen and ordered as by `select_tags`.

    No tag above the threshold gives the empty string, which encodes as ``[CLS] [SEP]``: all such images share one
    vector, the encoder's word for "nothing was seen".
    """
    return "".join(_pieces(select_tags(tags, top_k, threshold)))


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
        """The three tensors by name."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "token_weights": self.token_weights,
        }

    def to(self, device: str | torch.device) -> "TagTokens":
        """The same tokens on ``device``."""
        return TagTokens(**{name: tensor.to(device) for name, tensor in self.as_dict().items()})


class TagEncoderProcessor(ProcessorMixin):
    """Tags or captions into `TagTokens`. Loads from a tag encoder's folder and from any plain BERT folder.

    Args:
        tokenizer: A BERT tokenizer. Words and punctuation are split apart, so that tags tokenise one by one.
        top_k: Most tags to keep.
        threshold: Only tags with a confidence above it are kept.
        max_length: Longest text in tokens, ``[CLS]`` and ``[SEP]`` included.
    """

    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        top_k: int = 40,
        threshold: float = 0.5,
        max_length: int = 512,
    ) -> None:
        if max_length < 3:
            raise ValueError(f"max_length is {max_length}; [CLS], [SEP] and one token need 3.")
        self.top_k = top_k
        self.threshold = threshold
        self.max_length = max_length
        super().__init__(tokenizer)

    def __call__(self, tags: Sequence[Sequence[ScoredTag]]) -> TagTokens:
        """Tokens of each image's tags.

        A text over ``max_length`` loses its least confident tags, whole ones only. An image with no tag above the
        threshold becomes ``[CLS] [SEP]``.

        Args:
            tags: For each image its tags and confidences.
        """
        chosen = [select_tags(image_tags, self.top_k, self.threshold) for image_tags in tags]
        pieces = [piece for image_tags in chosen for piece in _pieces(image_tags)]
        piece_ids = iter(self.tokenizer(pieces, add_special_tokens=False)["input_ids"] if pieces else [])
        rows: list[tuple[list[int], list[float]]] = []
        for image_tags in chosen:
            ids: list[int] = []
            weights: list[float] = []
            full = False
            for _, score in image_tags:
                piece = next(piece_ids)
                full = full or len(ids) + len(piece) > self.max_length - 2
                if not full:
                    ids += piece
                    weights += [score] * len(piece)
            rows.append(([self.tokenizer.cls_token_id, *ids, self.tokenizer.sep_token_id], [1.0, *weights, 1.0]))
        return self._pad(rows)

    def captions(self, captions: Sequence[str]) -> TagTokens:
        """Tokens of captions, cut at ``max_length``; every token weighs 1."""
        encoded = self.tokenizer(list(captions), truncation=True, max_length=self.max_length)
        return self._pad([(ids, [1.0] * len(ids)) for ids in encoded["input_ids"]])

    def _pad(self, rows: list[tuple[list[int], list[float]]]) -> TagTokens:
        if not rows:
            raise ValueError("There is no text to tokenise: the batch is empty.")
        padded: BatchEncoding = self.tokenizer.pad({"input_ids": [ids for ids, _ in rows]}, return_tensors="pt")
        mask = padded["attention_mask"]
        token_weights = torch.zeros(mask.shape, dtype=torch.float32)
        # By the mask and not by position, so that a tokenizer that pads on the left stays right.
        token_weights[mask.bool()] = torch.tensor([weight for _, weights in rows for weight in weights])
        return TagTokens(padded["input_ids"], mask, token_weights)
