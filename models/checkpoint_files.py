"""Read weights of other projects without running code that a file may contain.

Tensors are memory-mapped where the format allows it, so that a file larger than the free memory can be converted.
"""

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
    """Return the tensors of a ``.pth``, ``.bin`` or ``.safetensors`` file by name, memory-mapped where possible.

    The tensors of a training checkpoint may be under the key ``model``, ``module`` or ``state_dict``.

    Raises:
        ValueError: the file contains other objects than tensors and plain values (they are not loaded), cannot be
            read, or has no tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give the path of the checkpoint file.")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    for key in ("model", "module", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path} has no state dict: expected tensors by name, at the top level or under 'model'.")
    return {str(name): tensor for name, tensor in content.items()}


def read_generation_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the decoding settings of a ``.pth`` file, which are under its key ``generation_config``.

    Returns:
        Values by name. Empty for files without them, such as released files and ``.safetensors``.

    Raises:
        ValueError: ``generation_config`` is not a dictionary.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return {}
    content = _pickled(path)
    settings = content.get("generation_config") if isinstance(content, dict) else None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: generation_config is {settings!r}; it must be a dictionary.")
    return {str(name): value for name, value in settings.items()}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}.") from error


def _pickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} contains other objects than tensors; they are not loaded, because they could run code. "
            "Save the plain state dict with torch.save, or as safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable checkpoint: {error}.") from error


def _is_zip(path: Path) -> bool:
    # torch before 1.6 wrote plain pickles, which cannot be memory-mapped.
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def folder_tensors(folder: str | os.PathLike[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors of a Hugging Face folder, with one shard in memory at a time.

    Raises:
        ValueError: the folder has no weights, or its index names a file outside the folder.
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
            raise ValueError(f"The weight index of {folder} names {file}, which is outside the folder.")
        yield from read_state_dict(file).items()
