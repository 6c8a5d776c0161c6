"""Configuration that all trainings share. Nothing heavy is imported here: `--help` reads it."""

import dataclasses
import math
from typing import Literal

from models.tags import TOP_K, Threshold, check_threshold
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.resources import LaunchConfig
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import runtime_field, runtime_group
from pipelines.registry import RegistryConfig

Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant"]


def require_seed(name: str, seed: int) -> None:
    """Refuse a seed that NumPy's generators do not take.

    Raises:
        UserError: it is below 0.
    """
    if seed < 0:
        raise UserError(f"{name} is {seed}; a seed is 0 or more.")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a learning rate and weight decay per named group of parameters."""

    learning_rate: float = 1e-5
    """Learning rate after the warm-up."""
    learning_rate_scale: dict[str, float] = dataclasses.field(default_factory=dict)
    """Multiples of the learning rate by parameter group, such as projector: 5.0."""
    weight_decay: float = 0.05
    """Decoupled weight decay; parameters of fewer than two dimensions (biases, norms, scales) have none."""
    weight_decay_of: dict[str, float] = dataclasses.field(default_factory=dict)
    """Weight decay by parameter group, where it differs."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the two moments."""
    epsilon: float = 1e-8
    """AdamW's epsilon."""
    warmup: float = 0.0
    """Steps of linear warm-up; below 1 it is a fraction of all steps."""
    schedule: Schedule = "cosine"
    """How the learning rate falls after the warm-up."""
    minimum: float = 0.0
    """Fraction of the learning rate that the schedule ends at."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 never clips."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.warmup < 0 or self.clip_norm < 0 or not 0 <= self.minimum <= 1:
            raise UserError(
                "The learning rate must be above 0, warm-up and clip norm not below 0, and minimum between 0 and 1; "
                f"they are {self.learning_rate:g}, {self.warmup:g}, {self.clip_norm:g} and {self.minimum:g}."
            )

    def factor(self, step: int, steps: int) -> float:
        """What the learning rates are multiplied by in `step` (0 is the first) of `steps`.

        The first step of a warm-up of n has 1/n and the n-th has 1, so that no step is lost at a rate of zero.
        """
        warmup = math.ceil(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule == "constant":
            return 1.0
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1 - progress
        return self.minimum + (1 - self.minimum) * fall


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """What a training does step by step."""

    epochs: float = 1.0
    """Passes over the training samples."""
    steps: int | None = None
    """Number of optimizer steps; wins over epochs."""
    batch_size: int = 16
    """Samples of one optimizer step, over all workers."""
    seed: int = 0
    """Seed of the order of samples, of what is drawn for a sample, of dropout, and of the start weights of parts that
    are new in this training. The held-out part has a seed of its own, held_out_seed."""
    precision: Precision = "fp32"
    """fp32; or bf16 or fp16, with fp32 master weights and optimizer state. fp16 needs GPUs; its loss is scaled so that
    small gradients do not vanish, and a step whose gradients overflow is left out."""
    validate_every: int | None = None
    """Steps between validations; empty: after each epoch. The last step is always followed by one."""
    choose: Literal["last", "best"] = "last"
    """Which weights become the result: those of the last step, or of the lowest validation loss."""
    micro_batch_size: int | None = runtime_field(None)
    """Samples that a worker computes at once; gradients accumulate over the rest. Empty: its whole share."""
    zero_stage: Literal[0, 1, 2, 3] = runtime_field(0)
    """What DeepSpeed ZeRO shards: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters. In bf16 and
    fp16, 0 is taken as 1."""
    offload: bool = runtime_field(False)
    """Keeps the optimizer state in CPU memory (ZeRO 1-3)."""
    checkpoint_every: int = runtime_field(200)
    """Steps between checkpoints; each validation is followed by one, too."""
    keep_checkpoints: int = runtime_field(2)
    """How many of the latest checkpoints stay, besides the best one."""
    keep_after: bool = runtime_field(False)
    """Keeps the checkpoints when the training has finished; the model itself always stays."""
    log_every: int = runtime_field(10)
    """Steps between records of loss, learning rate, gradient norm and speed."""
    loader_threads: int = runtime_field(2)
    """Threads of each worker that read and decode samples ahead of the loop."""
    prefetch: int = runtime_field(4)
    """Optimizer steps whose samples are read ahead."""
    trace: bool = runtime_field(False)
    """Writes each worker's sample ids and losses of every step to `trace/` (to find what a spike came from)."""

    def __post_init__(self) -> None:
        positive = {
            "epochs": self.epochs,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "validate_every": self.validate_every,
            "micro_batch_size": self.micro_batch_size,
            "checkpoint_every": self.checkpoint_every,
            "keep_checkpoints": self.keep_checkpoints,
            "log_every": self.log_every,
            "loader_threads": self.loader_threads,
            "prefetch": self.prefetch,
        }
        for name, value in positive.items():
            if value is not None and value <= 0:
                raise UserError(f"loop.{name} is {value:g}; it must be above 0.")
        require_seed("loop.seed", self.seed)
        if self.offload and self.zero_stage == 0:
            raise UserError("loop.offload needs a ZeRO stage: set loop.zero_stage to 1, 2 or 3.")


