"""The pre-training of a small ViT, which learns from drawn images to recognize the object under each patch."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPImageProcessorPil, InstructBlipVisionConfig, InstructBlipVisionModel

from pipelines.sample_world.backbones.config import VisionSettings
from pipelines.sample_world.backbones.world import entry, normalized_box, scene_key
from pipelines.sample_world.entries import Entry
from pipelines.sample_world.scenes import BACKGROUNDS, COLORS, SHAPES, Scene
from pipelines.training.data import Batch
from pipelines.training.order import Draw
from pipelines.training.task import Output

_COLORS, _SHAPES = list(COLORS), list(SHAPES)
# The labels of a patch, each with its number of classes. The last class of the first four is "nothing".
HEADS: Mapping[str, int] = {
    "color": len(_COLORS) + 1,
    "shape": len(_SHAPES) + 1,
    "size": 3,
    "name": len(_COLORS) * len(_SHAPES) + 1,
    "center": 2,
    "background": len(BACKGROUNDS),
}
_WEIGHTS = {"color": 1.0, "shape": 1.5, "size": 0.5, "name": 0.5, "center": 0.5, "background": 0.2}
_BOX_WEIGHT, _BOX_BETA = 10.0, 0.03
_EMPTY_PATCH_WEIGHT = 0.3
_LEAST_OVERLAP = 0.12  # fraction of a patch; an object that covers less of it is not its label
PROBE_FILE = "probe.safetensors"
"""The readouts' weights, next to those of the ViT."""


def image_processor(image_size: int) -> CLIPImageProcessorPil:
    """Return the image processor, equal to the one that LION uses."""
    return CLIPImageProcessorPil(size={"height": image_size, "width": image_size}, do_center_crop=False)


def patch_targets(scene: Scene, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the patches of a `grid` × `grid` image: the object that covers most of each patch.

    Returns:
        Labels (grid², len(HEADS)) int64, and the object's box (grid², 4), normalized x1, y1, x2, y2.
    """
    boxes = np.array([normalized_box(item, scene) for item in scene.objects], np.float32)
    starts = np.arange(grid) / grid
    wide = np.clip(np.minimum(boxes[:, 2:3], starts + 1 / grid) - np.maximum(boxes[:, 0:1], starts), 0, None)
    high = np.clip(np.minimum(boxes[:, 3:4], starts + 1 / grid) - np.maximum(boxes[:, 1:2], starts), 0, None)
    overlap = (high[:, :, None] * wide[:, None, :]).reshape(len(boxes), -1) * grid**2
    nearest, covered = overlap.argmax(0), overlap.max(0) > _LEAST_OVERLAP
    color = np.array([_COLORS.index(item.color) for item in scene.objects])[nearest]
    shape = np.array([_SHAPES.index(item.shape) for item in scene.objects])[nearest]
    large = np.array([item.size == "large" for item in scene.objects])[nearest]
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2 * grid).astype(int)
    patches = np.arange(grid**2)
    center = (middle[nearest, 1] * grid + middle[nearest, 0]) == patches
    labels = [
        np.where(covered, color, HEADS["color"] - 1),
        np.where(covered, shape, HEADS["shape"] - 1),
        np.where(covered, large, HEADS["size"] - 1),
        np.where(covered, color * len(_SHAPES) + shape, HEADS["name"] - 1),
        center & covered,
        np.full(grid**2, BACKGROUNDS.index(scene.background)),
    ]
    return np.stack(labels, axis=-1).astype(np.int64), boxes[nearest]


def patch_tensors(scenes: Sequence[Scene], grid: int) -> dict[str, Tensor]:
    """Return `patch_targets` of B scenes: `patches` (B, grid², len(HEADS)) and `boxes` (B, grid², 4)."""
    targets = [patch_targets(scene, grid) for scene in scenes]
    return {
        "patches": torch.from_numpy(np.stack([labels for labels, _ in targets])),
        "boxes": torch.from_numpy(np.stack([boxes for _, boxes in targets])),
    }


class Probe(nn.Module):
    """Linear readouts of patch states (B, patches, width): logits of every head, then a box of 4 numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, sum(HEADS.values()) + 4)

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        """Return the logits of each head (B, patches, classes), and `box` (B, patches, 4)."""
        parts = self.readout(self.norm(states)).split([*HEADS.values(), 4], dim=-1)
        return dict(zip([*HEADS, "box"], parts, strict=True))


class ProbedVision(nn.Module):
    """The ViT with linear readouts on the patch states of its last block, before the last norm, as LION reads them."""

    def __init__(self, vision: InstructBlipVisionModel, probe: Probe) -> None:
        super().__init__()
        self.vision, self.probe = vision, probe

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Return the readouts' output for pixels (B, 3, H, W), without the class token."""
        states = self.vision.embeddings(pixel_values)
        for layer in self.vision.encoder.layers:
            states = layer(states)
        return self.probe(states[:, 1:])


