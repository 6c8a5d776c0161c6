"""LION's processor: images, questions, tags and answers to tensors, and generated ids to text."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, CLIPImageProcessorPil, PreTrainedTokenizerBase, ProcessorMixin

from models.images import to_rgb
from models.lion.configuration import LEVELS, LionConfig, PromptConfig
from models.lion.prompts.base import SOFT_TOKEN
from models.tag_encoder.processing import TagEncoderProcessor
from models.tags import (
    TOP_K,
    ScoredTag,
    TagOrder,
    TagRule,
    Threshold,
    load_thresholds,
    make_rule,
    save_thresholds,
    surest,
)

# Longest question for the Q-Former in its own tokens, [CLS] and [SEP] included, as released.
QFORMER_LENGTH = 128
# The fields of `PromptConfig` that decide the text and the tags' tokens.
_PROMPT_FIELDS = ("kind", "tokens", "tags_in_text", "confidence_in_text")
# Thresholds of the text's tags and of the tag encoder's: files beside `processor_config.json`, by their field.
THRESHOLD_FILES = {"thresholds": "tag_thresholds.json", "tag_encoder_thresholds": "tag_encoder_thresholds.json"}


class LionProcessor(ProcessorMixin):
    """LION's inputs: pixels, the prompt with its tags, the Q-Former's question, the answer's labels.

    `for_config` makes a processor that fits a model; `from_pretrained` reads it from the model's folder.

    Args:
        image_processor: CLIP's, resizing to the model's square (bicubic, aspect not kept).
        tokenizer: Of the T5; holds ``<extra_id_0>``.
        qformer_tokenizer: Of the Q-Former: BERT's vocabulary (the released Q-Former reads bert-base-uncased plus one
            ``[DEC]`` token, which questions never hold).
        tag_tokenizer: Of the tag encoder; the Q-Former's where they share one vocabulary.
        prompt: The fields of `PromptConfig` that shape the text: kind, tokens, tags_in_text, confidence_in_text.
        top_k, threshold, tag_order, thresholds: Which tags the text lists and in which order, as in
            `models.tags.TagRule`. A threshold of None is a model's that no training has decided: ``"per_tag"`` where
            there are thresholds, else 0.5.
        tag_encoder, tag_encoder_thresholds: How the tag encoder of a dynamic prompt reads tags, whatever the text
            lists: `TagEncoderProcessor.reading` and its thresholds. None: as the text, within 512 tokens.
        max_text_length: Longest prompt in T5 tokens, ``</s>`` included.
        max_answer_length: Longest answer in T5 tokens; a longer one loses its end.
    """

    tokenizer: PreTrainedTokenizerBase
    qformer_tokenizer: PreTrainedTokenizerBase
    tag_tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        image_processor: CLIPImageProcessorPil,
        tokenizer: PreTrainedTokenizerBase,
        qformer_tokenizer: PreTrainedTokenizerBase,
        tag_tokenizer: PreTrainedTokenizerBase,
        prompt: dict[str, Any] | None = None,
        top_k: int = TOP_K,
        threshold: Threshold | None = None,
        max_text_length: int = 128,
        max_answer_length: int = 128,
        tag_order: TagOrder | None = None,
        thresholds: Mapping[str, float] | None = None,
        tag_encoder: dict[str, Any] | None = None,
        tag_encoder_thresholds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, qformer_tokenizer, tag_tokenizer)
        # The released code cuts the Q-Former's question on the left, because the end of a prompt holds the question.
        self.qformer_tokenizer.truncation_side = "left"
        prompt_config = PromptConfig(**(prompt or {}))
        self.prompt = {name: getattr(prompt_config, name) for name in _PROMPT_FIELDS}
        self.top_k = top_k
        self.threshold = threshold
        self.max_text_length = max_text_length
        self.max_answer_length = max_answer_length
        self.tag_order = tag_order
        self.thresholds = thresholds
        self.tag_encoder = tag_encoder
        self.tag_encoder_thresholds = tag_encoder_thresholds

    @property
    def rule(self) -> TagRule:
        """The rule by which the text lists tags, and their order."""
        return make_rule(self.top_k, self.threshold, self.tag_order, self.thresholds)

    @property
    def tag_reader(self) -> TagEncoderProcessor:
        """The tag encoder's processor, which makes the inputs of a dynamic prompt's vectors."""
        if self.tag_encoder is not None:
            settings = {**self.tag_encoder, "thresholds": self.tag_encoder_thresholds}
        else:
            rule = self.rule
            settings = {"top_k": rule.top_k, "threshold": rule.threshold, "tag_order": rule.order,
                        "thresholds": rule.thresholds}  # fmt: skip
        return TagEncoderProcessor(self.tag_tokenizer, **settings)

    def set_rules(self, text: TagRule, vector: TagRule | None = None) -> None:
        """Read tags by other rules than the saved ones.

        Args:
            text: of the text's tags.
            vector: of the tag encoder's; None leaves it.
        """
        reader = self.tag_reader
        self.top_k, self.threshold, self.tag_order = text.top_k, text.threshold, text.order
        self.thresholds = text.thresholds
        if vector is not None:
            own = {"top_k": vector.top_k, "threshold": vector.threshold, "tag_order": vector.order}
            self.tag_encoder = {**reader.reading, **own}
            self.tag_encoder_thresholds = vector.thresholds

    @classmethod
    def for_config(
        cls,
        config: LionConfig,
        tokenizer: PreTrainedTokenizerBase,
        qformer_tokenizer: PreTrainedTokenizerBase,
        tag_tokenizer: PreTrainedTokenizerBase | None = None,
        **knobs: Any,
    ) -> "LionProcessor":
        """Return the processor of a model with ``config``; ``knobs`` are the other arguments of the class.

        A tag encoder never reads more tokens than its BERT has positions.

        Raises:
            ValueError: If ``<extra_id_0>`` has another id than the configuration says, or a vocabulary is larger than
                the embeddings that read it.
        """
        soft_id = tokenizer.convert_tokens_to_ids(SOFT_TOKEN)
        if config.prompt.soft_tokens and soft_id != config.soft_prompt_token_id:
            raise ValueError(
                f"{SOFT_TOKEN} has id {soft_id} in the tokenizer and soft_prompt_token_id is "
                f"{config.soft_prompt_token_id}; they must agree."
            )
        readers = [("tokenizer", tokenizer, config.text_config.vocab_size)]
        if config.uses_qformer:
            readers.append(("qformer_tokenizer", qformer_tokenizer, config.qformer_config.vocab_size))
        if config.prompt.dynamic:
            vocabulary = config.tag_encoder_config.bert.vocab_size
            readers.append(("tag_tokenizer", tag_tokenizer or qformer_tokenizer, vocabulary))
        for name, reader, rows in readers:
            if len(reader) > rows:
                raise ValueError(f"{name} has {len(reader)} tokens and the model embeds {rows}; raise its vocab_size.")
        size = {"height": config.image_size, "width": config.image_size}
        images = CLIPImageProcessorPil(size=size, do_center_crop=False)
        prompt = {name: getattr(config.prompt, name) for name in _PROMPT_FIELDS}
        made = cls(images, tokenizer, qformer_tokenizer, tag_tokenizer or qformer_tokenizer, prompt=prompt, **knobs)
        if config.prompt.dynamic:
            encoder, positions = made.tag_reader, config.tag_encoder_config.bert.max_position_embeddings
            if made.tag_encoder is not None or encoder.max_length > positions:
                made.tag_encoder = {**encoder.reading, "max_length": min(encoder.max_length, positions)}
                made.tag_encoder_thresholds = encoder.thresholds
        return made

    def __call__(
        self,
        images: Sequence[Image.Image] | None = None,
        text: Sequence[str] | str | None = None,
        tags: Sequence[Sequence[ScoredTag]] | None = None,
        levels: Sequence[str] | None = None,
        answers: Sequence[str] | None = None,
    ) -> BatchFeature:
        """Return the inputs of `LionForConditionalGeneration` for B samples; an omitted argument omits its outputs.

        Args:
            images: PIL images of any mode (converted by `models.images.to_rgb`) and size.
            text: Questions, without any prompt around them.
            tags: Each image's tags and confidences; read where the prompt has tags.
            levels: ``"image"`` or ``"region"`` of each sample.
            answers: The target answers.

        Returns:
            pixel_values (B, 3, H, W); input_ids, attention_mask (B, L); qformer_input_ids, qformer_attention_mask
            (B, L'); levels (B,), 0 region and 1 image; labels (B, T), -100 where none; for a dynamic prompt
            tag_input_ids, tag_attention_mask, tag_token_weights (B, L'').

        Raises:
            ValueError: If arguments differ in length, a level is unknown, a question is blank or too long for the
                prompt, a text holds ``<extra_id_0>``, or the prompt needs tags and none are given.
        """
        text = [text] if isinstance(text, str) else text
        inputs = {"images": images, "text": text, "tags": tags, "levels": levels, "answers": answers}
        sizes = {name: len(value) for name, value in inputs.items() if value is not None}
        if not sizes or 0 in sizes.values() or len(set(sizes.values())) > 1:
            counts = ", ".join(f"{size} {name}" for name, size in sizes.items()) or "none"
            raise ValueError(f"All inputs of a batch need the same length, at least 1, but there are: {counts}.")
        batch: dict[str, Tensor] = {}
        if images is not None:
            batch["pixel_values"] = self._pixels(images)
        if text is not None:
            batch |= self._questions(text, tags)
        if levels is not None:
            batch["levels"] = level_ids(levels)
        if answers is not None:
            batch["labels"] = self._labels(answers)
        return BatchFeature(batch)

    def prompt_text(self, question: str, tags: Sequence[ScoredTag] = ()) -> str:
        """Return the prompt of ``question`` with all of ``tags``, as the prompt's design writes it."""
        config = PromptConfig(**self.prompt)
        return config.design.text(config, question, tags)

    def answers(self, ids: Tensor) -> list[str]:
        """Return generated ids (B, T) as text, without special tokens and outer blanks."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        for index, image in enumerate(images):
            if not isinstance(image, Image.Image):
                raise ValueError(f"Image {index} is a {type(image).__name__}; open it by PIL.Image first.")
        processor = self.image_processor
        if processor.do_center_crop or not processor.do_resize or not processor.size["width"]:
            # Other rules than those of `for_config`.
            return processor([to_rgb(image) for image in images], return_tensors="pt")["pixel_values"]
        side, resample = (processor.size["width"], processor.size["height"]), Image.Resampling(processor.resample)
        squares = np.stack([np.asarray(to_rgb(image).resize(side, resample)) for image in images])
        pixels = np.empty((len(images), 3, side[1], side[0]), dtype=np.float32)
        for channel, values in enumerate(_values_of(processor)):
            # "clip" only because it lets numpy write straight into `out`: a byte is never out of range.
            np.take(values, squares[..., channel], out=pixels[:, channel], mode="clip")
        return torch.from_numpy(pixels)

    def _questions(self, questions: Sequence[str], tags: Sequence[Sequence[ScoredTag]] | None) -> dict[str, Tensor]:
        prompt = PromptConfig(**self.prompt)
        if tags is None and prompt.reads_tags:
            raise ValueError(
                f"A prompt of kind {prompt.kind!r} needs tags; pass an empty list for an image without tags."
            )
        rule = self.rule
        chosen = [rule.select(listed) for listed in tags or [[]] * len(questions)]
        encoded = self.tokenizer.pad({"input_ids": self._prompt_ids(questions, chosen)}, return_tensors="pt")
        batch = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        questions_ids = self.qformer_tokenizer(
            list(questions), padding=True, truncation=True, max_length=QFORMER_LENGTH, return_tensors="pt"
        )
        batch["qformer_input_ids"], batch["qformer_attention_mask"] = (
            questions_ids["input_ids"],
            questions_ids["attention_mask"],
        )
        if prompt.dynamic:
            tokens = self.tag_reader(tags or [[]] * len(questions))
            batch |= {f"tag_{name}": value for name, value in tokens.as_dict().items()}
        return batch

    def _prompt_ids(self, questions: Sequence[str], tags: Sequence[Sequence[ScoredTag]]) -> list[list[int]]:
        for question, listed in zip(questions, tags, strict=True):
            if not question.strip():
                raise ValueError("A question is blank.")
            if any(SOFT_TOKEN in text for text in (question, *(tag for tag, _ in listed))):
                raise ValueError(
                    f"{SOFT_TOKEN} marks the soft prompt's place; remove it from question {question!r} or its tags."
                )
        ids = self.tokenizer([self.prompt_text(q, listed) for q, listed in zip(questions, tags, strict=True)])
        return [
            row if len(row) <= self.max_text_length else self._shortened(question, listed)
            for row, question, listed in zip(ids["input_ids"], questions, tags, strict=True)
        ]

    def _shortened(self, question: str, tags: Sequence[ScoredTag]) -> list[int]:
        """Return ids with as many of the most confident tags as fit; the released code cut off the prompt's start."""
        prompt = PromptConfig(**self.prompt)
        tags = tags if prompt.design.lists_tags(prompt) else []
        fits: list[int] | None = None
        low, high = 0, max(len(tags) - 1, 0)
        while low <= high:
            middle = (low + high + 1) // 2
            ids = self.tokenizer(self.prompt_text(question, surest(tags, middle)))["input_ids"]
            if len(ids) <= self.max_text_length:
                fits, low = ids, middle + 1
            else:
                high = middle - 1
        if fits is None:
            needed = len(self.tokenizer(self.prompt_text(question))["input_ids"])
            raise ValueError(
                f"The question takes {needed} tokens with its prompt and without a tag, and max_text_length is "
                f"{self.max_text_length}; shorten the question or raise max_text_length: {question[:80]!r}."
            )
        return fits

    def to_dict(self) -> dict[str, Any]:
        """Return the settings of ``processor_config.json``: all but the thresholds, which have their own files."""
        return {name: value for name, value in super().to_dict().items() if name not in THRESHOLD_FILES}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write the tokenizers, ``processor_config.json`` and the thresholds that there are."""
        if push_to_hub:
            raise ValueError("Pushing would leave the thresholds behind: save to a folder and upload the folder.")
        files = list(super().save_pretrained(save_directory, **kwargs) or [])
        for field, name in THRESHOLD_FILES.items():
            files += save_thresholds(save_directory, getattr(self, field), name)
        return files

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings with the thresholds; see `from_pretrained`."""
        settings, kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        read = {field: load_thresholds(pretrained_model_name_or_path, name) for field, name in THRESHOLD_FILES.items()}
        return settings | {field: value for field, value in read.items() if value is not None}, kwargs

    def _labels(self, answers: Sequence[str]) -> Tensor:
        encoded = self.tokenizer(
            list(answers), padding=True, truncation=True, max_length=self.max_answer_length, return_tensors="pt"
        )
        return encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)


def _values_of(processor: CLIPImageProcessorPil) -> np.ndarray:
    """Return the value of each byte in each channel, (3, 256), as the processor rescales and normalizes it.

    Looking bytes up gives the processor's own numbers in every digit, in a third of the time after resizing.
    """
    bytes_of_all = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    return processor([Image.fromarray(bytes_of_all)], do_resize=False, return_tensors="np")["pixel_values"][0][:, 0]


def level_ids(levels: Sequence[str]) -> Tensor:
    """Return the rows of the router (B,), int64, for ``"region"`` and ``"image"``.

    Raises:
        ValueError: If a level is another.
    """
    unknown = sorted({repr(level) for level in levels if level not in LEVELS})
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is no level; choose one of {', '.join(LEVELS)}.")
    return torch.tensor([LEVELS.index(level) for level in levels])
