"""A small T5 that learns from text alone to answer questions about scenes that are described to it."""

import dataclasses
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from tokenizers import decoders, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import BatchEncoding, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from models.lion.vocabulary import t5_vocabulary
from pipelines.sample_world.backbones.config import LanguageSettings
from pipelines.sample_world.backbones.corpus import (
    Kind,
    Question,
    questions_of,
    scene_in_words,
    shares,
    tag_prefix,
    vocabulary_texts,
)  # fmt: skip
from pipelines.sample_world.backbones.guidance import digit_weights, sought, unseen
from pipelines.sample_world.backbones.likeness import start_by_likeness
from pipelines.sample_world.backbones.phrases import FORMS, WORDS, Form, PhraseReader, gridded, listed
from pipelines.sample_world.backbones.world import cached_entry, entry, place_of
from pipelines.sample_world.entries import Entry
from pipelines.training.data import Batch
from pipelines.training.order import Draw
from pipelines.training.task import Output

SOFT_TOKEN = "<extra_id_0>"
_BOX_PIECES = ("[0.", ",0.")
_SLOTS = (6, 8, 12, 16)
# How much longer a question of each kind is than a short one, with its answer: a bundle has that many fewer.
_LENGTH: dict[Kind, int] = {"short": 1, "long": 2, "region": 2, "scene": 4, "locate": 4, "presence": 1}
# Noise in parts of the phrases' root mean square: half of the scenes are told clearly, and half up to the point where
# nothing can be understood. A T5 that has heard clear phrases only is sure of itself whatever it hears, and LION, whose
# first words are noise, would get no hint from it which of them were nearly right.
_CLEAR, _LOUDEST = 0.5, 4.0
# The training comes in so many parts, each a little harder than the one before: fewer drills, more noise, other forms.
_PARTS = 20
_NOISE_FROM = 0.2  # until here the scenes are told exactly and as lists
_VOCABULARY_SCENES = 1500
# Of the decoder, the last but one: there is still a layer to say in digits what was seen.
_GUIDED_LAYER = -2
_GUIDANCE = 0.3  # weight of its loss


def tokenizer(settings: LanguageSettings, seed: int) -> PreTrainedTokenizerFast:
    """T5's tokenizer over the sample world's words; each digit is a token."""
    return _tokenizer(settings.vocabulary, settings.small_fraction, seed)


@lru_cache(maxsize=1)
def _tokenizer(vocabulary: int, small_fraction: float, seed: int) -> PreTrainedTokenizerFast:
    rng = random.Random(f"vocabulary/{seed}")
    scenes = (entry(seed, index, small_fraction) for index in range(_VOCABULARY_SCENES))
    made = t5_vocabulary(vocabulary_texts(scenes, rng), vocabulary)
    # A box is a third shorter with these, and each digit still a token of its own. What follows an added token must not
    # be taken for the start of a word.
    made.add_tokens(list(_BOX_PIECES))
    backend = made.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
        ]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return made


def padded(tokens: PreTrainedTokenizerFast, texts: Sequence[str]) -> BatchEncoding:
    """`input_ids` and `attention_mask` (B, T). Encoding and padding apart: a padding encoder is not safe to share
    between the loader's threads."""
    return tokens.pad({"input_ids": tokens(list(texts))["input_ids"]}, return_tensors="pt")


def word_ids(tokens: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the id of each word that phrases are made of.

    Raises:
        ValueError: a word is several tokens.
    """
    found = {word: tokens(word, add_special_tokens=False)["input_ids"] for word in WORDS}
    if broken := [word for word, ids in found.items() if len(ids) != 1]:
        raise ValueError(f"The tokenizer splits {', '.join(broken)}; raise language.vocabulary.")
    return {word: ids[0] for word, ids in found.items()}


def t5_config(settings: LanguageSettings, vocabulary: int) -> T5Config:
    """Return the T5's sizes, with the activation and the untied, unscaled head that LION runs Flan-T5 with."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=settings.width,
        d_kv=settings.width // settings.heads,
        d_ff=settings.feed_forward,
        num_heads=settings.heads,
        num_layers=settings.encoder_layers,
        num_decoder_layers=settings.decoder_layers,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        relative_attention_max_distance=64,
    )
    config.decoder_start_token_id = 0
    config.dense_act_fn = "gelu"
    config.scale_decoder_outputs = False
    return config


