"""The training of LION's stages: the instructions table with the tags of each image, mixed by level."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.lion import (
    LEVELS,
    LionConfig,
    LionForConditionalGeneration,
    LionProcessor,
    parameter_group,
    set_trainable,
)
from models.lion.groups import all_groups
from models.lion.merge import differing_settings, merge_stages
from models.lion.precision import set_precision
from models.lion.processing import QFORMER_LENGTH
from models.lion.prompts import prompt_parts
from models.tag_encoder import TagEncoder, TagEncoderProcessor
from pipelines.core.copies import local_copy
from pipelines.core.errors import UserError
from pipelines.core.tag_rules import ModelRules
from pipelines.training.config import TrainStageConfig
from pipelines.training.data import Batch
from pipelines.training.precision import compute_dtype
from pipelines.training.reading import stage_rule
from pipelines.training.stage_data import StageData, prompt_config
from pipelines.training.task import Output

log = logging.getLogger("lion.training")


@dataclasses.dataclass(frozen=True)
class StageTask:
    """A stage's training, as the loop runs it; see `pipelines.training.task.Task`.

    Attributes:
        settings: the training's configuration.
        samples: folder of the `instructions` table.
        images: folder of the `tagged` table.
        start: folder or URI of the LION from which the weights come.
        tag_encoder: folder or URI of a trained tag encoder; None: the one of `start`, if it has one.
        digests: names and digests of the start and the tag encoder.
    """

    settings: TrainStageConfig
    samples: str
    images: str
    start: str
    tag_encoder: str | None
    digests: tuple[tuple[str, str], ...]

    @property
    def base(self) -> Mapping[str, str]:
        """Digest of each input that frozen weights come from, by name."""
        return dict(self.digests)

    @property
    def _folders(self) -> tuple[str, str | None]:
        """The folders of the start and the tag encoder on this machine."""
        return local_copy(self.start), local_copy(self.tag_encoder) if self.tag_encoder else None

    def build(self) -> LionForConditionalGeneration:
        """Return the start's LION with this training's prompt; the stage's groups require gradients."""
        return self._prepared(start_model(*self._folders, self.settings))

    def outline(self) -> LionForConditionalGeneration:
        """Return the LION of `build` on the meta device, without weights."""
        with torch.device("meta"):
            model = LionForConditionalGeneration(start_config(*self._folders, self.settings))
        set_precision(model, compute_dtype(self.settings.loop))
        return self._prepared(model)

    def longest(self, model: Any, samples: int) -> Tensor:
        """Return the loss of `samples` samples with prompts, answers and tags of the greatest lengths."""
        config = model.config

        def tokens(length: int) -> Tensor:
            return torch.ones(samples, length, dtype=torch.int64, device="meta")

        size = config.image_size
        tensors = {
            "pixel_values": torch.empty(samples, 3, size, size, device="meta"),
            "levels": tokens(1)[:, 0],
            "labels": tokens(self.settings.max_answer_length),
        }
        lengths = {"": self.settings.max_text_length, "qformer_": QFORMER_LENGTH}
        if config.prompt.dynamic:
            lengths["tag_"] = self.processor().tag_reader.max_length
            tensors["tag_token_weights"] = tokens(lengths["tag_"]).float()
        for name, length in lengths.items():
            tensors |= {f"{name}input_ids": tokens(length), f"{name}attention_mask": tokens(length)}
        return self.forward(model, Batch(tensors, 1.0, ())).loss

    def _prepared(self, model: LionForConditionalGeneration) -> LionForConditionalGeneration:
        """Return the model in training mode; exactly the stage's parameter groups require gradients."""
        try:
            set_trainable(model, self.settings.trained_groups)
        except ValueError as error:
            raise UserError(f"Stage {self.settings.stage}: {error}") from error
        if self.settings.gradient_checkpointing:
            model.activation_checkpointing_enable()
        return model.train()

    def processor(self) -> LionProcessor:
        """Return the processor of the start, with this training's prompt and tag rule.

        The tag encoder reads tags as it was trained: by the settings of its processor, or those that the parent has.
        """
        start, tag_encoder = self._folders
        config = start_config(start, tag_encoder, self.settings)
        parent = LionProcessor.from_pretrained(start)
        reader = TagEncoderProcessor.from_pretrained(tag_encoder) if tag_encoder else parent.tag_reader
        has_encoder = config.prompt.dynamic or parent.tag_encoder is not None
        rule = stage_rule(self.images, self.settings)
        try:
            return LionProcessor.for_config(
                config,
                parent.tokenizer,
                parent.qformer_tokenizer,
                reader.tokenizer,
                top_k=rule.top_k,
                threshold=rule.threshold,
                tag_order=rule.order,
                thresholds=rule.thresholds,
                max_text_length=self.settings.max_text_length,
                max_answer_length=self.settings.max_answer_length,
                tag_encoder=reader.reading if has_encoder else None,
                tag_encoder_thresholds=reader.thresholds if has_encoder else None,
            )
        except ValueError as error:
            raise UserError(f"The processor of {self.start} does not fit this training: {error}") from error

    def rules(self) -> ModelRules:
        """Return the rules by which the prompt's text lists tags, and by which the tag encoder reads them."""
        processor = self.processor()
        return ModelRules(processor.rule, processor.tag_reader.rule if self.settings.prompt.dynamic else None)

    def group_of(self, name: str) -> str:
        """Return LION's parameter group of a parameter."""
        return parameter_group(name)

    @property
    def groups(self) -> Sequence[str]:
        """The parameter groups that settings may name."""
        return all_groups()

    def data(self) -> StageData:
        """Return the training and validation samples."""
        return StageData(self.samples, self.images, self.processor(), self.settings)

    def forward(self, model: Any, batch: Batch) -> Output:
        """Return the cross entropy summed over answer tokens, and the sums by task for `metrics`."""
        losses = model(**batch.tensors).sample_loss
        tokens = (batch.tensors["labels"] != -100).sum(dim=1)
        sums: dict[str, Tensor] = {}
        for task in sorted(set(batch.tasks)):
            rows = torch.tensor([name == task for name in batch.tasks], device=losses.device)
            sums[f"loss/{task}"] = losses.detach()[rows].double().sum()
            sums[f"tokens/{task}"] = tokens[rows].sum().double()
        return Output(losses.sum(), sums)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the mean validation loss of each task."""
        tasks = [name.partition("/")[2] for name in sums if name.startswith("loss/")]
        return {f"loss/{task}": float(sums[f"loss/{task}"] / sums[f"tokens/{task}"]) for task in tasks}

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the whole LION, with frozen parts and tag encoder, and its processor."""
        assert isinstance(model, LionForConditionalGeneration)
        model.save_pretrained(folder)
        self.processor().save_pretrained(folder)


