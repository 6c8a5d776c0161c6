"""The step that makes the tiny backbones: trains each part, keeps it in half precision, measures what is kept."""

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
    """Make the parts that the configuration names; a part that is done is not made again.

    Raises:
        UserError: a part is unknown, `out` is remote, or a training cannot go well.
    """
    if unknown := [part for part in config.parts if part not in PARTS]:
        raise UserError(f"There is no part {', '.join(unknown)}; choose among {', '.join(PARTS)}.")
    if not config.parts:
        raise UserError(f"Nothing is to be made; choose parts among {', '.join(PARTS)}.")
    if storage.is_remote(config.out):
        raise UserError("The backbones are a few megabytes; give a local folder as --out and copy it from there.")
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
    """Train a part unless it is there, and keeps it in half precision under `backbones/`."""
    kept = folder.child(BACKBONES, part)
    if os.path.isdir(kept):
        return
    from pipelines.training.checkpoint import Checkpoints

    settings, task = getattr(config, part), task_of(part, config)
    own = StepFolder(part, folder.child(part), f"{folder.hash}/{part}")
    job = WorkerJob(task, settings.loop, settings.optimizer, own.path, own.hash, f"pretrain_{part}")
    begun = time.monotonic()
    launch(job, config.launch, config.ray)
    _note_seconds(own, time.monotonic() - begun)
    checkpoints = Checkpoints(job.checkpoints, settings.loop.keep_checkpoints)
    state = checkpoints.latest()
    assert state is not None  # a training that ends well has written its last checkpoint
    save_model(task, checkpoints, state.step, own)
    write_history(list(state.history), own)
    halve(own.child("model"))
    partial = kept + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(own.child("model"), partial)
    os.replace(partial, kept)
    if not settings.loop.keep_after:
        storage.delete_folder(job.checkpoints)


def _note_seconds(own: StepFolder, seconds: float) -> None:
    """Add to the part's training time, which may be spread over several launches."""
    path = own.child("seconds.json")
    before = storage.read_json(path)["seconds"] if storage.exists(path) else 0.0
    storage.write_json(path, {"seconds": before + seconds})


def _seconds(folder: StepFolder, part: str) -> float:
    return float(storage.read_json(folder.child(part, "seconds.json"))["seconds"])


def halve(folder: str) -> None:
    """Rewrite a folder's float32 weights as float16, half the size; models are still loaded and run in float32."""
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
        small = {key: w.half() if w.dtype == torch.float32 else w for key, w in weights.items()}
        save_file(small, path + ".partial", metadata=metadata)
        os.replace(path + ".partial", path)
