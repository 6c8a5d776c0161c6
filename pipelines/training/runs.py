"""The training steps: configuration in, result folder out."""

import dataclasses
import logging
import os
import uuid

from pipelines.core import storage
from pipelines.core.copies import cache_folder, local_copy, share_model
from pipelines.core.errors import UserError
from pipelines.core.steps import StepFolder, StepResult, fingerprint, run_step
from pipelines.core.tag_rules import described
from pipelines.registry import Registry
from pipelines.training.config import LoopConfig, OptimizerConfig, TrainStageConfig, TrainTagEncoderConfig
from pipelines.training.finish import Training, train_and_register

log = logging.getLogger("lion.training")
_MERGE_VERSION = 2  # of a training whose start is merged: 2 keeps the parents' generation settings


def train_tag_encoder(config: TrainTagEncoderConfig) -> StepResult:
    """Train, saves and registers the tag encoder; a finished step is skipped.

    Raises:
        UserError: data or base are not there or unfit, MLflow does not answer, or the training cannot go well.
    """
    from pipelines.training.tag_encoder import PRESETS, TagEncoderTask, start_folder

    registry = Registry(config.registry, config.out)
    start, parent = start_folder(config.base), {}
    if start.startswith("models:"):
        found = registry.lookup(start)
        start, parent = found.folder, {"parent.base": str(found)}
    elif storage.is_remote(start):
        start = local_copy(start)
    inputs = {"data": config.data} | ({} if start in PRESETS else {"base": start})
    for path in inputs.values():
        if not storage.exists(path):
            raise UserError(f"{path} does not exist; check --data and --base.")

    def work(folder: StepFolder) -> dict[str, object]:
        digests = {name: fingerprint(path) for name, path in inputs.items()}
        ready = start if start in PRESETS else share_model(storage.absolute(start), folder, "base")
        task = TagEncoderTask(config, storage.absolute(config.data), ready, digests.get("base", start))
        lineage = {f"digest.{name}": digest for name, digest in digests.items()} | parent
        rule = task.rule()
        log.info("Tags that are read: %s", rule.in_words())
        entries = train_and_register(Training(task, config, "tag_encoder", config.name, registry, lineage), folder)
        return {**entries, "tags_read": described(rule)}

    return _tidied(run_step("train_tag_encoder", config, config.out, work, inputs), config.loop)


def train_stage(config: TrainStageConfig) -> StepResult:
    """Train, saves and registers one of LION's stages; a finished step is skipped.

    Raises:
        UserError: tables or parents are not there or unfit, MLflow does not answer, or the training cannot go well.
    """
    registry = Registry(config.registry, config.out)
    parents = config.parent_list
    if len(parents) not in ((1, 2) if config.stage == 3 else (1,)):
        raise UserError(
            f"Stage {config.stage} has {len(parents)} parents; give one model's folder, or for stage 3 also the two of "
            "stage 1 and stage 2, which are merged."
        )
    found = {f"parent{number}": registry.lookup(parent) for number, parent in enumerate(parents, 1)}
    if config.tag_encoder is not None:
        if not config.prompt.dynamic:
            raise UserError(f"prompt.kind {config.prompt.kind!r} reads no tag encoder; leave tag_encoder out.")
        found["tag_encoder"] = registry.lookup(config.tag_encoder)
    inputs = {"data": config.data, "tagged": config.tagged} | {name: model.folder for name, model in found.items()}

    def work(folder: StepFolder) -> dict[str, object]:
        from pipelines.training.reading import differences
        from pipelines.training.stage import StageTask

        _log_mixture(config)
        digests = {name: fingerprint(path) for name, path in inputs.items()}
        start = found["parent1"].folder
        if len(parents) == 2:
            start = _merged(start, found["parent2"].folder, folder)
        start = share_model(start, folder, "lion")
        encoder = share_model(found["tag_encoder"].folder, folder, "tag_encoder") if "tag_encoder" in found else None
        base = tuple((name, digests[name]) for name in found)
        settings = dataclasses.replace(config, optimizer=_with_projector(config))
        task = StageTask(settings, storage.absolute(config.data), storage.absolute(config.tagged), start, encoder, base)
        lineage = {f"digest.{name}": digest for name, digest in digests.items()}
        lineage |= {f"parent.{name}": str(model) for name, model in found.items()}
        rules = task.rules()
        log.info("Tags that are read: %s", rules.in_words())
        for difference in differences(rules, config.tagged, config):
            log.warning("%s", difference)
        entries = train_and_register(Training(task, settings, "lion", config.model_name, registry, lineage), folder)
        return {**entries, "tags_read": rules.described()}

    # Parents count by their weights, wherever they lie and by whatever name they were found.
    identity = dataclasses.replace(config, parents=[], tag_encoder=None)
    version = _MERGE_VERSION if len(parents) == 2 else 1
    return _tidied(run_step("train_stage", identity, config.out, work, inputs, version), config.loop)


def _log_mixture(config: TrainStageConfig) -> None:
    """Says how often each data set will be seen; what cannot be mixed is refused before anything starts."""
    from pipelines.core.local_tables import open_table
    from pipelines.core.tables import INSTRUCTIONS
    from pipelines.training.mixing import COLUMNS, effective_epochs, make_mixture

    table = open_table(storage.absolute(config.data), INSTRUCTIONS, COLUMNS)
    for share in effective_epochs(make_mixture(table, config.data, config), table, config):
        log.info("%s", share)


def _tidied(result: StepResult, loop: LoopConfig) -> StepResult:
    """Remove what only an unfinished training needs; not before the manifest is there, so that no crash loses it."""
    if not loop.keep_after:
        for name in ("checkpoints", "merged", "start"):
            storage.delete_folder(storage.join(result.path, name))
    return result


def _merged(first: str, second: str, folder: StepFolder) -> str:
    """The folder of stage 1's and stage 2's LION merged into one; on this machine, because models load from there."""
    target = folder.child("merged")
    if storage.is_remote(target):
        target = os.path.join(cache_folder("merged"), folder.hash[:24])
    if not os.path.isdir(target):
        from pipelines.training.stage import merge_parents

        partial = f"{target}.{uuid.uuid4().hex[:8]}.partial"
        merge_parents(first, second, partial)
        os.rename(partial, target)
    return target


def _with_projector(config: TrainStageConfig) -> OptimizerConfig:
    """Return the optimizer's settings with the projector's own learning rate, where one is trained."""
    if "projector" not in config.trained_groups or "projector" in config.optimizer.learning_rate_scale:
        return config.optimizer
    scale = {**config.optimizer.learning_rate_scale, "projector": config.projector_scale}
    return dataclasses.replace(config.optimizer, learning_rate_scale=scale)
