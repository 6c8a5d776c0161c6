"""`convert` as a step: released checkpoints to `from_pretrained` folders, and back to the released key names."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.core import storage
from pipelines.core.copies import local_copy, local_results
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.steps import StepFolder, StepResult, fingerprint, run_step

log = logging.getLogger("lion.convert")
_NEEDED = {"lion": ("vit", "llm", "tokenizer"), "ram": ("tags",)}
_ALLOWED = {"lion": (*_NEEDED["lion"], "qformer_tokenizer", "tags", "thresholds"), "ram": ("tags", "thresholds")}
_KIND_FIELDS = ("vit", "llm", "tokenizer", "qformer_tokenizer", "tags", "thresholds")


@dataclass(frozen=True)
class ConvertConfig:
    """Convert a released checkpoint to a folder that from_pretrained reads, or back to the released key names."""

    kind: Literal["lion", "ram"]
    """Model of the checkpoint."""
    checkpoint: str = path_field("input")
    """Released file, such as LION-FlanT5-XL.pth or ram_swin_large_14m.pth, or a .safetensors file. With back: the
    folder to convert."""
    out: str = path_field("output", "runs")
    """Folder or URI for the step folder. With back: the local .pth file to write."""
    back: bool = False
    """Convert a folder back to a file with the released key names."""
    vit: str | None = path_field("input", None)
    """lion: the ViT's checkpoint, eva_vit_g.pth."""
    llm: str | None = path_field("input", None)
    """lion: the folder of Flan-T5."""
    tokenizer: str | None = path_field("input", None)
    """lion: the folder of Flan-T5's tokenizer."""
    qformer_tokenizer: str | None = path_field("name", None)
    """lion: the folder or Hub name of the Q-Former's tokenizer, bert-base-uncased."""
    tags: str | None = path_field("input", None)
    """RAM's tag list, one tag per line. ram: required. lion: optional; with it the model reads tags as the released
    LION was trained to: tags above their own thresholds, in the order of this list."""
    thresholds: str | None = path_field("input", None)
    """Thresholds of the tags, one per line, in the order of the list; empty: 0.65 for every tag."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Data type of the written weights; empty: float32 for lion, the checkpoint's type for ram."""


def convert(config: ConvertConfig) -> StepResult:
    """Convert, or skip if the result exists.

    Raises:
        UserError: an option is missing or belongs to the other kind, a path is wrong, or the checkpoint does not fit
            the model.
    """
    _check(config)
    copies: dict[str, Any] = {
        name: local_copy(path) for name, path in _input_paths(config).items() if storage.is_remote(path)
    }
    config = replace(config, **copies)
    if config.back:
        return _to_released(config)

    def work(folder: StepFolder) -> Mapping[str, Any]:
        with local_results(folder) as local:
            return _to_folder(config, local)

    return run_step("convert", config, config.out, work, _inputs(config))


def _check(config: ConvertConfig) -> None:
    present = {name for name in _KIND_FIELDS if getattr(config, name) is not None}
    needed = set() if config.back else set(_NEEDED[config.kind])
    allowed = set() if config.back else set(_ALLOWED[config.kind])
    direction = f"--kind {config.kind}{' --back' if config.back else ''}"
    if missing := sorted(needed - present):
        raise UserError(f"{direction} also needs {', '.join(f'--{name}' for name in missing)}.")
    if foreign := sorted(present - allowed):
        raise UserError(f"{direction} does not read {', '.join(f'--{name}' for name in foreign)}; leave it out.")
    if config.thresholds is not None and config.tags is None and not config.back:
        raise UserError(f"{direction} has --thresholds without --tags; give the tag list of these thresholds.")
    if config.back and config.dtype is not None:
        raise UserError(f"{direction} keeps the data type of the folder's weights; leave --dtype out.")
    if config.back and storage.is_remote(config.out):
        raise UserError(
            f"--out is {config.out}, but {direction} writes a local file; give a local path, then copy the file."
        )


