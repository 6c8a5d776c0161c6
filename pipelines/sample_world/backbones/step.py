"""The `pretrain_tiny` step: it trains each backbone, stores it in half precision, and measures the stored weights."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.steps import StepFolder, StepResult, run_step
from pipelines.sample_world.backbones.config import PARTS, PretrainTinyConfig
from pipelines.training.launch import WorkerJob, launch
from pipelines.training.results import save_model, write_history

BACKBONES = "backbones"


def pretrain_tiny(config: PretrainTinyConfig) -> StepResult:
    """Train the parts of the configuration. Finished parts are not trained again.

    Raises:
        UserError: a part is unknown, `out` is remote, or the configuration of a training is invalid.
    """
    if unknown := [part for part in config.parts if part not in PARTS]:
        raise UserError(f"parts: there is no part {', '.join(unknown)}; use {', '.join(PARTS)}.")
    if not config.parts:
        raise UserError(f"parts is empty; name at least one of {', '.join(PARTS)}.")
    if storage.is_remote(config.out):
        raise UserError(
            f"out is {config.out}, which is remote; use a local folder and copy the few megabytes from there."
        )
    return run_step("pretrain_tiny", config, config.out, lambda folder: _make(config, folder))


def _make(config: PretrainTinyConfig, folder: StepFolder) -> dict[str, Any]:
    from pipelines.sample_world.backbones.card import write_card

    for part in config.parts:
        _train(part, config, folder)
    backbones = folder.child(BACKBONES)
    card = write_card(backbones, config, {part: _seconds(folder, part) for part in config.parts})
    files = [
        {"path": name.removeprefix(folder.path).lstrip("/"), "sha256": storage.sha256(name)}
        for name in storage.list_files(backbones)
    ]
    summary: dict[str, Any] = {"backbones": backbones}
    for part, measured in card["quality"].items():
        summary |= {f"{part}/{name}": round(value, 4) for name, value in measured.items()}
    return {"rows": len(config.parts), "files": files, "card": card, "summary": summary}


def task_of(part: str, config: PretrainTinyConfig) -> Any:
    """Return the training task of a part."""
    from pipelines.sample_world.backbones.language import LanguageTask
    from pipelines.sample_world.backbones.tag_text import TagTextTask
    from pipelines.sample_world.backbones.tagger import TaggerTask
    from pipelines.sample_world.backbones.vision import VisionTask

    kinds: Mapping[str, Callable[..., Any]] = {
        "vision": VisionTask,
        "language": LanguageTask,
        "tagger": TaggerTask,
        "tag_encoder": TagTextTask,
    }
    return kinds[part](getattr(config, part), config.seed)


def _train(part: str, config: PretrainTinyConfig, folder: StepFolder) -> None:
    """Train a part, unless it exists, and store it in half precision under `backbones/`."""
    target = folder.child(BACKBONES, part)
    if os.path.isdir(target):
        return
    from pipelines.training.checkpoint import Checkpoints

    settings, task = getattr(config, part), task_of(part, config)
    part_folder = StepFolder(part, folder.child(part), f"{folder.hash}/{part}")
    job = WorkerJob(task, settings.loop, settings.optimizer, part_folder.path, part_folder.hash, f"pretrain_{part}")
    started = time.monotonic()
    launch(job, config.launch, config.ray)
    _add_seconds(part_folder, time.monotonic() - started)
    checkpoints = Checkpoints(job.checkpoints, settings.loop.keep_checkpoints)
    state = checkpoints.latest()
    assert state is not None  # a finished training has written its last checkpoint
    save_model(task, checkpoints, state.step, part_folder)
    write_history(list(state.history), part_folder)
    to_half_precision(part_folder.child("model"))
    # Copied under another name first: the folder's name means that the part is complete.
    partial = target + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(part_folder.child("model"), partial)
    os.replace(partial, target)
    if not settings.loop.keep_after:
        storage.delete_folder(job.checkpoints)


def _add_seconds(part_folder: StepFolder, seconds: float) -> None:
    """Add to the training time of a part, which may have several launches."""
    path = part_folder.child("seconds.json")
    before = storage.read_json(path)["seconds"] if storage.exists(path) else 0.0
    storage.write_json(path, {"seconds": before + seconds})


def _seconds(folder: StepFolder, part: str) -> float:
    return float(storage.read_json(folder.child(part, "seconds.json"))["seconds"])


def to_half_precision(folder: str) -> None:
    """Convert the float32 weights of a folder to float16, half the size. Models load and run them in float32."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        path = os.path.join(folder, name)
        with safe_open(path, framework="pt") as stream:
            weights = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (a handle, not a dict)
            metadata = stream.metadata()
        half = {key: w.half() if w.dtype == torch.float32 else w for key, w in weights.items()}
        save_file(half, path + ".partial", metadata=metadata)
        os.replace(path + ".partial", path)