def require_reading(top_k: int | None, threshold: Threshold | None) -> None:
    """Refuse settings by which no tag can be read.

    Raises:
        UserError: `top_k` is below 1, or `threshold` is no confidence.
    """
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}; read at least one tag, or leave it out.")
    try:
        check_threshold(0.0 if threshold is None else threshold)
    except ValueError as error:
        raise UserError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class TrainTagEncoderConfig:
    """Trains the tag encoder: tags with confidences near their image's caption, far from another image's."""

    data: str = path_field("input")
    """Folder of the `tagged` table: the `path` of the precompute step."""
    base: str = path_field("model", "minilm", names=("minilm", "tiny"))
    """What it starts from: a BERT's or a tag encoder's folder, models:/NAME@ALIAS, `minilm` (all-MiniLM-L6-v2, which
    comes with the requirements), or `tiny` (random weights, for trials)."""
    margin: float = 1.0
    """How much nearer the positive must be than the negative, in the unit of the vectors."""
    p: float = 2.0
    """Order of the distance's norm."""
    positive: Literal["centroid", "mean"] = "centroid"
    """What stands for an image, that the tags are drawn to or pushed away from: the caption nearest the centroid of its
    captions, or the mean of the encoder's vectors of all its captions."""
    pooling: Literal["cls", "mean", "confidence"] = "cls"
    """What of the token states becomes the vector; `confidence` weighs each tag's tokens by its confidence."""
    normalize: bool = False
    """Vectors of length 1: with p = 2, distances are then between 0 and 2 whatever the encoder, and a margin of 0.5 to
    1 is strong (with p = 1 they reach twice the root of the width, and such a margin is weak). Without it a BERT's
    vectors are about as long as the root of its width, and a margin of 1 asks for very little."""
    dropout: float | None = None
    """Dropout in the encoder; empty: the base's own."""
    top_k: int = TOP_K
    """Most tags of an image that are read."""
    threshold: Literal["per_tag"] | float | None = None
    """What a tag's confidence must be above to be read: a number for all, or per_tag, each tag's own threshold; empty:
    per_tag where the table has its tagger's thresholds, else 0.5."""
    tag_order: Literal["list", "confidence"] = "confidence"
    """confidence: the surest tag first. list: the order of the tagger's list, as RAM writes tags."""
    max_length: int = 512
    """Longest text in tokens; at most the positions of the base."""
    validation_fraction: float = 0.05
    """Part of the images that is held out."""
    held_out_seed: int = 0
    """Seed of the held-out part: which images it has, and which caption stands against each. It does not follow
    loop.seed, so that trainings of different seeds are validated on the same samples. Keep it and validation_fraction
    the same in the tag encoder and in all stages: else a stage is validated on images that an earlier training learned
    from."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: LoopConfig(epochs=5, batch_size=16))
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=5e-5, weight_decay=0.01, warmup=0.05)
    )
    name: str = runtime_field("lion-tag-encoder")
    """The model's name in the registry."""
    launch: LaunchConfig = runtime_group(LaunchConfig)
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs", runtime=True)
    """The folder or URI under which the result's folder lies."""

    def __post_init__(self) -> None:
        require_seed("held_out_seed", self.held_out_seed)
        require_reading(self.top_k, self.threshold)


@dataclasses.dataclass(frozen=True)
class PromptSettings:
    """What stands before the question; see `models.lion.PromptConfig`."""

    kind: Literal["none", "static", "dynamic", "both"] = "static"
    """static: LION's one learned vector. dynamic: vectors of the image's own, from its tags and confidences. both: the
    learned one first. none: the question alone."""
    tokens: int = 1
    """Vectors per image of a dynamic prompt."""
    projector: Literal["linear", "mlp"] = "linear"
    """From the tag encoder's width to the language model's."""
    tags_in_text: bool = True
    """Whether the prompt's text lists the tags."""
    confidence_in_text: bool = False
    """Whether each listed tag carries its confidence."""
    pooling: Literal["cls", "mean", "confidence"] | None = None
    """How the tag encoder pools; empty: as it was trained."""

    @property
    def dynamic(self) -> bool:
        """Whether a tag encoder is read."""
        return self.kind in ("dynamic", "both")


_IMAGE = ("q_former", "query_tokens", "t5_projection", "ln_vision", "image_adapter")
_REGION = ("vision_aggregator", "region_adapter")
# LION's stages (arXiv 2311.11860, section 3.3); the prompt's own parts are added to each.
STAGE_GROUPS: dict[int, tuple[str, ...]] = {1: _IMAGE, 2: _REGION, 3: (*_IMAGE, *_REGION, "router")}
STAGE_MIX: dict[int, dict[str, float]] = {1: {"image": 1.0}, 2: {"region": 1.0}, 3: {"image": 1.0, "region": 1.0}}