def _input_paths(config: ConvertConfig) -> dict[str, str]:
    paths = {name: getattr(config, name) for name in ("checkpoint", *_KIND_FIELDS)}
    return {name: path for name, path in paths.items() if path}


def _inputs(config: ConvertConfig) -> dict[str, str]:
    # The Q-Former's tokenizer may be a Hub name, which has no local content to fingerprint.
    paths = _input_paths(config)
    return {name: path for name, path in paths.items() if name != "qformer_tokenizer" or os.path.exists(path)}


def _checked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call a conversion of `models/`, which knows no UserError, and raise its errors as UserError."""
    try:
        return work()
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _to_folder(config: ConvertConfig, folder: StepFolder) -> Mapping[str, Any]:
    import torch

    dtype = None if config.dtype is None else getattr(torch, config.dtype)
    if config.kind == "lion":
        from models.lion.conversion import convert_lion

        vit, llm, tokenizer = str(config.vit), str(config.llm), str(config.tokenizer)
        thresholds = _thresholds(config)
        report = _checked(
            lambda: convert_lion(
                config.checkpoint, vit, llm, tokenizer, folder.path, config.qformer_tokenizer, dtype=dtype,
                thresholds=thresholds,
            )
        )  # fmt: skip
    else:
        from models.ram.conversion import convert_ram

        report = _checked(
            lambda: convert_ram(config.checkpoint, str(config.tags), config.thresholds, folder.path, dtype=dtype)
        )
    return {
        "rows": report["placed"],  # one row per key of the checkpoint
        "files": _files(Path(folder.path)),
        "report": report,
        "summary": {"kind": config.kind, "parameters": report["parameters"]},
    }


def _thresholds(config: ConvertConfig) -> dict[str, float] | None:
    """Return RAM's thresholds by tag for a LION; None without a tag list."""
    if config.tags is None:
        log.warning(
            "--tags and --thresholds are not set: this LION will have no thresholds by tag. The released LION was "
            "trained with RAM's thresholds and the order of RAM's tag list."
        )
        return None
    from models.ram import RamProcessor
    from models.ram.processing import read_tag_list, read_thresholds

    try:
        tags = read_tag_list(config.tags)
        values = None if config.thresholds is None else read_thresholds(config.thresholds, len(tags))
        return RamProcessor(tags, values).thresholds_by_tag
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _files(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [
        {"path": str(path.relative_to(folder)), "rows": None, "sha256": storage.sha256(str(path))} for path in paths
    ]


def _to_released(config: ConvertConfig) -> StepResult:
    """Write the released file, and next to it a JSON note with source and hash as proof that it is complete."""
    out = Path(storage.absolute(config.out))
    note = out.with_name(out.name + ".json")
    source = fingerprint(config.checkpoint)
    if out.is_dir():
        raise UserError(f"{out} is a folder, but with --back, --out is the file to write; give the path of a file.")
    if out.exists():
        manifest = storage.read_json(str(note)) if note.exists() else {}
        if manifest.get("source") == source and manifest.get("sha256") == storage.sha256(str(out)):
            return StepResult("convert", str(out), True, manifest["summary"])
        raise UserError(
            f"{out} exists and was not written from the present {config.checkpoint}; remove it or rename --out."
        )
    # The note is written before the rename: a complete file always has one, also after a crash in between.
    partial = out.with_name(out.name + ".partial")
    if config.kind == "lion":
        from models.lion.conversion import export_lion

        report = _checked(lambda: export_lion(config.checkpoint, partial))
    else:
        from models.ram.conversion import export_ram

        report = _checked(lambda: export_ram(config.checkpoint, partial))
    summary = {"rows": report["placed"], "kind": config.kind, "parameters": report["parameters"]}
    storage.write_json(str(note), {"source": source, "sha256": storage.sha256(str(partial)), "summary": summary})
    os.replace(partial, out)
    return StepResult("convert", str(out), False, summary)
