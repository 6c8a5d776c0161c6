"""The results of a training: its MLflow run, the model's folder, metrics and curves, the registration, the manifest."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pipelines.core import storage
from pipelines.core.errors import Stopped, UserError
from pipelines.core.steps import StepFolder, canonical, git_commit
from pipelines.registry import Registry
from pipelines.training.checkpoint import Checkpoints, State, apply_weights
from pipelines.training.curves import draw_curves

if TYPE_CHECKING:
    from pipelines.training.recipes import Recipe

History = Sequence[Mapping[str, Any]]
"""The records of metrics of a training, in order."""


@contextlib.contextmanager
def open_run(registry: Registry, recipe: "Recipe", folder: StepFolder, lineage: Mapping[str, str]) -> Iterator[str]:
    """Open the MLflow run of a step and yield its id; an error inside the block ends the run as failed or killed.

    Raises:
        UserError: MLflow does not answer.
    """
    registry.check()
    run_id = registry.open_run(
        recipe.name, folder.hash, canonical(recipe.config), {**lineage, "git_commit": str(git_commit())}
    )
    try:
        yield run_id
    except BaseException as error:
        status: Literal["KILLED", "FAILED"] = "KILLED" if isinstance(error, Stopped | KeyboardInterrupt) else "FAILED"
        registry.abandon_run(run_id, status)
        raise


def save_model(task: Any, checkpoints: Checkpoints, step: int, folder: StepFolder) -> None:
    """Write `model/`: the start weights, with the trained weights of a checkpoint in their place.

    Args:
        task: builds the model and saves it.
        checkpoints: the checkpoints of the training.
        step: the checkpoint's step.
        folder: the step's folder.
    """
    model = task.build()
    apply_weights(model, checkpoints.weights(step), checkpoints.path(step))
    with tempfile.TemporaryDirectory() as local:
        target = local if storage.is_remote(folder.path) else storage.absolute(folder.child("model"))
        task.save(model.eval(), target)
        if target == local:
            storage.upload_folder(local, folder.child("model"))


def write_history(history: History, folder: StepFolder) -> None:
    """Write `metrics.jsonl`, with a record in each line, and `curves.png`."""
    lines = "".join(json.dumps(record) + "\n" for record in history)
    storage.write_atomic(folder.child("metrics.jsonl"), lines.encode())
    storage.write_atomic(folder.child("curves.png"), draw_curves(history, folder.step))


def result_metrics(history: History, step: int) -> dict[str, float]:
    """Return the metrics of the last validation up to `step`; without a validation, those of the last train record."""
    for kind in ("validation", "train"):
        records = [record for record in history if record["kind"] == kind and record["step"] <= step]
        if records:
            skipped = ("kind", "step", "epoch")
            return {f"{kind}_{name}": value for name, value in records[-1].items() if name not in skipped}
    return {}


def speed(history: History, device: str) -> dict[str, Any] | None:
    """Return the median speed of the train records, from which the doctor estimates costs; None without records.

    The first record is left out: the first steps are slow, because caches are empty and kernels are chosen.
    """
    records = [record for record in history if record["kind"] == "train" and "workers" in record][1:]
    if not records:
        return None
    median = sorted(records, key=lambda record: record["samples_per_second"])[len(records) // 2]
    return {
        "unit": "samples", "per_second": median["samples_per_second"], "workers": median["workers"], "device": device
    }  # fmt: skip


def register_model(
    registry: Registry,
    recipe: "Recipe",
    folder: StepFolder,
    run_id: str,
    history: History,
    metrics: Mapping[str, float],
    lineage: Mapping[str, str],
) -> int | None:
    """Send missing records and the curves to the MLflow run, register the model, and close the run.

    Returns:
        The version of the model; None if `registry.register` is off.

    Raises:
        UserError: MLflow does not accept the model. The same command repeats only the registration.
    """
    from mlflow.exceptions import MlflowException

    from pipelines.training.callbacks import catch_up

    with tempfile.TemporaryDirectory() as local:
        source = folder.child("model")
        if storage.is_remote(source):
            storage.download_folder(source, local)
            source = local
        try:
            catch_up(registry.client, run_id, history)
            version = None
            if registry.config.register:
                tags = {**lineage, "step": folder.path}
                version = registry.register(recipe.name, source, run_id, recipe.kind, metrics, tags)
            picture = os.path.join(local, "curves.png")
            with open(picture, "wb") as stream:
                stream.write(storage.read_bytes(folder.child("curves.png")))
            registry.client.log_artifact(run_id, picture)
            registry.close_run(run_id)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"The training is finished, but MLflow at {registry.uri} did not accept the model ({error}); run the "
                "same command again when MLflow answers: it repeats only the registration."
            ) from error
    return version


def manifest_entries(
    recipe: "Recipe",
    folder: StepFolder,
    run_id: str,
    version: int | None,
    state: State,
    metrics: Mapping[str, float],
    lineage: Mapping[str, str],
) -> dict[str, Any]:
    """Return the manifest's entries of a finished training."""
    registered = {} if version is None else {"registered": f"models:/{recipe.name}/{version}"}
    return {
        "rows": state.samples,
        "files": _describe_files(folder),
        "metrics": metrics,
        "speed": speed(state.history, state.device),
        "lineage": dict(lineage),
        "model": {"name": recipe.name, "version": version, "run_id": run_id},
        "summary": {"model": folder.child("model"), **registered, "steps": state.step, **metrics},
    }


def _describe_files(folder: StepFolder) -> list[dict[str, str]]:
    """Return relative path and SHA-256 of the files of the model and of its metrics."""
    names = [*storage.list_files(folder.child("model")), folder.child("metrics.jsonl"), folder.child("curves.png")]
    return [{"path": name.removeprefix(folder.path).lstrip("/"), "sha256": storage.sha256(name)} for name in names]
