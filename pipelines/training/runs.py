"""The life of a training, from its configuration to its registered model.

`run_training` is the same for all trainings; `recipes` has what the tag encoder and LION's stages add to it.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.core import storage
from pipelines.core.steps import StepFolder, StepResult, fingerprint, run_step
from pipelines.registry import Registry
from pipelines.training.config import LoopConfig, TrainStageConfig, TrainTagEncoderConfig
from pipelines.training.launch import WorkerJob, launch, silence_transformers
from pipelines.training.recipes import Recipe, StageRecipe, TagEncoderRecipe


def train_stage(config: TrainStageConfig) -> StepResult:
    """Train, save and register one of LION's stages; skip a finished step.

    Raises:
        UserError: a table or a parent is missing or does not fit, MLflow does not answer, or the training fails for a
            reason that the user can change.
    """
    registry = Registry(config.registry, config.out)
    return run_training(StageRecipe(config, registry), registry)


def train_tag_encoder(config: TrainTagEncoderConfig) -> StepResult:
    """Train, save and register the tag encoder; skip a finished step.

    Raises:
        UserError: the table or the base is missing or does not fit, MLflow does not answer, or the training fails for a
            reason that the user can change.
    """
    registry = Registry(config.registry, config.out)
    return run_training(TagEncoderRecipe(config, registry), registry)


def run_training(recipe: Recipe, registry: Registry) -> StepResult:
    """Run a whole training: build the task, train, save the model, register it. A finished step is skipped.

    A step that stopped or crashed continues at the part that is not done: the loop resumes from its last checkpoint,
    and saving and registering are repeated.

    Args:
        recipe: the training.
        registry: where its run and its model are registered.
    """
    from pipelines.training import results
    from pipelines.training.checkpoint import Checkpoints
    from pipelines.training.memory import estimate

    config, loop = recipe.config, recipe.config.loop

    def work(folder: StepFolder) -> Mapping[str, Any]:
        # 1. Build the task: data, model, loss and metrics, as settings that are pickled to the workers.
        digests = {name: fingerprint(path) for name, path in recipe.inputs.items()}
        task, tags_read = recipe.build_task(folder, digests)
        lineage = {**{f"digest.{name}": digest for name, digest in digests.items()}, **recipe.parents}

        # 2. Train, from the last checkpoint where there is one. The loop is `pipelines.training.loop.train`.
        silence_transformers()
        with results.open_run(registry, recipe, folder, lineage) as run_id:
            memory = estimate(task, loop, config.launch)
            job = WorkerJob(
                task, loop, config.optimizer, folder.path, folder.hash, recipe.name,
                mlflow=(registry.uri, run_id), memory=memory,
            )  # fmt: skip
            launch(job, config.launch, config.ray)

        # 3. Save the chosen checkpoint's model, the metrics and their curves.
        checkpoints = Checkpoints(job.checkpoints, loop.keep_checkpoints)
        state = checkpoints.last()
        step = state.best_step if loop.choose == "best" and state.best_step is not None else state.step
        results.save_model(task, checkpoints, step, folder)
        results.write_history(state.history, folder)
        metrics = results.result_metrics(state.history, step)

        # 4. Register the model.
        version = results.register_model(registry, recipe, folder, run_id, state.history, metrics, lineage)
        entries = results.manifest_entries(recipe, folder, run_id, version, state, metrics, lineage)
        return {**entries, "tags_read": tags_read}

    result = run_step(recipe.step, recipe.identity, config.out, work, recipe.inputs, recipe.version)
    _delete_leftovers(result, loop)
    return result


def _delete_leftovers(result: StepResult, loop: LoopConfig) -> None:
    """Delete what only an unfinished training needs. This follows the manifest, so that no crash can lose it."""
    if not loop.keep_after:
        for name in ("checkpoints", "merged", "start"):
            storage.delete_folder(storage.join(result.path, name))