class Reader(nn.Module):
    """A T5 whose input is phrases, then text."""

    def __init__(self, t5: T5ForConditionalGeneration, phrases: PhraseReader, soft_token: int) -> None:
        super().__init__()
        self.t5, self.phrases, self.soft_token = t5, phrases, soft_token

    def inputs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings and mask of [phrases ; text]."""
        embeddings = self.t5.shared(batch["input_ids"])
        mask = batch["attention_mask"]
        if "soft_noise" in batch:
            soft = (batch["input_ids"] == self.soft_token)[..., None]
            embeddings = torch.where(soft, batch["soft_noise"][:, None], embeddings)
        if "phrase_ids" in batch:
            named = {name: batch[name] for name in batch if name.startswith("phrase_")}
            spoken = self.phrases(self.t5.shared, **{n: v for n, v in named.items() if n != "phrase_noise"})
            if "phrase_noise" in batch:
                spoken = spoken + batch["phrase_noise"] * spoken.detach().pow(2).mean().sqrt()
            embeddings = torch.cat([spoken, embeddings], dim=1)
            mask = torch.cat([mask.new_ones(spoken.shape[:2]), mask], dim=1)
        return embeddings, mask

    def forward(self, **batch: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each answer token, (B, T), 0 at padding; in training also how far the guided head is from looking
        where it should (a scalar, else 0)."""
        embeddings, mask = self.inputs(batch)
        guided = self.training and "sought" in batch
        output = self.t5(
            inputs_embeds=embeddings,
            attention_mask=mask,
            decoder_input_ids=self.t5._shift_right(batch["labels"]),
            output_attentions=guided,
            use_cache=False,
        )
        logits = output.logits.transpose(1, 2)
        losses = functional.cross_entropy(logits, batch["labels"], ignore_index=-100, reduction="none")
        if not guided:
            return losses, losses.new_zeros(())
        return losses, unseen(output.cross_attentions[_GUIDED_LAYER][:, 0], batch["sought"])


