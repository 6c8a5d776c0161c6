"""A small RAM that learns the sample world's tags from drawn images, and errs as taggers do."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.ram import RamConfig, RamForImageTagging, RamProcessor
from pipelines.pretraining.config import TaggerSettings
from pipelines.pretraining.world import HELD_OUT, entry
from pipelines.sample_world.entries import Entry
from pipelines.sample_world.scenes import Scene
from pipelines.sample_world.tagging import VOCABULARY
from pipelines.training.data import Batch
from pipelines.training.order import Draw
from pipelines.training.task import Output

_PLACE = {tag: number for number, tag in enumerate(VOCABULARY)}
_THRESHOLD = 0.5


def present_tags(scene: Scene) -> Tensor:
    """Multi-hot (tags,): every shape, colour and colour-shape pair that the scene shows."""
    labels = torch.zeros(len(VOCABULARY))
    for item in scene.objects:
        labels[[_PLACE[item.shape], _PLACE[item.color], _PLACE[item.name]]] = 1
    return labels


def config(settings: TaggerSettings) -> RamConfig:
    """The preset `tiny` over the sample world's vocabulary."""
    return RamConfig.preset("tiny", n_tags=len(VOCABULARY), gamma_neg=settings.gamma_neg, clip=settings.clip)


def processor(ram: RamConfig, thresholds: Sequence[float] | None = None) -> RamProcessor:
    """Its processor, with thresholds by tag."""
    return RamProcessor(VOCABULARY, thresholds or [_THRESHOLD] * len(VOCABULARY), image_size=ram.swin.image_size)


class TaggedImages:
    """Drawn scenes as pixels, with the tags that are true of them; every sample is a scene of its own."""

    ratios = None

    def __init__(self, settings: TaggerSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._processor = processor(config(settings))
        self.pools = (settings.scenes,)
        self.validation = [Draw(1, index, 0) for index in range(settings.validation_scenes)]

    def load(self, draw: Draw) -> Entry:
        """The scene; validation scenes are numbered from `HELD_OUT`."""
        index = draw.index + (HELD_OUT if draw.pool else 0)
        return entry(self._seed, index, self._settings.small_fraction)

    def collate(self, samples: Sequence[Entry]) -> Batch:
        """Pixels, and labels (B, tags)."""
        pixels = self._processor([sample.draw() for sample in samples])["pixel_values"]
        labels = torch.stack([present_tags(sample.scene) for sample in samples])
        ids = tuple(str(sample.image_id) for sample in samples)
        return Batch({"pixel_values": pixels, "labels": labels}, float(len(samples)), ids)


@dataclasses.dataclass(frozen=True)
class TaggerTask:
    """RAM's training, as the loop of `pipelines.training` runs it."""

    settings: TaggerSettings
    seed: int

    base: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Sequence[str] = ("tagger",)

    def build(self) -> RamForImageTagging:
        """RAM with random weights; its label embeddings, which the real one has from CLIP's text tower, are learned."""
        return RamForImageTagging(config(self.settings))

    def group_of(self, name: str) -> str:
        """All of it is one group."""
        return "tagger"

    def data(self) -> TaggedImages:
        """The drawn scenes."""
        return TaggedImages(self.settings, self.seed)

    def forward(self, model: Any, batch: Batch) -> Output:
        """The asymmetric loss, and what precision and recall are made of."""
        output = model(**batch.tensors)
        present, said = batch.tensors["labels"] > 0, output.logits.detach() > 0
        sums = {
            "right": (present & said).sum().double(),
            "said": said.sum().double(),
            "present": present.sum().double(),
        }
        return Output(output.loss * len(batch.ids), sums)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Precision and recall over all tags at a confidence of 0.5."""
        return {
            "precision": float(sums["right"] / sums["said"].clamp_min(1)),
            "recall": float(sums["right"] / sums["present"].clamp_min(1)),
        }

    def save(self, model: nn.Module, folder: str) -> None:
        """RAM's folder with its processor."""
        assert isinstance(model, RamForImageTagging)
        model.save_pretrained(folder)
        processor(config(self.settings)).save_pretrained(folder)