@dataclasses.dataclass(frozen=True)
class TrainStageConfig:
    """Trains one of LION's stages; ViT, T5 and the tag encoder stay frozen."""

    data: str = path_field("input")
    """Folder of the `instructions` table."""
    tagged: str = path_field("input")
    """Folder of the `tagged` table, which has the images and their tags."""
    parents: list[str] | str = path_field("model")
    """Where LION's weights come from: a model's folder, a step's folder or models:/NAME@ALIAS. Stage 3 takes two, of
    stage 1 and of stage 2, and merges them: '[models:/lion-stage1@champion, models:/lion-stage2@champion]'."""
    stage: Literal[1, 2, 3] = 1
    """1 image level, 2 region level, 3 both with the router: decides what is trained, and on which data."""
    prompt: PromptSettings = dataclasses.field(default_factory=PromptSettings)
    tag_encoder: str | None = path_field("model", None)
    """The trained tag encoder of a dynamic prompt: a folder or models:/NAME@ALIAS; empty: the parent's own."""
    groups: list[str] = dataclasses.field(default_factory=list)
    """Parameter groups to train instead of the stage's; see `models.lion.groups`."""
    fp32_groups: list[str] = dataclasses.field(default_factory=list)
    """Parameter groups, trained or frozen, that compute in fp32 where loop.precision is lower, such as router and
    ln_vision; the model keeps that when it is loaded again. Not with ZeRO 3."""
    mix: dict[str, float] = dataclasses.field(default_factory=dict)
    """Ratios of a batch by level or task instead of the stage's, such as image: 1 and region: 1."""
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    """Weights of data sets within their level or task, by name: one of weight 2 is drawn twice as often as its size
    says, one of 0 never. Empty: by size. How many epochs each set gets is printed before training."""
    augment: bool = False
    """Flips and crops pictures of region level with their boxes and words such as left, wherever that keeps the answer
    true."""
    projector_scale: float = 5.0
    """Multiple of the learning rate for the dynamic prompt's projector."""
    top_k: int | None = None
    """Most tags of an image that the prompt's text lists; empty: 40. A tag encoder reads as it was trained to, whatever
    this, threshold and tag_order are."""
    threshold: Literal["per_tag"] | float | None = None
    """What a tag's confidence must be above to be read: a number for all, or per_tag, each tag's own threshold; empty:
    per_tag where the table has its tagger's thresholds, else 0.5."""
    tag_order: Literal["list", "confidence"] = "confidence"
    """How the text lists tags. confidence: the surest first. list: in the order of the tagger's list, as RAM writes
    them and the released LION was trained."""
    max_text_length: int = 128
    """Longest prompt in T5's tokens; a longer one loses its least confident tags."""
    max_answer_length: int = 128
    """Longest answer in T5's tokens."""
    validation_fraction: float = 0.05
    """Part of the images that is held out."""
    held_out_seed: int = 0
    """Seed of the held-out part: which images it has, which samples are used, and which answer of each. It does not
    follow loop.seed, so that trainings of different seeds are validated on the same samples. Keep it and
    validation_fraction the same in the tag encoder and in all stages: else a stage is validated on images that an
    earlier training learned from."""
    validation_samples: int = 512
    """Most samples of the held-out images that are used."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: LoopConfig(epochs=1, batch_size=64))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig(warmup=0.05))
    gradient_checkpointing: bool = runtime_field(False)
    """Computes activations again in the backward pass instead of keeping them."""
    name: str = runtime_field("")
    """The model's name in the registry; empty: lion-stage1, lion-stage2 or lion-stage3."""
    launch: LaunchConfig = runtime_group(LaunchConfig)
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs", runtime=True)
    """The folder or URI under which the result's folder lies."""

    def __post_init__(self) -> None:
        require_seed("held_out_seed", self.held_out_seed)
        require_reading(self.top_k, self.threshold)
        if wrong := {name: value for name, value in self.weights.items() if value < 0}:
            raise UserError(f"weights has {wrong}; a weight is 0 or more.")
        if self.fp32_groups and (self.loop.precision == "fp32" or self.loop.zero_stage == 3):
            raise UserError(
                f"fp32_groups is {self.fp32_groups}, which needs loop.precision bf16 or fp16 and loop.zero_stage below "
                f"3; they are {self.loop.precision} and {self.loop.zero_stage}."
            )

    @property
    def parent_list(self) -> list[str]:
        """The parents as a list."""
        return [self.parents] if isinstance(self.parents, str) else list(self.parents)

    @property
    def held_out(self) -> tuple[float, int]:
        """What decides which images are held out: their part of all images, and the seed."""
        return self.validation_fraction, self.held_out_seed

    @property
    def trained_groups(self) -> list[str]:
        """What is trained: the named groups, else the stage's with the prompt's own parts."""
        if self.groups:
            return list(self.groups)
        parts = {"static": ["prompt"], "dynamic": ["projector"], "both": ["prompt", "projector"], "none": []}
        return [*STAGE_GROUPS[self.stage], *parts[self.prompt.kind]]

    @property
    def ratios(self) -> dict[str, float]:
        """The mix of the data: as configured, else the stage's."""
        return dict(self.mix) or STAGE_MIX[self.stage]

    @property
    def model_name(self) -> str:
        """The name in the registry."""
        return self.name or f"lion-stage{self.stage}"
