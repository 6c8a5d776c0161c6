"""The pre-training of the small T5: it learns from text to answer questions about described scenes."""

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
    CorpusQuestion,
    Kind,
    questions_of,
    scene_in_words,
    shares,
    tag_prefix,
    vocabulary_texts,
)  # fmt: skip
from pipelines.sample_world.backbones.guidance import digit_weights, guidance_loss, phrase_targets
from pipelines.sample_world.backbones.likeness import start_by_likeness
from pipelines.sample_world.backbones.phrases import FORMS, WORDS, Form, PhraseReader, grid_phrases, list_phrases
from pipelines.sample_world.backbones.world import cached_entry, entry, scene_key
from pipelines.sample_world.entries import Entry
from pipelines.training.data import Batch
from pipelines.training.order import Draw
from pipelines.training.task import Output

SOFT_TOKEN = "<extra_id_0>"
_BOX_PIECES = ("[0.", ",0.")
_SLOTS = (6, 8, 12, 16)
# Length of a question with its answer, relative to a short one. A bundle has fewer questions by this factor.
_LENGTH: dict[Kind, int] = {"short": 1, "long": 2, "region": 2, "scene": 4, "locate": 4, "presence": 1}
# Noise as a multiple of the phrases' root mean square. Half of the scenes have little noise, half have up to so much
# that nothing can be understood. A T5 trained on clear phrases only is confident on any input. LION's visual tokens are
# noise at first, and its training would get no gradient towards tokens that are nearly right.
_CLEAR, _LOUDEST = 0.5, 4.0
# The training has so many parts, each a little harder than the previous one: fewer drills, noise, other forms.
_PARTS = 20
_NOISE_FROM = 0.2  # before this fraction of the training, scenes are lists without noise
_VOCABULARY_SCENES = 1500
# The last but one layer of the decoder: one layer remains to turn the attended phrase into digits.
_GUIDED_LAYER = -2
_GUIDANCE = 0.3  # weight of the guidance loss


def tokenizer(settings: LanguageSettings, seed: int) -> PreTrainedTokenizerFast:
    """Return a T5 tokenizer for the words of the sample world. Each digit is a token."""
    return _tokenizer(settings.vocabulary, settings.small_fraction, seed)


@lru_cache(maxsize=1)
def _tokenizer(vocabulary: int, small_fraction: float, seed: int) -> PreTrainedTokenizerFast:
    rng = random.Random(f"vocabulary/{seed}")
    scenes = (entry(seed, index, small_fraction) for index in range(_VOCABULARY_SCENES))
    tokens = t5_vocabulary(vocabulary_texts(scenes, rng), vocabulary)
    # With these tokens a box is a third shorter, and each digit is still one token. "first" below: the text after an
    # added token is not the start of a word.
    tokens.add_tokens(list(_BOX_PIECES))
    backend = tokens.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
        ]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokens


def pad_texts(tokens: PreTrainedTokenizerFast, texts: Sequence[str]) -> BatchEncoding:
    """Encode and pad texts; return `input_ids` and `attention_mask` (B, T)."""
    # Two calls, because a call with padding changes the tokenizer, which the loader's threads share.
    return tokens.pad({"input_ids": tokens(list(texts))["input_ids"]}, return_tensors="pt")