class SceneTexts:
    """Bundles of questions. A sample of the loop is a whole bundle: questions of one kind and one way to describe the
    scene, so that nothing is padded much and short answers are not drowned by long ones."""

    ratios = None

    def __init__(self, settings: LanguageSettings, seed: int, tokens: PreTrainedTokenizerFast) -> None:
        self._settings, self._seed, self._tokens = settings, seed, tokens
        self._reader = PhraseReader(1, word_ids(tokens))
        self._openings = [_token_id(tokens, piece) for piece in _BOX_PIECES]
        bundles = (settings.loop.steps or 1) * settings.loop.batch_size
        self.pools = (-(-bundles // _PARTS),)  # a pool's epoch is a part of the training
        self.validation = [Draw(1, index, 0) for index in range(settings.validation_bundles)]

    def load(self, draw: Draw) -> dict[str, Tensor]:
        """Return the bundle of a number; those of pool 1 are about held-out scenes and without noise."""
        held_out = draw.pool == 1
        seed, _ = place_of(self._seed, draw.index, held_out)
        rng = random.Random(f"bundle/{seed}/{draw.pool}/{draw.epoch}/{draw.index}")
        progress = 1.0 if held_out else draw.epoch / _PARTS
        often = shares(progress)
        kind: Kind = rng.choices(list(often), list(often.values()))[0]
        early = progress < _NOISE_FROM
        form: Form = "list" if early else rng.choices(FORMS, self._settings.form_shares)[0]
        count = max(1, self._settings.bundle // (_LENGTH[kind] * (2 if form == "words" else 1)))
        asked = questions_of(kind, self._entries(rng, held_out), count, rng)
        return self.tensors(asked, form, rng, noisy=not (held_out or early))

    def _entries(self, rng: random.Random, held_out: bool) -> Iterator[Entry]:
        count = 500 if held_out else self._settings.scenes
        while True:
            seed, index = place_of(self._seed, rng.randrange(count), held_out)
            yield cached_entry(seed, index, self._settings.small_fraction)

    def tensors(self, asked: Sequence[Question], form: Form, rng: random.Random, noisy: bool) -> dict[str, Tensor]:
        """Questions with their scenes described in one form."""
        tagged = noisy and form != "words" and rng.random() < self._settings.tagged_share
        texts = [
            (tag_prefix(one.entry, rng) if tagged else "")
            + (scene_in_words(one.entry.scene, rng) if form == "words" else "")
            + one.prompt
            for one in asked
        ]
        prompt = padded(self._tokens, texts)
        told = self._tokens([one.answer for one in asked], return_offsets_mapping=True)
        answer = self._tokens.pad({"input_ids": told["input_ids"]}, return_tensors="pt")
        labels = answer["input_ids"].masked_fill(answer["attention_mask"] == 0, -100)
        batch: dict[str, Tensor] = {
            "input_ids": prompt["input_ids"],
            "attention_mask": prompt["attention_mask"],
            "labels": labels,
            "weights": digit_weights(labels, self._openings),
        }
        chance = torch.Generator().manual_seed(rng.getrandbits(60))
        if tagged and rng.random() < 0.7:  # whatever stands at the soft prompt's place must not disturb
            batch["soft_noise"] = torch.randn(len(asked), self._settings.width, generator=chance)
        if form != "words":
            slots = rng.choice(_SLOTS) if noisy else _SLOTS[1]
            grid = self._settings.grid
            phrases = [
                (listed(one.entry.scene, slots, rng, noisy) if form in ("list", "both") else [])
                + (gridded(one.entry.scene, grid, rng, noisy) if form in ("grid", "both") else [])
                for one in asked
            ]
            batch |= self._reader.tensors(phrases)
            batch["sought"] = sought(asked, phrases, told["offset_mapping"])
            if noisy:
                size = (len(asked), len(phrases[0]), self._settings.width)
                batch["phrase_noise"] = torch.randn(size, generator=chance) * _noise(len(asked), chance)
        return batch

    def collate(self, samples: Sequence[dict[str, Tensor]]) -> Batch:
        """One bundle; several do not fit into one batch, as their lengths differ."""
        (bundle,) = samples
        answer_tokens = int((bundle["labels"] != -100).sum())
        return Batch(bundle, 1.0, ("bundle",), int(bundle["attention_mask"].sum()) + answer_tokens)


def _noise(count: int, chance: torch.Generator) -> Tensor:
    """How loud the noise of each scene is, (count, 1, 1)."""
    place, loud = (torch.rand(count, 1, 1, generator=chance) for _ in range(2))
    return torch.where(loud < 0.5, place * _CLEAR, _CLEAR * (_LOUDEST / _CLEAR) ** place)


@dataclasses.dataclass(frozen=True)
class LanguageTask:
    """The T5's pre-training, as the loop of `pipelines.training` runs it."""

    settings: LanguageSettings
    seed: int

    base: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Sequence[str] = ("language",)

    def build(self) -> Reader:
        """Return the T5 before its training."""
        tokens = tokenizer(self.settings, self.seed)
        t5 = T5ForConditionalGeneration(t5_config(self.settings, len(tokens)))
        untie_head(t5)
        t5.set_attn_implementation("eager")  # the others do not tell where they look
        start_by_likeness(t5)
        reader = PhraseReader(self.settings.width, word_ids(tokens))
        return Reader(t5, reader, _token_id(tokens, SOFT_TOKEN))

    def group_of(self, name: str) -> str:
        """Return all of it is one group."""
        return "language"

    def data(self) -> SceneTexts:
        """Return the questions."""
        return SceneTexts(self.settings, self.seed, tokenizer(self.settings, self.seed))

    def forward(self, model: Any, batch: Batch) -> Output:
        """Mean loss per answer token of the bundle, by the tokens' weights, with that of the guided head."""
        losses, astray = model(**batch.tensors)
        counted, weights = batch.tensors["labels"] != -100, batch.tensors["weights"]
        sums = {"nats": losses.detach().sum().double(), "answer_tokens": counted.sum().double()}
        return Output((losses * weights).sum() / weights.sum() + _GUIDANCE * astray, sums)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Perplexity per answer token on held-out scenes."""
        return {"perplexity": float(torch.exp(sums["nats"] / sums["answer_tokens"]))}

    def save(self, model: nn.Module, folder: str) -> None:
        """Return the T5's folder with its tokenizer; the phrase reader beside it, to measure the T5 again."""
        assert isinstance(model, Reader)
        save_reader(model, tokenizer(self.settings, self.seed), folder)


def untie_head(t5: T5ForConditionalGeneration) -> None:
    """Give a T5 built by transformers 5, which always ties it, a head of its own."""
    t5.lm_head.weight = nn.Parameter(t5.lm_head.weight.detach().clone())
    t5.config.tie_word_embeddings = False


def _token_id(tokens: PreTrainedTokenizerFast, token: str) -> int:
    return int(tokens.convert_tokens_to_ids(token))  # type: ignore[arg-type]


PHRASES_FILE = "phrases.safetensors"


def save_reader(reader: Reader, tokens: PreTrainedTokenizerFast, folder: str) -> None:
    """Write weights, configuration and tokenizer."""
    from safetensors.torch import save_file

    os.makedirs(folder, exist_ok=True)
    weights = {name: value.contiguous() for name, value in reader.t5.state_dict().items() if "embed_tokens" not in name}
    reader.t5.config.save_pretrained(folder)
    save_file(weights, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    save_file(reader.phrases.state_dict(), os.path.join(folder, PHRASES_FILE))
    tokens.save_pretrained(folder)


def load_reader(folder: str) -> tuple[Reader, PreTrainedTokenizerFast]:
    """Return the T5 of a folder with its phrase reader and tokenizer, in float32 and eval mode."""
    from safetensors.torch import load_file

    tokens = PreTrainedTokenizerFast.from_pretrained(folder)
    config = T5Config.from_pretrained(folder)
    config.scale_decoder_outputs = False
    t5 = T5ForConditionalGeneration(config)
    untie_head(t5)
    weights = {name: value.float() for name, value in load_file(os.path.join(folder, "model.safetensors")).items()}
    weights |= dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), weights["shared.weight"])
    t5.load_state_dict(weights)
    phrases = PhraseReader(config.d_model, word_ids(tokens))
    phrases.load_state_dict({n: v.float() for n, v in load_file(os.path.join(folder, PHRASES_FILE)).items()})
    return Reader(t5, phrases, _token_id(tokens, SOFT_TOKEN)).eval(), tokens
