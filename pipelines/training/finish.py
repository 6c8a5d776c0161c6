"""What follows the loop: the model's folder, its curves, its registration. Each can be run again."""

import dataclasses
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipelines.core import storage
from pipelines.core.errors import Stopped, UserError
from pipelines.core.steps import StepFolder, canonical, git_commit
from pipelines.registry import Kind, Registry
from pipelines.training.config import LoopConfig
from pipelines.training.launch import Job, launch, quiet_loading

log = logging.getLogger("lion.training")


@dataclasses.dataclass(frozen=True)
class Training:
    """Everything that turns a task into a result folder.

    Attributes:
        task: what is trained.
        config: the step's whole configuration; its `loop`, `optimizer`, `launch` and `ray` are used.
        kind: how the model is served.
        name: its name in the registry and in progress lines.
        registry: where it is registered.
        lineage: tags of the run and of the version: digests of inputs, versions of parents.
    """

    task: Any
    config: Any
    kind: Kind
    name: str
    registry: Registry
    lineage: Mapping[str, str]


def train_and_register(training: Training, folder: StepFolder) -> dict[str, Any]:
    """Train, saves, draws and registers; returns the manifest's entries. A step that crashed goes on where it was."""
    from pipelines.training.checkpoint import Checkpoints
    from pipelines.training.memory import estimate

    config = training.config
    loop: LoopConfig = config.loop
    quiet_loading()
    training.registry.check()
    run_id = training.registry.open_run(
        training.name, folder.hash, canonical(config), {**training.lineage, "git_commit": str(git_commit())}
    )
    memory = estimate(training.task, loop, config.launch)
    job = Job(
        training.task, loop, config.optimizer, folder.path, folder.hash, training.name,
        mlflow=(training.registry.uri, run_id), memory=memory,
    )  # fmt: skip
    checkpoints = Checkpoints(job.checkpoints, loop.keep_checkpoints)
    try:
        launch(job, config.launch, config.ray)
    except BaseException as error:
        status: Literal["KILLED", "FAILED"] = "KILLED" if isinstance(error, Stopped | KeyboardInterrupt) else "FAILED"
        training.registry.abandon_run(run_id, status)
        raise
    state = checkpoints.latest()
    assert state is not None  # a training that ends well has written its last checkpoint
    chosen = state.best_step if loop.choose == "best" and state.best_step is not None else state.step
    history = list(state.history)
    save_model(training.task, checkpoints, chosen, folder)
    write_history(history, folder)
    metrics = result_metrics(history, chosen)
    version = publish(training, folder, run_id, history, metrics)
    return {
        "rows": state.samples,
        "files": describe_files(folder),
        "metrics": metrics,
        "speed": speed(history, state.device),
        "lineage": dict(training.lineage),
        "model": {"name": training.name, "version": version, "run_id": run_id},
        "summary": {
            "model": folder.child("model"),
            **({} if version is None else {"registered": f"models:/{training.name}/{version}"}),
            "steps": state.step,
            **metrics,
        },
    }


def save_model(task: Any, checkpoints: Any, step: int, folder: StepFolder) -> None:
    """Write `model/`: the start weights with the trained ones of a checkpoint over them."""
    from pipelines.training.checkpoint import apply_weights

    model = task.build()
    apply_weights(model, checkpoints.weights(step), checkpoints.path(step))
    with tempfile.TemporaryDirectory() as local:
        target = local if storage.is_remote(folder.path) else storage.absolute(folder.child("model"))
        task.save(model.eval(), target)
        if target == local:
            storage.upload_folder(local, folder.child("model"))


def write_history(history: Sequence[Mapping[str, Any]], folder: StepFolder) -> None:
    """Write `metrics.jsonl`, a record a line, and `curves.png`."""
    lines = "".join(json.dumps(record) + "\n" for record in history)
    storage.write_atomic(folder.child("metrics.jsonl"), lines.encode())
    from pipelines.training.curves import draw_curves

    storage.write_atomic(folder.child("curves.png"), draw_curves(history, folder.step))


def result_metrics(history: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """Return the validation of the step that was chosen, else the last training loss."""
    for kind in ("validation", "train"):
        found = [record for record in history if record["kind"] == kind and record["step"] <= step]
        if found:
            skipped = ("kind", "step", "epoch")
            return {f"{kind}_{name}": value for name, value in found[-1].items() if name not in skipped}
    return {}


def speed(history: Sequence[Mapping[str, Any]], device: str) -> dict[str, Any] | None:
    """Return the speed of a training, as the doctor's estimate of costs reads it: the median of its records.

    The first record is left out, because everything is done for the first time in it. None: there is no other.
    """
    records = [record for record in history if record["kind"] == "train" and "workers" in record][1:]
    if not records:
        return None
    usual = sorted(records, key=lambda record: record["samples_per_second"])[len(records) // 2]
    return {"unit": "samples", "per_second": usual["samples_per_second"], "workers": usual["workers"], "device": device}


def publish(
    training: Training,
    folder: StepFolder,
    run_id: str,
    history: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, float],
) -> int | None:
    """Send the run what it lacks and its curves, registers the model where that is asked for, and end the run."""
    from mlflow.exceptions import MlflowException

    from pipelines.training.callbacks import catch_up

    registry = training.registry
    with tempfile.TemporaryDirectory() as local:
        source = folder.child("model")
        if storage.is_remote(source):
            storage.download_folder(source, local)
            source = local
        try:
            catch_up(registry.client, run_id, history)
            version = None
            if registry.config.register:
                lineage = {**training.lineage, "step": folder.path}
                version = registry.register(training.name, source, run_id, training.kind, metrics, lineage)
            picture = os.path.join(local, "curves.png")
            with open(picture, "wb") as stream:
                stream.write(storage.read_bytes(folder.child("curves.png")))
            registry.client.log_artifact(run_id, picture)
            registry.close_run(run_id)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"The training is done, but MLflow at {registry.uri} did not take the model ({error}); run the same "
                "command again when it answers: only the registration is left."
            ) from error
    return version


def describe_files(folder: StepFolder) -> list[dict[str, str]]:
    """Paths and digests of the model and its metrics, for the manifest."""
    names = [*storage.list_files(folder.child("model")), folder.child("metrics.jsonl"), folder.child("curves.png")]
    return [{"path": name.removeprefix(folder.path).lstrip("/"), "sha256": storage.sha256(name)} for name in names]
