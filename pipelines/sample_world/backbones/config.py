"""Configuration of the pre-training of the tiny backbones: their sizes, their data, and the length of training."""

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
    """The ViT. Its data are drawn images, with the object under each patch (color, shape, size, box) as labels, and no
    text."""

    image_size: int = 60
    """Height and width of the input in pixels; a multiple of `patch_size`."""
    patch_size: int = 10
    """Height and width of a patch in pixels."""
    width: int = 96
    """Width of the hidden states."""
    feed_forward: int = 288
    """Inner width of the feed-forward layers."""
    layers: int = 4
    """Number of blocks."""
    heads: int = 4
    """Number of attention heads."""
    scenes: int = 10_000_000
    """Number of scenes to draw from. Each is used once before any is repeated."""
    small_fraction: float = 0.2
    """Fraction of scenes of the sample world's preset `small`, which have more objects; the others are `tiny`."""
    validation_scenes: int = 256
    """Number of held-out scenes for validation."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: _loop(4000, 32))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: _optimizer(2e-3))


@dataclasses.dataclass(frozen=True)
class LanguageSettings:
    """The T5. Its data are text: scenes described in words and boxes, questions about them, and the answers. Most
    descriptions are packed: one input vector is the sum of a phrase and its box. If an answer is about certain objects,
    a loss guides one attention head to their phrases. It has no images and no features of a ViT."""

    vocabulary: int = 768
    """Largest number of tokens in the vocabulary."""
    width: int = 96
    """Width of the hidden states."""
    feed_forward: int = 192
    """Inner width of the feed-forward layers."""
    heads: int = 4
    """Number of attention heads."""
    encoder_layers: int = 1
    """Number of encoder blocks. One joins the words of a name. With more, the words of question and scene mixed, and
    one-word answers stayed at the level of guessing for thousands of steps."""
    decoder_layers: int = 4
    """Number of decoder blocks. An answer needs several look-ups: the subject of the question, its phrase, its box."""
    grid: int = 6
    """Cells per side of the descriptions in the form of a grid; equal to the ViT's patches per side."""
    bundle: int = 64
    """Number of questions in a step. Kinds with longer answers have fewer."""
    scenes: int = 8000
    """Number of scenes; there are many questions about each."""
    form_shares: tuple[float, float, float, float] = (0.6, 0.3, 0.05, 0.05)
    """Fractions of the forms of description: a list of packed phrases, a grid of packed phrases, both, or plain words
    with boxes as digits."""
    tagged_share: float = 0.2
    """Fraction of noisy bundles whose questions follow LION's prompt with tags."""
    small_fraction: float = 0.25
    """Fraction of scenes of the sample world's preset `small`."""
    validation_bundles: int = 16
    """Number of held-out bundles for validation."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: _loop(9000, 1))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: _optimizer(2e-3))


@dataclasses.dataclass(frozen=True)
class TaggerSettings:
    """RAM, preset `tiny`. Its data are drawn images with their true tags, and with the object under each token of its
    Swin as labels."""

    gamma_neg: float = 2.0
    """Focusing of absent tags in the asymmetric loss. RAM's own value, 7, leaves absent tags at confidences near 0.5,
    the threshold of Dynamic LION. That suits RAM's 4585 tags with a threshold each, not 80 tags with one threshold."""
    clip: float = 0.05
    """Confidence below which an absent tag adds nothing to the loss."""
    scenes: int = 10_000_000
    """Number of scenes to draw from. Each is used once before any is repeated."""
    small_fraction: float = 0.2
    """Fraction of scenes of the sample world's preset `small`."""
    validation_scenes: int = 512
    """Number of held-out scenes for validation."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: _loop(3000, 32))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: _optimizer(2e-3))


@dataclasses.dataclass(frozen=True)
class TagTextSettings:
    """The BERT of the tag encoder. Its data are captions and tag strings, without which of them belong together."""

    vocabulary: int = 768
    """Largest number of tokens in the vocabulary, which the Q-Former uses, too."""
    width: int = 96
    """Width of the hidden states."""
    feed_forward: int = 192
    """Inner width of the feed-forward layers."""
    layers: int = 2
    """Number of blocks."""
    heads: int = 4
    """Number of attention heads."""
    scenes: int = 10_000
    """Number of scenes whose captions and tags are used."""
    small_fraction: float = 0.25
    """Fraction of scenes of the sample world's preset `small`."""
    validation_scenes: int = 256
    """Number of held-out scenes for validation."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: _loop(1000, 64))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: _optimizer(1e-3))


@dataclasses.dataclass(frozen=True)
class PretrainTinyConfig:
    """Pre-trains the tiny backbones on the sample world: a ViT, a T5, a RAM, a tag encoder's BERT, and tokenizers.

    Each is trained separately, on scenes that are not in the splits train, val and test. The ViT has images without
    text, the T5 text without images: LION's training connects them.
    """

    parts: list[str] = dataclasses.field(default_factory=lambda: list(PARTS))
    """The backbones to pre-train: any of vision, language, tagger and tag_encoder."""
    seed: int = 0
    """Seed of the scenes and texts for training. The held-out scenes are the same for every seed. Each part's
    `loop.seed` decides the order of scenes and the initial weights."""
    vision: VisionSettings = dataclasses.field(default_factory=VisionSettings)
    language: LanguageSettings = dataclasses.field(default_factory=LanguageSettings)
    tagger: TaggerSettings = dataclasses.field(default_factory=TaggerSettings)
    tag_encoder: TagTextSettings = dataclasses.field(default_factory=TagTextSettings)
    launch: LaunchConfig = runtime_group(LaunchConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs", runtime=True)
    """Folder for the step's folder; it must be local."""