def word_ids(tokens: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the token id of each of `WORDS`.

    Raises:
        ValueError: the tokenizer splits a word into several tokens.
    """
    ids_by_word = {word: tokens(word, add_special_tokens=False)["input_ids"] for word in WORDS}
    if split := [word for word, ids in ids_by_word.items() if len(ids) != 1]:
        raise ValueError(f"The tokenizer splits {', '.join(split)} into several tokens; increase language.vocabulary.")
    return {word: ids[0] for word, ids in ids_by_word.items()}


def t5_config(settings: LanguageSettings, vocabulary: int) -> T5Config:
    """Return the T5's configuration, with the activation and the untied, unscaled head that LION uses for Flan-T5."""
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


class SceneReader(nn.Module):
    """A T5 whose input is packed phrases, followed by text."""

    def __init__(self, t5: T5ForConditionalGeneration, phrases: PhraseReader, soft_token: int) -> None:
        super().__init__()
        self.t5, self.phrases, self.soft_token = t5, phrases, soft_token

    def inputs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the embeddings (B, K + T, width) and the attention mask of [phrases ; text]."""
        embeddings = self.t5.shared(batch["input_ids"])
        mask = batch["attention_mask"]
        if "soft_noise" in batch:
            soft = (batch["input_ids"] == self.soft_token)[..., None]
            embeddings = torch.where(soft, batch["soft_noise"][:, None], embeddings)
        if "phrase_ids" in batch:
            tensors = {n: v for n, v in batch.items() if n.startswith("phrase_") and n != "phrase_noise"}
            phrases = self.phrases(self.t5.shared, **tensors)
            if "phrase_noise" in batch:
                phrases = phrases + batch["phrase_noise"] * phrases.detach().pow(2).mean().sqrt()
            embeddings = torch.cat([phrases, embeddings], dim=1)
            mask = torch.cat([mask.new_ones(phrases.shape[:2]), mask], dim=1)
        return embeddings, mask

    def forward(self, **batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each answer token (B, T), 0 at padding, and the guidance loss, 0 outside training."""
        embeddings, mask = self.inputs(batch)
        guided = self.training and "guidance_targets" in batch
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
        return losses, guidance_loss(output.cross_attentions[_GUIDED_LAYER][:, 0], batch["guidance_targets"])


class SceneTexts:
    """Bundles of questions for the training loop.

    A sample of the loop is a whole bundle: questions of one kind, with one form of description. So there is little
    padding, and the loss of short answers is not dominated by long ones.
    """

    ratios = None

    def __init__(self, settings: LanguageSettings, seed: int, tokens: PreTrainedTokenizerFast) -> None:
        self._settings, self._seed, self._tokens = settings, seed, tokens
        self._reader = PhraseReader(1, word_ids(tokens))
        self._openings = [_token_id(tokens, piece) for piece in _BOX_PIECES]
        bundles = (settings.loop.steps or 1) * settings.loop.batch_size
        self.pools = (-(-bundles // _PARTS),)  # an epoch of the pool is one part of the training
        self.validation = [Draw(1, index, 0) for index in range(settings.validation_bundles)]

    def load(self, draw: Draw) -> dict[str, Tensor]:
        """Return the bundle of a draw. Bundles of pool 1 are about held-out scenes and have no noise."""
        held_out = draw.pool == 1
        seed, _ = scene_key(self._seed, draw.index, held_out)
        rng = random.Random(f"bundle/{seed}/{draw.pool}/{draw.epoch}/{draw.index}")
        progress = 1.0 if held_out else draw.epoch / _PARTS
        by_kind = shares(progress)
        kind: Kind = rng.choices(list(by_kind), list(by_kind.values()))[0]
        early = progress < _NOISE_FROM
        form: Form = "list" if early else rng.choices(FORMS, self._settings.form_shares)[0]
        count = max(1, self._settings.bundle // (_LENGTH[kind] * (2 if form == "words" else 1)))
        bundle = questions_of(kind, self._entries(rng, held_out), count, rng)
        return self.tensors(bundle, form, rng, noisy=not (held_out or early))

    def _entries(self, rng: random.Random, held_out: bool) -> Iterator[Entry]:
        """Yield random scenes without an end."""
        count = 500 if held_out else self._settings.scenes
        while True:
            seed, index = scene_key(self._seed, rng.randrange(count), held_out)
            yield cached_entry(seed, index, self._settings.small_fraction)

    def tensors(
        self, bundle: Sequence[CorpusQuestion], form: Form, rng: random.Random, noisy: bool
    ) -> dict[str, Tensor]:
        """Convert questions to the input of `SceneReader`.

        Args:
            bundle: B questions of one kind.
            form: how their scenes are described.
            rng: the random generator.
            noisy: whether phrases get noise and some questions follow LION's prompt with tags.
        """
        tagged = noisy and form != "words" and rng.random() < self._settings.tagged_share
        texts = [
            (tag_prefix(question.entry, rng) if tagged else "")
            + (scene_in_words(question.entry.scene, rng) if form == "words" else "")
            + question.prompt
            for question in bundle
        ]
        prompt = pad_texts(self._tokens, texts)
        encoded = self._tokens([question.answer for question in bundle], return_offsets_mapping=True)
        answer = self._tokens.pad({"input_ids": encoded["input_ids"]}, return_tensors="pt")
        labels = answer["input_ids"].masked_fill(answer["attention_mask"] == 0, -100)
        batch: dict[str, Tensor] = {
            "input_ids": prompt["input_ids"],
            "attention_mask": prompt["attention_mask"],
            "labels": labels,
            "weights": digit_weights(labels, self._openings),
        }
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        if tagged and rng.random() < 0.7:  # the T5 learns to ignore an untrained vector at the soft prompt's position
            batch["soft_noise"] = torch.randn(len(bundle), self._settings.width, generator=generator)
        if form != "words":
            slots = rng.choice(_SLOTS) if noisy else _SLOTS[1]
            grid = self._settings.grid
            phrases = [
                (list_phrases(question.entry.scene, slots, rng, noisy) if form in ("list", "both") else [])
                + (grid_phrases(question.entry.scene, grid, rng, noisy) if form in ("grid", "both") else [])
                for question in bundle
            ]
            batch |= self._reader.tensors(phrases)
            batch["guidance_targets"] = phrase_targets(bundle, phrases, encoded["offset_mapping"])
            if noisy:
                size = (len(bundle), len(phrases[0]), self._settings.width)
                batch["phrase_noise"] = torch.randn(size, generator=generator) * _noise_levels(len(bundle), generator)
        return batch

    def collate(self, samples: Sequence[dict[str, Tensor]]) -> Batch:
        """Return the batch of one bundle. Bundles have different lengths, so a batch never has several."""
        (bundle,) = samples
        answer_tokens = int((bundle["labels"] != -100).sum())
        return Batch(bundle, 1.0, ("bundle",), int(bundle["attention_mask"].sum()) + answer_tokens)


def _noise_levels(count: int, generator: torch.Generator) -> Tensor:
    """Draw the noise level of each scene, (count, 1, 1)."""
    level, is_loud = (torch.rand(count, 1, 1, generator=generator) for _ in range(2))
    return torch.where(is_loud < 0.5, level * _CLEAR, _CLEAR * (_LOUDEST / _CLEAR) ** level)


@dataclasses.dataclass(frozen=True)
class LanguageTask:
    """The pre-training of the T5 as a task of the training loop."""

    settings: LanguageSettings
    seed: int

    base: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Sequence[str] = ("language",)

    def build(self) -> SceneReader:
        """Return the T5 with its initial weights."""
        tokens = tokenizer(self.settings, self.seed)
        t5 = T5ForConditionalGeneration(t5_config(self.settings, len(tokens)))
        untie_head(t5)
        t5.set_attn_implementation("eager")  # other implementations do not return attention weights
        start_by_likeness(t5)
        reader = PhraseReader(self.settings.width, word_ids(tokens))
        return SceneReader(t5, reader, _token_id(tokens, SOFT_TOKEN))

    def group_of(self, name: str) -> str:
        """Return the only parameter group."""
        return "language"

    def data(self) -> SceneTexts:
        """Return the bundles of questions."""
        return SceneTexts(self.settings, self.seed, tokenizer(self.settings, self.seed))

    def forward(self, model: Any, batch: Batch) -> Output:
        """Return the weighted mean loss of the answer tokens plus the guidance loss, and sums for the metrics."""
        losses, guidance = model(**batch.tensors)
        counted, weights = batch.tensors["labels"] != -100, batch.tensors["weights"]
        sums = {"nats": losses.detach().sum().double(), "answer_tokens": counted.sum().double()}
        return Output((losses * weights).sum() / weights.sum() + _GUIDANCE * guidance, sums)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the perplexity per answer token on held-out scenes."""
        return {"perplexity": float(torch.exp(sums["nats"] / sums["answer_tokens"]))}

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the T5 with its tokenizer, and the phrase reader, which later measurements of the T5 need."""
        assert isinstance(model, SceneReader)
        save_reader(model, tokenizer(self.settings, self.seed), folder)


def untie_head(t5: T5ForConditionalGeneration) -> None:
    """Separate the output head from the embeddings: transformers 5 always ties them when it builds a T5."""
    t5.lm_head.weight = nn.Parameter(t5.lm_head.weight.detach().clone())
    t5.config.tie_word_embeddings = False


def _token_id(tokens: PreTrainedTokenizerFast, token: str) -> int:
    return int(tokens.convert_tokens_to_ids(token))  # type: ignore[arg-type]


PHRASES_FILE = "phrases.safetensors"
"""The phrase reader's weights, next to those of the T5."""


def save_reader(reader: SceneReader, tokens: PreTrainedTokenizerFast, folder: str) -> None:
    """Write the weights, the configuration and the tokenizer."""
    from safetensors.torch import save_file

    os.makedirs(folder, exist_ok=True)
    weights = {name: value.contiguous() for name, value in reader.t5.state_dict().items() if "embed_tokens" not in name}
    reader.t5.config.save_pretrained(folder)
    save_file(weights, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    save_file(reader.phrases.state_dict(), os.path.join(folder, PHRASES_FILE))
    tokens.save_pretrained(folder)


def load_reader(folder: str) -> tuple[SceneReader, PreTrainedTokenizerFast]:
    """Load the T5 of a folder with its phrase reader, in float32 and eval mode, and its tokenizer."""
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
    return SceneReader(t5, phrases, _token_id(tokens, SOFT_TOKEN)).eval(), tokens
