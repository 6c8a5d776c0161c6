"""What the tag encoder and LION's stages add to `run_training`: inputs, parents, and how their task is built."""

import dataclasses
import logging
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from pipelines.core import storage
from pipelines.core.copies import cache_folder, local_copy, share_model
from pipelines.core.errors import UserError
from pipelines.core.steps import StepFolder
from pipelines.core.tag_rules import described
from pipelines.registry import Kind, Registry
from pipelines.training.config import OptimizerConfig, TrainStageConfig, TrainTagEncoderConfig

log = logging.getLogger("lion.training")
_MERGE_VERSION = 2  # of stage 3 with two parents: version 2 keeps the generation settings of the parents


class Recipe(ABC):
    """One kind of training, for `run_training`.

    Attributes:
        step: the step's name, with which its folder's name begins.
        kind: how the model is served.
        config: the whole configuration; `run_training` reads its `loop`, `optimizer`, `launch`, `ray` and `out`.
        identity: the configuration that the step's hash is made of.
        version: version of the step; a new version gives new hashes.
        name: the model's name in the registry and in progress lines.
        inputs: path of each input, by name.
        parents: MLflow tags that name the registered models that the training starts from.
    """

    step: str
    kind: Kind
    config: Any
    identity: Any
    version: int
    name: str
    inputs: Mapping[str, str]
    parents: Mapping[str, str]

    @abstractmethod
    def build_task(self, folder: StepFolder, digests: Mapping[str, str]) -> tuple[Any, Mapping[str, Any]]:
        """Return the task and the rules by which it reads tags, for the manifest.

        Args:
            folder: the step's folder.
            digests: digest of each input, by name.

        Raises:
            UserError: an input does not fit the configuration.
        """


class TagEncoderRecipe(Recipe):
    """The training of the tag encoder; see `Recipe`.

    Raises:
        UserError: the table or the base is missing.
    """

    step, version = "train_tag_encoder", 1
    kind = "tag_encoder"

    def __init__(self, config: TrainTagEncoderConfig, registry: Registry) -> None:
        from pipelines.training.tag_encoder import PRESETS, start_folder

        self.config = self.identity = config
        self.name = config.name
        self._start, self.parents = start_folder(config.base), {}
        self._is_preset = self._start in PRESETS
        if self._start.startswith("models:"):
            model = registry.lookup(self._start)
            self._start, self.parents = model.folder, {"parent.base": str(model)}
        elif storage.is_remote(self._start):
            self._start = local_copy(self._start)
        self.inputs = {"data": config.data} | ({} if self._is_preset else {"base": self._start})
        for path in self.inputs.values():
            if not storage.exists(path):
                raise UserError(f"{path} does not exist; check --data and --base.")

    def build_task(self, folder: StepFolder, digests: Mapping[str, str]) -> tuple[Any, Mapping[str, Any]]:
        """Return the task and the rule by which it reads tags."""
        from pipelines.training.tag_encoder import TagEncoderTask

        start = self._start if self._is_preset else share_model(storage.absolute(self._start), folder, "base")
        task = TagEncoderTask(self.config, storage.absolute(self.config.data), start, digests.get("base", self._start))
        rule = task.rule()
        log.info("tags that are read: %s", rule.in_words())
        return task, described(rule)


class StageRecipe(Recipe):
    """The training of one of LION's stages; see `Recipe`.

    Raises:
        UserError: the number of parents is wrong, a parent is missing, or the prompt reads no tag encoder.
    """

    step = "train_stage"
    kind = "lion"

    def __init__(self, config: TrainStageConfig, registry: Registry) -> None:
        parents = config.parent_list
        if len(parents) not in ((1, 2) if config.stage == 3 else (1,)):
            raise UserError(
                f"Stage {config.stage} has {len(parents)} parents; set parents to the folder of one model, or for "
                "stage 3 also to the folders of stage 1 and stage 2, which are merged."
            )
        self._models = {f"parent{number}": registry.lookup(parent) for number, parent in enumerate(parents, 1)}
        if config.tag_encoder is not None:
            if not config.prompt.dynamic:
                raise UserError(f"prompt.kind {config.prompt.kind!r} reads no tag encoder; leave tag_encoder out.")
            self._models["tag_encoder"] = registry.lookup(config.tag_encoder)
        folders = {name: model.folder for name, model in self._models.items()}
        self.config = dataclasses.replace(config, optimizer=_with_projector(config))
        self.name = config.model_name
        self.inputs = {"data": config.data, "tagged": config.tagged} | folders
        self.parents = {f"parent.{name}": str(model) for name, model in self._models.items()}
        # Parents count by their weights, which are inputs, and not by the path or name that the configuration has.
        self.identity = dataclasses.replace(config, parents=[], tag_encoder=None)
        self.version = _MERGE_VERSION if len(parents) == 2 else 1

    def build_task(self, folder: StepFolder, digests: Mapping[str, str]) -> tuple[Any, Mapping[str, Any]]:
        """Return the task and the rules by which its prompts read tags."""
        from pipelines.training.reading import differences
        from pipelines.training.stage import StageTask

        config, models = self.config, self._models
        _log_mixture(config)
        start = models["parent1"].folder
        if "parent2" in models:
            start = _merged(start, models["parent2"].folder, folder)
        start = share_model(start, folder, "lion")
        encoder = share_model(models["tag_encoder"].folder, folder, "tag_encoder") if "tag_encoder" in models else None
        base = tuple((name, digests[name]) for name in models)
        task = StageTask(config, storage.absolute(config.data), storage.absolute(config.tagged), start, encoder, base)
        rules = task.rules()
        log.info("tags that are read: %s", rules.in_words())
        for difference in differences(rules, config.tagged, config):
            log.warning("%s", difference)
        return task, rules.described()


def _log_mixture(config: TrainStageConfig) -> None:
    """Log how often the training sees each data set.

    Raises:
        UserError: a part of the mix has no samples. This is before any model is loaded.
    """
    from pipelines.core.local_tables import open_table
    from pipelines.core.tables import INSTRUCTIONS
    from pipelines.training.mixing import COLUMNS, effective_epochs, make_mixture

    table = open_table(storage.absolute(config.data), INSTRUCTIONS, COLUMNS)
    for share in effective_epochs(make_mixture(table, config.data, config), table, config):
        log.info("%s", share)


def _merged(first: str, second: str, folder: StepFolder) -> str:
    """Return a local folder with stage 1's and stage 2's LION merged; merge them if it does not exist.

    Args:
        first: folder of stage 1's LION.
        second: folder of stage 2's LION.
        folder: the step's folder; where it is remote, the merged LION is in this machine's cache, because models load
            from local folders only.
    """
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
    """Return the optimizer's settings; where a projector is trained, with `projector_scale` as its multiple."""
    if "projector" not in config.trained_groups or "projector" in config.optimizer.learning_rate_scale:
        return config.optimizer
    scale = {**config.optimizer.learning_rate_scale, "projector": config.projector_scale}
    return dataclasses.replace(config.optimizer, learning_rate_scale=scale)