class SceneImages:
    """Drawn scenes for the training loop: pixels, and the object under each patch."""

    ratios = None

    def __init__(self, settings: VisionSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._processor = image_processor(settings.image_size)
        self.pools = (settings.scenes,)
        self.validation = [Draw(1, index, 0) for index in range(settings.validation_scenes)]

    def load(self, draw: Draw) -> Entry:
        """Return the scene of a draw. Pool 1 has the held-out scenes."""
        return entry(*scene_key(self._seed, draw.index, draw.pool > 0), self._settings.small_fraction)

    def collate(self, samples: Sequence[Entry]) -> Batch:
        """Return pixels, and for each patch the labels (B, patches, heads) and boxes (B, patches, 4)."""
        grid = self._settings.image_size // self._settings.patch_size
        pixels = self._processor([sample.draw() for sample in samples], return_tensors="pt")["pixel_values"]
        tensors = {"pixel_values": pixels, **patch_tensors([sample.scene for sample in samples], grid)}
        return Batch(tensors, float(len(samples)), tuple(str(sample.image_id) for sample in samples))


@dataclasses.dataclass(frozen=True)
class VisionTask:
    """The pre-training of the ViT as a task of the training loop."""

    settings: VisionSettings
    seed: int

    base: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Sequence[str] = ("vision",)

    def build(self) -> ProbedVision:
        """Return the ViT and its readouts with random weights."""
        settings = self.settings
        config = InstructBlipVisionConfig(
            hidden_size=settings.width,
            intermediate_size=settings.feed_forward,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            image_size=settings.image_size,
            patch_size=settings.patch_size,
            layer_norm_eps=1e-6,
            initializer_range=0.04,  # the default, 1e-10, is for loading weights and trains very slowly
        )
        return ProbedVision(InstructBlipVisionModel(config), Probe(settings.width))

    def group_of(self, name: str) -> str:
        """Return the only parameter group."""
        return "vision"

    def data(self) -> SceneImages:
        """Return the drawn scenes."""
        return SceneImages(self.settings, self.seed)

    def forward(self, model: Any, batch: Batch) -> Output:
        """Return the loss over all readouts, and sums for the accuracies."""
        tensors = batch.tensors
        answers = model(pixel_values=tensors["pixel_values"])
        count = len(batch.ids)
        loss = probe_loss(answers, tensors["patches"], tensors["boxes"])
        detached = {name: value.detach() for name, value in answers.items()}
        return Output(loss * count, probe_sums(detached, tensors["patches"], tensors["boxes"]))

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the accuracy of each readout over the patches that show an object."""
        return {name: float(value / sums["patches"]) for name, value in sums.items() if name != "patches"}

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the ViT, its readouts and its image processor."""
        assert isinstance(model, ProbedVision)
        model.vision.save_pretrained(folder)
        save_file(model.probe.state_dict(), os.path.join(folder, PROBE_FILE))
        image_processor(self.settings.image_size).save_pretrained(folder)


def probe_loss(answers: Mapping[str, Tensor], labels: Tensor, boxes: Tensor) -> Tensor:
    """Return the mean loss per patch. Patches without an object have a smaller weight and no box loss."""
    shows = labels[..., 0] != HEADS["color"] - 1
    weight = torch.where(shows, 1.0, _EMPTY_PATCH_WEIGHT).flatten()
    loss = torch.zeros(())
    for position, name in enumerate(HEADS):
        each = functional.cross_entropy(answers[name].flatten(0, 1), labels[..., position].flatten(), reduction="none")
        loss = loss + _WEIGHTS[name] * (each * weight).mean()
    distance = functional.smooth_l1_loss(answers["box"], boxes, beta=_BOX_BETA, reduction="none").sum(-1)
    return loss + _BOX_WEIGHT * (distance * shows).mean()


def probe_sums(answers: Mapping[str, Tensor], labels: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Return the number of patches that show an object, and of correct labels and boxes (IoU ≥ 0.5) among them."""
    shows = labels[..., 0] != HEADS["color"] - 1
    sums = {"patches": shows.sum().double()}
    for position, name in enumerate(HEADS):
        correct = answers[name].argmax(-1) == labels[..., position]
        sums[name] = correct[shows].sum().double()
    predicted, targets = answers["box"][shows], boxes[shows]
    ends, starts = torch.minimum(predicted[:, 2:], targets[:, 2:]), torch.maximum(predicted[:, :2], targets[:, :2])
    intersection = (ends - starts).clamp_min(0).prod(-1)
    areas = (predicted[:, 2:] - predicted[:, :2]).clamp_min(0).prod(-1) + (targets[:, 2:] - targets[:, :2]).prod(-1)
    sums["box_iou_0.5"] = (intersection / (areas - intersection) >= 0.5).sum().double()
    return sums


def load_probed(folder: str) -> ProbedVision:
    """Load the ViT of a folder with its readouts, in float32 and eval mode."""
    vision = InstructBlipVisionModel.from_pretrained(folder, dtype=torch.float32)
    probe = Probe(vision.config.hidden_size)
    probe.load_state_dict({k: v.float() for k, v in load_file(os.path.join(folder, PROBE_FILE)).items()})
    return ProbedVision(vision, probe).eval()
