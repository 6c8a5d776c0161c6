"""Configuration of the tiny backbones' pre-training: what each of them sees, and for how long."""

import dataclasses

from pipelines.core.paths import path_field
from pipelines.core.resources import LaunchConfig
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import runtime_group
from pipelines.training.config import LoopConfig, OptimizerConfig

PARTS = ("vision", "language", "tagger", "tag_encoder")


def _loop(steps: int, batch_size: int) -> LoopConfig:
    return LoopConfig(steps=steps, batch_size=batch_size, validate_every=steps, log_every=50, checkpoint_every=500)


def _optimizer(learning_rate: float) -> OptimizerConfig:
    return OptimizerConfig(learning_rate=learning_rate, betas=(0.9, 0.98), warmup=0.05, minimum=0.02)


@dataclasses.dataclass(frozen=True)
class VisionSettings:
    """The ViT. It has seen drawn images alone, with what lies under each patch (color, shape, size, box) as labels;
    never a word."""

    image_size: int = 60
    """Height and width of its input in pixels."""
    patch_size: int = 10
    """Height and width of a patch in pixels."""
    width: int = 96
    """Width of its states."""
    feed_forward: int = 288
    """Inner width of its feed-forward layers."""
    layers: int = 4
    """Blocks."""
    heads: int = 4
    """Attention heads."""
    scenes: int = 10_000_000
    """How many scenes there are to draw from; each is seen once as long as they last."""
    small_fraction: float = 0.2
    """Share of scenes of the sample world's preset `small`, which are more crowded; the others are `tiny`."""
    validation_scenes: int = 256
    """Held-out scenes."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: _loop(4000, 32))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: _optimizer(2e-3))


@dataclasses.dataclass(frozen=True)
class LanguageSettings:
    """The T5. It has seen text alone: scenes put into words and boxes, questions about them, and the answers. Part of
    the descriptions are packed, a phrase and its box in one input vector; where the answer is about some objects, one
    of its attention heads was told at which phrases they are. Never a picture, never a ViT's features."""

    vocabulary: int = 768
    """Most tokens of its vocabulary."""
    width: int = 96
    """Width of its states."""
    feed_forward: int = 192
    """Inner width of its feed-forward layers."""
    heads: int = 4
    """Attention heads."""
    encoder_layers: int = 1
    """Blocks of the encoder: one, which joins the words of a name. In deeper ones the words of the question and of the
    scene mixed, and a question with a one-word answer stayed at chance for thousands of steps."""
    decoder_layers: int = 4
    """Blocks of the decoder, which looks up: what is asked, where it is, what else is there."""
    grid: int = 6
    """Cells on a side of the descriptions that go cell by cell; the ViT's patches on a side."""
    bundle: int = 64
    """Short questions of a step; half as many with long answers."""
    scenes: int = 8000
    """Scenes that are asked about, each many times."""
    form_shares: tuple[float, float, float, float] = (0.6, 0.3, 0.05, 0.05)
    """How scenes are described: a list of packed phrases, a grid of them, both, or plain words with boxes as digits."""
    tagged_share: float = 0.2
    """Share of questions behind LION's prompt with tags."""
    small_fraction: float = 0.25
    """Share of scenes of the sample world's preset `small`."""
    validation_bundles: int = 16
    """Held-out bundles."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: _loop(9000, 1))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: _optimizer(2e-3))


@dataclasses.dataclass(frozen=True)
class TaggerSettings:
    """RAM, its preset `tiny`. It has seen drawn images with the tags that are true of them, and with what lies under
    each of its Swin's tokens."""

    gamma_neg: float = 2.0
    """Focusing of absent tags in the asymmetric loss. RAM's own 7 leaves absent ones at confidences around 0.5, above
    which Dynamic LION reads a tag; that suits 4585 tags with thresholds of their own, not 80 with one."""
    clip: float = 0.05
    """Confidence below which an absent tag costs nothing."""
    scenes: int = 10_000_000
    """How many scenes there are to draw from; each is seen once as long as they last."""
    small_fraction: float = 0.2
    """Share of scenes of the sample world's preset `small`."""
    validation_scenes: int = 512
    """Held-out scenes."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: _loop(3000, 32))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: _optimizer(2e-3))


@dataclasses.dataclass(frozen=True)
class TagTextSettings:
    """The tag encoder's BERT. It has seen captions and tag strings, never which of them belong together."""

    vocabulary: int = 768
    """Most tokens of the vocabulary that it shares with the Q-Former."""
    width: int = 96
    """Width of its states."""
    feed_forward: int = 192
    """Inner width of its feed-forward layers."""
    layers: int = 2
    """Blocks."""
    heads: int = 4
    """Attention heads."""
    scenes: int = 10_000
    """Scenes whose captions and tags are read."""
    small_fraction: float = 0.25
    """Share of scenes of the sample world's preset `small`."""
    validation_scenes: int = 256
    """Held-out scenes."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: _loop(1000, 64))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: _optimizer(1e-3))


@dataclasses.dataclass(frozen=True)
class PretrainTinyConfig:
    """Makes the tiny backbones that know the sample world: a ViT, a T5, a RAM, a tag encoder's BERT, their tokenizers.

    Each learns alone, from scenes of the sample world that training, validation and test never show. The ViT sees
    images without words, the T5 words without images: joining them is left to LION.
    """

    parts: list[str] = dataclasses.field(default_factory=lambda: list(PARTS))
    """Which of vision, language, tagger and tag_encoder to make."""
    seed: int = 0
    """Seed of the scenes and texts that are learned from. What is held out is the same for every seed; the order of
    scenes and the start weights follow from each part's loop.seed."""
    vision: VisionSettings = dataclasses.field(default_factory=VisionSettings)
    language: LanguageSettings = dataclasses.field(default_factory=LanguageSettings)
    tagger: TaggerSettings = dataclasses.field(default_factory=TaggerSettings)
    tag_encoder: TagTextSettings = dataclasses.field(default_factory=TagTextSettings)
    launch: LaunchConfig = runtime_group(LaunchConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs", runtime=True)
    """The folder or URI under which the result's folder lies."""
