"""A small RAM that learns the sample world's tags from drawn images, and errs as taggers do."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.ram import RamConfig, RamForImageTagging, RamProcessor
from models.ram.modeling import RamOutput
from models.tags import THRESHOLD
from pipelines.sample_world.backbones.config import TaggerSettings
from pipelines.sample_world.backbones.vision import Probe, patch_tensors, probe_loss
from pipelines.sample_world.backbones.world import entry, place_of
from pipelines.sample_world.entries import Entry
from pipelines.sample_world.scenes import Scene
from pipelines.sample_world.tagging import VOCABULARY
from pipelines.training.data import Batch
from pipelines.training.order import Draw
from pipelines.training.task import Output

_PLACE = {tag: number for number, tag in enumerate(VOCABULARY)}
_PATCH_WEIGHT = 3.0  # of the patches' loss beside the asymmetric one, which is a sum over all tags


def present_tags(scene: Scene) -> Tensor:
    """Multi-hot (tags,): every shape, color and color-shape pair that the scene shows."""
    labels = torch.zeros(len(VOCABULARY))
    for item in scene.objects:
        labels[[_PLACE[item.shape], _PLACE[item.color], _PLACE[item.name]]] = 1
    return labels


def config(settings: TaggerSettings) -> RamConfig:
    """Return the preset `tiny` over the sample world's vocabulary."""
    return RamConfig.preset("tiny", n_tags=len(VOCABULARY), gamma_neg=settings.gamma_neg, clip=settings.clip)


def processor(ram: RamConfig, thresholds: Sequence[float] | None = None) -> RamProcessor:
    """Its processor, with thresholds by tag."""
    return RamProcessor(VOCABULARY, thresholds or [THRESHOLD] * len(VOCABULARY), image_size=ram.swin.image_size)


class TaughtTagger(nn.Module):
    """RAM with linear readouts on its Swin's last tokens, to be told where in the image its tags are.

    From the tags of whole images alone, a Swin of this size takes tens of thousands of images to learn which pixels a
    tag comes from. The readouts are thrown away with this module.
    """

    def __init__(self, ram: RamForImageTagging) -> None:
        super().__init__()
        self.ram, self.probe = ram, Probe(ram.config.swin.hidden_size)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> tuple[RamOutput, dict[str, Tensor]]:
        """RAM's output, and what the readouts say of each Swin token (B, tokens, …)."""
        tokens: list[Tensor] = []
        hook = self.ram.swin.register_forward_hook(lambda _, __, output: tokens.append(output.last_hidden_state))
        try:
            output = self.ram(pixel_values, labels)
        finally:
            hook.remove()
        return output, self.probe(tokens[0])


def grid_of(ram: RamConfig) -> int:
    """Tokens on a side of the image behind the Swin's last stage."""
    return int(ram.swin.image_size // ram.swin.patch_size // 2 ** (len(ram.swin.depths) - 1))


class TaggedImages:
    """Drawn scenes as pixels, with the tags that are true of them and what lies under each of the Swin's tokens; every
    sample is a scene of its own."""

    ratios = None

    def __init__(self, settings: TaggerSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        ram = config(settings)
        self._processor, self._grid = processor(ram), grid_of(ram)
        self.pools = (settings.scenes,)
        self.validation = [Draw(1, index, 0) for index in range(settings.validation_scenes)]

    def load(self, draw: Draw) -> Entry:
        """Return the scene; pool 1 has the validation scenes."""
        return entry(*place_of(self._seed, draw.index, draw.pool > 0), self._settings.small_fraction)

    def collate(self, samples: Sequence[Entry]) -> Batch:
        """Pixels, labels (B, tags), and of each token the patch labels (B, tokens, heads) and boxes (B, tokens, 4)."""
        tensors = {
            "pixel_values": self._processor([sample.draw() for sample in samples])["pixel_values"],
            "labels": torch.stack([present_tags(sample.scene) for sample in samples]),
            **patch_tensors([sample.scene for sample in samples], self._grid),
        }
        return Batch(tensors, float(len(samples)), tuple(str(sample.image_id) for sample in samples))


@dataclasses.dataclass(frozen=True)
class TaggerTask:
    """RAM's training, as the loop of `pipelines.training` runs it."""

    settings: TaggerSettings
    seed: int

    base: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Sequence[str] = ("tagger",)

    def build(self) -> TaughtTagger:
        """RAM with random weights; its label embeddings, which the real one has from CLIP's text tower, are learned."""
        return TaughtTagger(RamForImageTagging(config(self.settings)))

    def group_of(self, name: str) -> str:
        """Return all of it is one group."""
        return "tagger"

    def data(self) -> TaggedImages:
        """Return the drawn scenes."""
        return TaggedImages(self.settings, self.seed)

    def forward(self, model: Any, batch: Batch) -> Output:
        """Return the asymmetric loss with that of the tokens, and what precision and recall are made of."""
        tensors = batch.tensors
        output, answers = model(tensors["pixel_values"], tensors["labels"])
        loss = output.loss + _PATCH_WEIGHT * probe_loss(answers, tensors["patches"], tensors["boxes"])
        present, said = tensors["labels"] > 0, output.logits.detach() > 0
        sums = {
            "right": (present & said).sum().double(),
            "said": said.sum().double(),
            "present": present.sum().double(),
        }
        return Output(loss * len(batch.ids), sums)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Precision and recall over all tags at a confidence of 0.5."""
        return {
            "precision": float(sums["right"] / sums["said"].clamp_min(1)),
            "recall": float(sums["right"] / sums["present"].clamp_min(1)),
        }

    def save(self, model: nn.Module, folder: str) -> None:
        """RAM's folder with its processor."""
        assert isinstance(model, TaughtTagger)
        model.ram.save_pretrained(folder)
        processor(config(self.settings)).save_pretrained(folder)