def start_config(start: str, tag_encoder: str | None, settings: TrainStageConfig) -> LionConfig:
    """Return the configuration of the start, with this training's prompt and tag encoder.

    Raises:
        UserError: the folder has no LION, or a dynamic prompt has no tag encoder.
    """
    try:
        config = LionConfig.from_pretrained(start)
        if not isinstance(config, LionConfig) or config.model_type != LionConfig.model_type:
            raise UserError(
                f"{start} has a model of type {config.model_type!r}, not a LION; set parents to the folder of a LION."
            )
        fields = config.to_dict()
        parent_encoder = fields.get("tag_encoder_config")
        prompt = prompt_config(settings)
        if settings.prompt.dynamic:
            if tag_encoder:
                fields["tag_encoder_config"] = TagEncoder.config_class.from_pretrained(tag_encoder).to_dict()
            elif not parent_encoder:
                raise UserError(f"A dynamic prompt needs a trained tag encoder, and {start} has none; set tag_encoder.")
        if unknown := set(settings.fp32_groups) - set(all_groups()):
            raise UserError(f"fp32_groups has unknown groups {sorted(unknown)}; choose from {', '.join(all_groups())}.")
        kept = sorted({*config.fp32_groups, *settings.fp32_groups})
        return LionConfig.from_dict({**fields, "prompt": prompt.to_dict(), "fp32_groups": kept})
    except (ValueError, OSError) as error:
        raise UserError(f"The stage cannot start from {start}: {error}") from error


def start_model(start: str, tag_encoder: str | None, settings: TrainStageConfig) -> LionForConditionalGeneration:
    """Return the LION of the start with this training's prompt. Weights of the prompt that the start lacks are new.

    Raises:
        UserError: the start lacks other weights than those of the prompt, or has unknown ones.
    """
    config = start_config(start, tag_encoder, settings)
    dtype = compute_dtype(settings.loop)
    try:
        loaded: Any = LionForConditionalGeneration.from_pretrained(
            start, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(f"The stage cannot start from {start}: {error}") from error
    # A prompt of another kind has other weights than the parent's; all others must come from the parent.
    model, info = loaded
    new = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    if lost := sorted(key for key in new if not key.startswith(prompt_parts())):
        raise UserError(
            f"{start} lacks weights of a LION, or has them in another size, such as {lost[:3]}; copy the whole folder."
        )
    if extra := sorted(key for key in info["unexpected_keys"] if not key.startswith(prompt_parts())):
        raise UserError(
            f"{start} has weights that its config.json does not describe, such as {extra[:3]}; use a matching pair."
        )
    if tag_encoder is not None and settings.prompt.dynamic:
        model.set_tag_encoder(TagEncoder.from_pretrained(tag_encoder, dtype=dtype))
    return model


def merge_parents(stage1: str, stage2: str, target: str) -> None:
    """Write the LION from which stage 3 starts: stage 1's image path, stage 2's region path, and a new router.

    Processor and generation settings are those of stage 1; a warning names each setting in which stage 2 differs.

    Args:
        stage1: folder of stage 1's LION.
        stage2: folder of stage 2's LION.
        target: folder to write.

    Raises:
        UserError: the two models do not fit together.
    """
    try:
        first, second = (LionForConditionalGeneration.from_pretrained(folder) for folder in (stage1, stage2))
        fields = {**first.config.to_dict(), "visual_input": "all", "adapters": list(LEVELS)}
        if not first.config.uses_aggregator:
            fields |= {name: second.config.to_dict()[name] for name in ("aggregator_config", "aggregator_levels")}
        merged = LionForConditionalGeneration(LionConfig.from_dict(fields))
        merge_stages(first, second, merged).save_pretrained(target)
        for name, (kept, dropped) in differing_settings(first, second).items():
            log.warning(
                "Stage 1 (%s) decodes with %s %s and stage 2 (%s) with %s: the merged model keeps stage 1's. Set "
                "another value in its generation_config.json, or for one evaluation with --inference.decoding.",
                stage1, name, kept, stage2, dropped,
            )  # fmt: skip
    except (ValueError, OSError) as error:
        raise UserError(f"Stage 1 ({stage1}) and stage 2 ({stage2}) cannot be merged: {error}") from error
    LionProcessor.from_pretrained(stage1).save_pretrained(target)
