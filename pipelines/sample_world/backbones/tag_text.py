"""The pre-training of a small BERT on captions and tag strings with masked words; tag encoders start from it."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from models.lion.vocabulary import bert_vocabulary
from models.tag_encoder import format_tags
from pipelines.sample_world.backbones.config import TagTextSettings
from pipelines.sample_world.backbones.corpus import vocabulary_texts
from pipelines.sample_world.backbones.language import pad_texts
from pipelines.sample_world.backbones.world import cached_entry, entry, scene_key
from pipelines.training.data import Batch
from pipelines.training.order import Draw
from pipelines.training.task import Output

_MASKED = 0.2  # fraction of masked tokens
_VOCABULARY_SCENES = 300


def tokenizer(settings: TagTextSettings, seed: int) -> PreTrainedTokenizerFast:
    """Return a BERT tokenizer for the words of the sample world, for the tag encoder and the Q-Former."""
    return _tokenizer(settings.vocabulary, settings.small_fraction, seed)


@lru_cache(maxsize=1)
def _tokenizer(vocabulary: int, small_fraction: float, seed: int) -> PreTrainedTokenizerFast:
    scenes = (entry(seed, index, small_fraction) for index in range(_VOCABULARY_SCENES))
    digits = (f"red circle: 0.{number:02d}, blue square: 1.00" for number in range(100))
    rng = random.Random(f"vocabulary/{seed}")
    return bert_vocabulary([*vocabulary_texts(scenes, rng), *digits], vocabulary)


class CaptionsAndTags:
    """Texts with masked tokens for the training loop: a caption of a scene, or the string of its tags."""

    ratios = None

    def __init__(self, settings: TagTextSettings, seed: int, tokens: PreTrainedTokenizerFast) -> None:
        self._settings, self._seed, self._tokens = settings, seed, tokens
        self.pools = (settings.scenes,)
        self.validation = [Draw(1, index, 0) for index in range(settings.validation_scenes)]

    def load(self, draw: Draw) -> tuple[str, int]:
        """Return a text and the seed of its mask. Texts of pool 1 are about held-out scenes."""
        seed, index = scene_key(self._seed, draw.index, draw.pool > 0)
        rng = random.Random(f"text/{seed}/{draw.pool}/{draw.epoch}/{draw.index}")
        scene = cached_entry(seed, index, self._settings.small_fraction)
        text = rng.choice(scene.captions) if rng.random() < 0.5 else format_tags(scene.tags)
        return text, rng.getrandbits(60)

    def collate(self, samples: Sequence[tuple[str, int]]) -> Batch:
        """Return `input_ids` with masked tokens, `attention_mask`, and `labels`, the masked tokens, -100 elsewhere."""
        encoded = pad_texts(self._tokens, [text for text, _ in samples])
        generator = torch.Generator().manual_seed(samples[0][1])
        masked = torch.rand(encoded["input_ids"].shape, generator=generator) < _MASKED
        masked &= ~torch.isin(encoded["input_ids"], torch.tensor(self._tokens.all_special_ids))
        tensors = {
            "input_ids": encoded["input_ids"].masked_fill(masked, self._tokens.mask_token_id),
            "attention_mask": encoded["attention_mask"],
            "labels": encoded["input_ids"].masked_fill(~masked, -100),
        }
        return Batch(tensors, float(len(samples)), tuple(text for text, _ in samples))


@dataclasses.dataclass(frozen=True)
class TagTextTask:
    """The pre-training of the BERT as a task of the training loop."""

    settings: TagTextSettings
    seed: int

    base: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Sequence[str] = ("tag_encoder",)

    def build(self) -> BertForMaskedLM:
        """Return the BERT with random weights."""
        settings = self.settings
        config = BertConfig(
            vocab_size=len(tokenizer(settings, self.seed)),
            hidden_size=settings.width,
            intermediate_size=settings.feed_forward,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=512,
        )
        return BertForMaskedLM(config)

    def group_of(self, name: str) -> str:
        """Return the only parameter group."""
        return "tag_encoder"

    def data(self) -> CaptionsAndTags:
        """Return the texts."""
        return CaptionsAndTags(self.settings, self.seed, tokenizer(self.settings, self.seed))

    def forward(self, model: Any, batch: Batch) -> Output:
        """Return the mean loss of the masked tokens, and sums for the metrics."""
        output = model(**batch.tensors)
        words = (batch.tensors["labels"] != -100).sum().double()
        sums = {"nats": output.loss.detach().double() * words, "words": words}
        return Output(output.loss * len(batch.ids), sums)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the perplexity of the masked tokens on held-out scenes."""
        return {"masked_perplexity": float(torch.exp(sums["nats"] / sums["words"]))}

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the BERT and its tokenizer, without the head that predicts masked tokens."""
        assert isinstance(model, BertForMaskedLM)
        model.bert.save_pretrained(folder)
        tokenizer(self.settings, self.seed).save_pretrained(folder)
