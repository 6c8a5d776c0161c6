"""The configurations of trainings. This module imports nothing heavy, so that `--help` is fast."""

import dataclasses
import math
from typing import Literal

from models.lion.prompts import prompt_design, prompt_kinds
from models.tags import TOP_K, Threshold, check_threshold
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.resources import LaunchConfig
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import later_field, runtime_field, runtime_group
from pipelines.registry import RegistryConfig

Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant"]


def require_seed(name: str, seed: int) -> None:
    """Refuse a seed that NumPy's generators do not accept.

    Raises:
        UserError: the seed is below 0.
    """
    if seed < 0:
        raise UserError(f"{name} is {seed}; set it to 0 or more.")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, with a learning rate and a weight decay for each parameter group."""

    learning_rate: float = 1e-5
    """Learning rate at the end of the warm-up, such as 1e-5."""
    learning_rate_scale: dict[str, float] = dataclasses.field(default_factory=dict)
    """Factors of the learning rate by parameter group, such as {projector: 5.0}; other groups have the factor 1."""
    weight_decay: float = 0.05
    """Decoupled weight decay. Parameters with fewer than two dimensions (biases, norms, scales) have none."""
    weight_decay_of: dict[str, float] = dataclasses.field(default_factory=dict)
    """Weight decay by parameter group, such as {projector: 0.0}; other groups have weight_decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    epsilon: float = 1e-8
    """AdamW's epsilon, which is added to the denominator of an update."""
    warmup: float = 0.0
    """Length of the linear warm-up: number of steps, or a fraction of all steps if it is below 1 (0.05 is 5 %)."""
    schedule: Schedule = "cosine"
    """How the learning rate changes after the warm-up: falls as a cosine, falls linearly, or stays constant."""
    minimum: float = 0.0
    """Learning rate at the end of the schedule, as a fraction of learning_rate; in [0, 1]."""
    clip_norm: float = 1.0
    """Gradients with a larger global norm are scaled down to this norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.warmup < 0 or self.clip_norm < 0 or not 0 <= self.minimum <= 1:
            raise UserError(
                "optimizer.learning_rate must be above 0, optimizer.warmup and optimizer.clip_norm 0 or more, and "
                f"optimizer.minimum from 0 to 1; they are {self.learning_rate:g}, {self.warmup:g}, {self.clip_norm:g} "
                f"and {self.minimum:g}."
            )

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rates in a step.

        The first step of a warm-up of n steps has the factor 1/n and the n-th step has 1: no step has a rate of 0.

        Args:
            step: the number of the step, from 0.
            steps: number of all steps.
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
    """Length, batches, precision, validation and checkpoints of a training."""

    epochs: float = 1.0
    """Number of passes over the training samples, such as 0.5 or 3; steps overrides it."""
    steps: int | None = None
    """Number of optimizer steps; overrides epochs if set."""
    batch_size: int = 16
    """Number of samples of one optimizer step, summed over all workers."""
    seed: int = 0
    """Seed of the order of samples, of random choices for a sample, of dropout, and of the start weights of new parts
    of the model. The held-out part depends on held_out_seed instead."""
    precision: Precision = "fp32"
    """Precision of weights and activations. bf16 and fp16 have fp32 master weights and optimizer state. fp16 needs
    GPUs; it scales the loss so that small gradients do not vanish, and skips the update when gradients overflow."""
    validate_every: int | None = None
    """Number of steps between validations; empty: validate after each epoch. The last step is always validated."""
    choose: Literal["last", "best"] = "last"
    """Weights that become the result: those of the last step, or those with the lowest validation loss."""
    micro_batch_size: int | None = runtime_field(None)
    """Most samples that a worker computes in one forward pass; gradients are accumulated over the passes. Lower it when
    the GPU runs out of memory: the result stays the same. Empty: the worker's whole share of a batch."""
    zero_stage: Literal[0, 1, 2, 3] = runtime_field(0)
    """What DeepSpeed ZeRO shards over the workers: 0 nothing, 1 the optimizer state, 2 also gradients, 3 also
    parameters. In bf16 and fp16, 0 is run as 1."""
    offload: bool = runtime_field(False)
    """Whether the optimizer state is in CPU memory, which saves GPU memory and slows the training down; needs
    zero_stage 1, 2 or 3."""
    checkpoint_every: int = runtime_field(200)
    """Number of steps between checkpoints; there is also one after each validation."""
    keep_checkpoints: int = runtime_field(2)
    """Number of the latest checkpoints that stay; the one with the lowest validation loss always stays."""
    keep_after: bool = runtime_field(False)
    """Whether the checkpoints stay after the training; the model itself always stays."""
    log_every: int = runtime_field(10)
    """Number of steps between two records of loss, learning rates, gradient norm and speed."""
    loader_threads: int = runtime_field(2)
    """Number of threads of each worker that read and decode samples ahead of the loop. Raise it when the progress lines
    show time spent waiting for data."""
    prefetch: int = runtime_field(4)
    """Number of optimizer steps whose samples are read ahead."""
    trace: bool = runtime_field(False)
    """Whether each worker writes the loss and its sample ids of every step to `trace/`, to find the samples of a loss
    spike."""
    callbacks: tuple[str, ...] = later_field(())
    """Additional callbacks, which can use the model and the engine: names registered with `register_callback`, or paths
    of classes in a package on PYTHONPATH, such as [my_package.ema:Ema]."""

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
    """Refuse settings with which no tag can be read.

    Raises:
        UserError: `top_k` is below 1, or `threshold` is not in [0, 1].
    """
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}; set it to at least 1, or leave it out.")
    try:
        check_threshold(0.0 if threshold is None else threshold)
    except ValueError as error:
        raise UserError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class TrainTagEncoderConfig:
    """The training of the tag encoder: an image's tags get a vector near that of its caption."""

    data: str = path_field("input")
    """Folder of the `tagged` table: the `path` of a precompute step."""
    base: str = path_field("model", "minilm", names=("minilm", "tiny"))
    """Start of the encoder: folder of a BERT or a tag encoder, models:/NAME@ALIAS, `minilm` (all-MiniLM-L6-v2, which is
    installed with the requirements), or `tiny` (random weights, for tests)."""
    loss: str = later_field("triplet")
    """The loss: `triplet`, a name that was registered with `register_loss`, or the path of a function in a package on
    PYTHONPATH, such as my_package.losses:cosine_loss."""
    margin: float = 1.0
    """How much nearer to the tags the image's caption must be than the other caption, as a distance of vectors."""
    p: float = 2.0
    """Order of the norm of the distance: 2 is Euclidean, 1 is Manhattan."""
    positive: Literal["centroid", "mean"] = "centroid"
    """The vector that represents an image. centroid: that of the caption nearest the centroid of its captions. mean:
    the mean of the vectors of all its captions."""
    pooling: Literal["cls", "mean", "confidence"] = "cls"
    """How token states become one vector. cls: the first token. mean: the mean of all tokens. confidence: the mean,
    with each tag's tokens weighted by its confidence."""
    normalize: bool = False
    """Whether vectors are scaled to length 1. Distances are then between 0 and 2 (with p = 2), and a margin of 0.5 to 1
    is strong; with p = 1 they reach twice the square root of the width, and that margin is weak. Without scaling, the
    length of a BERT's vectors is about the square root of the width, and a margin of 1 is very weak."""
    dropout: float | None = None
    """Dropout in the encoder, such as 0.1; empty: as in the base."""
    top_k: int = TOP_K
    """Largest number of tags of an image that are read."""
    threshold: Literal["per_tag"] | float | None = None
    """A tag is read if its confidence is above this: a number for all tags, or per_tag for the tagger's threshold of
    each tag. Empty: per_tag if the table has its tagger's thresholds, else 0.5."""
    tag_order: Literal["list", "confidence"] = "confidence"
    """Order of the tags. confidence: by falling confidence. list: as in the tagger's list, as RAM writes tags."""
    max_length: int = 512
    """Longest text in tokens; longer texts are cut. The number of positions of the base is the upper limit."""
    validation_fraction: float = 0.05
    """Fraction of the images that is held out for validation."""
    held_out_seed: int = 0
    """Seed of the held-out part: its images, and the negative of each. It is separate from loop.seed, so that trainings
    of different seeds are validated on the same samples. Use the same held_out_seed and validation_fraction for the tag
    encoder and all stages: otherwise a stage is validated on images that an earlier training has seen."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: LoopConfig(epochs=5, batch_size=16))
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=5e-5, weight_decay=0.01, warmup=0.05)
    )
    name: str = runtime_field("lion-tag-encoder")
    """Name of the model in the registry."""
    launch: LaunchConfig = runtime_group(LaunchConfig)
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs", runtime=True)
    """Folder or URI in which the step creates its result folder."""

    def __post_init__(self) -> None:
        require_seed("held_out_seed", self.held_out_seed)
        require_reading(self.top_k, self.threshold)


@dataclasses.dataclass(frozen=True)
class PromptSettings:
    """The prompt in front of the question; see `models.lion.PromptConfig`."""

    kind: str = "static"
    """Vectors of the soft prompt. static: one learned vector, the same for all images, as in LION. dynamic: vectors
    made of the image's tags and confidences. both: the learned vector, then the dynamic ones. none: no soft prompt, the
    question alone. Or the name of a design that was registered with `models.lion.prompts.register_prompt`."""
    tokens: int = 1
    """Number of vectors per image of a dynamic prompt."""
    projector: Literal["linear", "mlp"] = "linear"
    """The trained projection from the width of the tag encoder to that of the language model."""
    tags_in_text: bool = True
    """Whether the prompt's text lists the tags."""
    confidence_in_text: bool = False
    """Whether the text has the confidence of each listed tag."""
    pooling: Literal["cls", "mean", "confidence"] | None = None
    """Pooling of the tag encoder; empty: as it was trained."""

    def __post_init__(self) -> None:
        if self.kind not in prompt_kinds():
            raise UserError(f"prompt.kind is {self.kind!r}; choose one of {', '.join(prompt_kinds())}.")

    @property
    def dynamic(self) -> bool:
        """Whether a tag encoder is read."""
        return prompt_design(self.kind).uses_tag_encoder

    @property
    def groups(self) -> tuple[str, ...]:
        """The parameter groups that belong to the prompt."""
        return tuple(prompt_design(self.kind).groups)


