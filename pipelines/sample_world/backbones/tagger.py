"""The training of a small RAM, which learns the sample world's tags from drawn images."""

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
from pipelines.sample_world.backbones.world import entry, scene_key
from pipelines.sample_world.entries import Entry
from pipelines.sample_world.scenes import Scene
from pipelines.sample_world.tagging import VOCABULARY
from pipelines.training.data import Batch
from pipelines.training.order import Draw
from pipelines.training.task import Output

_TAG_INDEX = {tag: number for number, tag in enumerate(VOCABULARY)}
_PATCH_WEIGHT = 3.0  # weight of the patch loss; the asymmetric loss is a sum over all tags and therefore large


def present_tags(scene: Scene) -> Tensor:
    """Return the true tags as a multi-hot vector (tags,): every shape, color and color-shape pair of the scene."""
    labels = torch.zeros(len(VOCABULARY))
    for item in scene.objects:
        labels[[_TAG_INDEX[item.shape], _TAG_INDEX[item.color], _TAG_INDEX[item.name]]] = 1
    return labels


def config(settings: TaggerSettings) -> RamConfig:
    """Return RAM's preset `tiny` with the sample world's vocabulary."""
    return RamConfig.preset("tiny", n_tags=len(VOCABULARY), gamma_neg=settings.gamma_neg, clip=settings.clip)


def processor(ram: RamConfig, thresholds: Sequence[float] | None = None) -> RamProcessor:
    """Return the processor of a RAM. `thresholds` has one number per tag."""
    return RamProcessor(VOCABULARY, thresholds or [THRESHOLD] * len(VOCABULARY), image_size=ram.swin.image_size)


class ProbedTagger(nn.Module):
    """RAM with linear readouts on the last tokens of its Swin, which are trained to recognize the object at each token.

    From the tags of whole images alone, a Swin of this size needs tens of thousands of images to learn which pixels
    belong to a tag. The readouts are not saved.
    """

    def __init__(self, ram: RamForImageTagging) -> None:
        super().__init__()
        self.ram, self.probe = ram, Probe(ram.config.swin.hidden_size)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> tuple[RamOutput, dict[str, Tensor]]:
        """Return RAM's output, and the readouts' output for each Swin token (B, tokens, …)."""
        tokens: list[Tensor] = []
        hook = self.ram.swin.register_forward_hook(lambda _, __, output: tokens.append(output.last_hidden_state))
        try:
            output = self.ram(pixel_values, labels)
        finally:
            hook.remove()
        return output, self.probe(tokens[0])


def grid_of(ram: RamConfig) -> int:
    """Return the number of tokens per side of the image after the Swin's last stage."""
    return int(ram.swin.image_size // ram.swin.patch_size // 2 ** (len(ram.swin.depths) - 1))


class TaggedImages:
    """Drawn scenes for the training loop: pixels, true tags, and the object under each of the Swin's tokens."""

    ratios = None

    def __init__(self, settings: TaggerSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        ram = config(settings)
        self._processor, self._grid = processor(ram), grid_of(ram)
        self.pools = (settings.scenes,)
        self.validation = [Draw(1, index, 0) for index in range(settings.validation_scenes)]

    def load(self, draw: Draw) -> Entry:
        """Return the scene of a draw. Pool 1 has the held-out scenes."""
        return entry(*scene_key(self._seed, draw.index, draw.pool > 0), self._settings.small_fraction)

    def collate(self, samples: Sequence[Entry]) -> Batch:
        """Return pixels, true tags (B, tags), and for each token labels (B, tokens, heads) and boxes (B, tokens, 4)."""
        tensors = {
            "pixel_values": self._processor([sample.draw() for sample in samples])["pixel_values"],
            "labels": torch.stack([present_tags(sample.scene) for sample in samples]),
            **patch_tensors([sample.scene for sample in samples], self._grid),
        }
        return Batch(tensors, float(len(samples)), tuple(str(sample.image_id) for sample in samples))


@dataclasses.dataclass(frozen=True)
class TaggerTask:
    """The training of RAM as a task of the training loop."""

    settings: TaggerSettings
    seed: int

    base: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Sequence[str] = ("tagger",)

    def build(self) -> ProbedTagger:
        """Return RAM with random weights. Its label embeddings are learned; the released RAM has them from CLIP."""
        return ProbedTagger(RamForImageTagging(config(self.settings)))

    def group_of(self, name: str) -> str:
        """Return the only parameter group."""
        return "tagger"

    def data(self) -> TaggedImages:
        """Return the drawn scenes."""
        return TaggedImages(self.settings, self.seed)

    def forward(self, model: Any, batch: Batch) -> Output:
        """Return the asymmetric loss plus the patch loss, and sums for precision and recall."""
        tensors = batch.tensors
        output, answers = model(tensors["pixel_values"], tensors["labels"])
        loss = output.loss + _PATCH_WEIGHT * probe_loss(answers, tensors["patches"], tensors["boxes"])
        present, predicted = tensors["labels"] > 0, output.logits.detach() > 0
        sums = {
            "correct": (present & predicted).sum().double(),
            "predicted": predicted.sum().double(),
            "present": present.sum().double(),
        }
        return Output(loss * len(batch.ids), sums)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return precision and recall over all tags at a confidence of 0.5."""
        return {
            "precision": float(sums["correct"] / sums["predicted"].clamp_min(1)),
            "recall": float(sums["correct"] / sums["present"].clamp_min(1)),
        }

    def save(self, model: nn.Module, folder: str) -> None:
        """Write RAM and its processor, without the readouts."""
        assert isinstance(model, ProbedTagger)
        model.ram.save_pretrained(folder)
        processor(config(self.settings)).save_pretrained(folder)
