"""Reading weights that others made: lazily, and without running anything that a file may carry."""

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a ``.pth``, ``.bin`` or ``.safetensors`` file by name, mapped and not yet read where possible.

    A training checkpoint may keep them under ``model``, ``module`` or ``state_dict``.

    Raises:
        ValueError: If the file holds anything but tensors and plain values (nothing of it is run), cannot be read, or
            has no tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file; give the checkpoint itself.")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    for key in ("model", "module", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path} holds no state dict: expected tensors by name, at the top or under 'model'.")
    return {str(name): tensor for name, tensor in content.items()}


def read_generation_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of decoding that a ``.pth`` holds beside its weights, under ``generation_config``.

    Returns:
        Values by name; empty where there are none, as in released files and in ``.safetensors``.

    Raises:
        ValueError: If they are no settings by name.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return {}
    content = _pickled(path)
    settings = content.get("generation_config") if isinstance(content, dict) else None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: generation_config must give values by name; it is {settings!r}.")
    return {str(name): value for name, value in settings.items()}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable safetensors file: {error}.") from error


def _pickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused: it holds more than tensors, and running code from a checkpoint is never allowed. "
            "Save the plain state dict with torch.save, or as safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no readable checkpoint: {error}.") from error


def _is_zip(path: Path) -> bool:
    # Files from before torch 1.6 are no zip archives and cannot be mapped.
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def folder_tensors(folder: str | os.PathLike[str]) -> Iterator[tuple[str, Tensor]]:
    """Name and tensors of a Hugging Face folder, one shard in memory at a time.

    Raises:
        ValueError: If the folder has no weights.
    """
    folder = Path(folder)
    for name in _INDEXES:
        if (folder / name).is_file():
            shards = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values()
            files = [folder / shard for shard in dict.fromkeys(shards)]
            break
    else:
        files = [folder / name for name in _SINGLE if (folder / name).is_file()][:1]
    if not files:
        raise ValueError(f"{folder} has no weights; expected one of {', '.join((*_INDEXES, *_SINGLE))}.")
    for file in files:
        if file.resolve().parent != folder.resolve() and not file.is_symlink():
            raise ValueError(f"The weight index of {folder} leads outside the folder: {file}.")
        yield from read_state_dict(file).items()