_IMAGE = ("q_former", "query_tokens", "t5_projection", "ln_vision", "image_adapter")
_REGION = ("vision_aggregator", "region_adapter")
# LION's stages (arXiv 2311.11860, section 3.3); the parts of the prompt are added to each.
STAGE_GROUPS: dict[int, tuple[str, ...]] = {1: _IMAGE, 2: _REGION, 3: (*_IMAGE, *_REGION, "router")}
STAGE_MIX: dict[int, dict[str, float]] = {1: {"image": 1.0}, 2: {"region": 1.0}, 3: {"image": 1.0, "region": 1.0}}


@dataclasses.dataclass(frozen=True)
class TrainStageConfig:
    """The training of one of LION's stages. ViT, T5 and the tag encoder stay frozen."""

    data: str = path_field("input")
    """Folder of the `instructions` table."""
    tagged: str = path_field("input")
    """Folder of the `tagged` table, with the images and their tags."""
    parents: list[str] | str = path_field("model")
    """LION from which the weights come: a model's folder, a step's folder, or models:/NAME@ALIAS. Stage 3 also accepts
    two parents, of stage 1 and stage 2, and merges them: '[models:/lion-stage1@champion,
    models:/lion-stage2@champion]'."""
    stage: Literal[1, 2, 3] = 1
    """1: image level. 2: region level. 3: both levels and the router. The stage decides which parameters are trained,
    and on which samples."""
    prompt: PromptSettings = dataclasses.field(default_factory=PromptSettings)
    tag_encoder: str | None = path_field("model", None)
    """Trained tag encoder of a dynamic prompt: a folder or models:/NAME@ALIAS; empty: the one of the parent."""
    groups: list[str] = dataclasses.field(default_factory=list)
    """Parameter groups that are trained instead of the stage's, such as [q_former, projector]; see
    `models.lion.groups`."""
    fp32_groups: list[str] = dataclasses.field(default_factory=list)
    """Parameter groups, trained or frozen, that stay in fp32 when loop.precision is bf16 or fp16, such as [router,
    ln_vision]. The saved model keeps this setting. Not with zero_stage 3."""
    mix: dict[str, float] = dataclasses.field(default_factory=dict)
    """Ratios of levels or tasks in a batch instead of the stage's, such as {image: 1, region: 1} or {caption: 2, vqa:
    1}."""
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    """Weights of data sets within their level or task, by name, such as {vqav2: 2, gqa: 0}: samples of a set of weight
    2 are drawn twice as often, and those of weight 0 never. Empty: by size. The number of epochs of each data set is
    logged before the training."""
    augment: bool = False
    """Whether images of the region level are flipped and cropped, with their boxes and words such as "left", where the
    answer stays true."""
    projector_scale: float = 5.0
    """Factor of the learning rate for the dynamic prompt's projector, unless optimizer.learning_rate_scale sets one."""
    top_k: int | None = None
    """Largest number of tags in the prompt's text; empty: 40. The tag encoder does not depend on top_k, threshold and
    tag_order: it reads tags as it was trained."""
    threshold: Literal["per_tag"] | float | None = None
    """A tag is read if its confidence is above this: a number for all tags, or per_tag for the tagger's threshold of
    each tag. Empty: per_tag if the table has its tagger's thresholds, else 0.5."""
    tag_order: Literal["list", "confidence"] = "confidence"
    """Order of the tags in the text. confidence: by falling confidence. list: as in the tagger's list, as RAM writes
    tags and as the released LION was trained."""
    max_text_length: int = 128
    """Longest prompt in tokens of T5; a longer prompt loses its least confident tags."""
    max_answer_length: int = 128
    """Longest answer in tokens of T5."""
    validation_fraction: float = 0.05
    """Fraction of the images that is held out for validation."""
    held_out_seed: int = 0
    """Seed of the held-out part: its images, its samples, and the answer of each. It is separate from loop.seed, so
    that trainings of different seeds are validated on the same samples. Use the same held_out_seed and
    validation_fraction for the tag encoder and all stages: otherwise a stage is validated on images that an earlier
    training has seen."""
    validation_samples: int = 512
    """Largest number of samples of the held-out images that a validation uses."""
    loop: LoopConfig = dataclasses.field(default_factory=lambda: LoopConfig(epochs=1, batch_size=64))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig(warmup=0.05))
    gradient_checkpointing: bool = runtime_field(False)
    """Whether activations are computed again in the backward pass instead of stored: less memory, but slower."""
    name: str = runtime_field("")
    """Name of the model in the registry; empty: lion-stage1, lion-stage2 or lion-stage3."""
    launch: LaunchConfig = runtime_group(LaunchConfig)
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs", runtime=True)
    """Folder or URI in which the step creates its result folder."""

    def __post_init__(self) -> None:
        require_seed("held_out_seed", self.held_out_seed)
        require_reading(self.top_k, self.threshold)
        if wrong := {name: value for name, value in self.weights.items() if value < 0}:
            raise UserError(f"weights has {wrong}; set each weight to 0 or more.")
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
        """The fraction and the seed that decide which images are held out."""
        return self.validation_fraction, self.held_out_seed

    @property
    def trained_groups(self) -> list[str]:
        """Parameter groups that are trained: `groups`, else those of the stage and of the prompt."""
        if self.groups:
            return list(self.groups)
        return [*STAGE_GROUPS[self.stage], *self.prompt.groups]

    @property
    def ratios(self) -> dict[str, float]:
        """Ratios of levels or tasks in a batch: `mix`, else those of the stage."""
        return dict(self.mix) or STAGE_MIX[self.stage]

    @property
    def model_name(self) -> str:
        """Name of the model in the registry."""
        return self.name or f"lion-stage{self.stage}"
