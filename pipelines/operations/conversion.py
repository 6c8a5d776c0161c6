"""Released checkpoints into `from_pretrained` folders, and back to the released naming, as a step."""

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
_OF_A_KIND = ("vit", "llm", "tokenizer", "qformer_tokenizer", "tags", "thresholds")


@dataclass(frozen=True)
class ConvertConfig:
    """Turns released checkpoints into a folder that from_pretrained reads, and back. Files are local."""

    kind: Literal["lion", "ram"]
    """Which model the checkpoint is of."""
    checkpoint: str = path_field("input")
    """The released file (LION-FlanT5-XL.pth, ram_swin_large_14m.pth, or as .safetensors). With back: the folder."""
    out: str = path_field("output", "runs")
    """Where the folder goes. With back: the .pth file to write."""
    back: bool = False
    """Convert a folder back to the released naming."""
    vit: str | None = path_field("input", None)
    """lion: eva_vit_g.pth."""
    llm: str | None = path_field("input", None)
    """lion: the Flan-T5 folder."""
    tokenizer: str | None = path_field("input", None)
    """lion: the folder of Flan-T5's tokenizer."""
    qformer_tokenizer: str | None = path_field("name", None)
    """lion: the folder (or hub name) of the Q-Former's tokenizer, bert-base-uncased."""
    tags: str | None = path_field("input", None)
    """RAM's tag list, one a line. lion: may be absent; with it the model reads tags as the released LION was trained
    to: each above its own threshold, in the order of this list."""
    thresholds: str | None = path_field("input", None)
    """The per-tag thresholds, one a line; 0.65 for every tag when absent."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the written weights; when absent float32 for lion and the file's own for ram."""


def convert(config: ConvertConfig) -> StepResult:
    """Convert unless the result is there.

    Raises:
        UserError: an option is missing or belongs to the other kind, a path is wrong, or the checkpoint is refused.
    """
    _check(config)
    here: dict[str, Any] = {name: local_copy(path) for name, path in _given(config).items() if storage.is_remote(path)}
    config = replace(config, **here)
    if config.back:
        return _back(config)

    def work(folder: StepFolder) -> Mapping[str, Any]:
        with local_results(folder) as local:
            return _forward(config, local)

    return run_step("convert", config, config.out, work, _inputs(config))


def _check(config: ConvertConfig) -> None:
    given = {name for name in _OF_A_KIND if getattr(config, name) is not None}
    needed = set() if config.back else set(_NEEDED[config.kind])
    allowed = set() if config.back else set(_ALLOWED[config.kind])
    direction = f"--kind {config.kind}{' --back' if config.back else ''}"
    if missing := sorted(needed - given):
        raise UserError(f"{direction} needs {', '.join(f'--{name}' for name in missing)} too.")
    if foreign := sorted(given - allowed):
        raise UserError(f"{direction} does not read {', '.join(f'--{name}' for name in foreign)}; leave it out.")
    if config.thresholds is not None and config.tags is None and not config.back:
        raise UserError(f"{direction} has --thresholds without --tags; give the tag list that they belong to.")
    if config.back and config.dtype is not None:
        raise UserError(f"{direction} keeps the folder's precision; leave --dtype out.")
    if config.back and storage.is_remote(config.out):
        raise UserError(f"out is {config.out}; {direction} writes a local file, so give one and copy it from there.")


def _given(config: ConvertConfig) -> dict[str, str]:
    given = {name: getattr(config, name) for name in ("checkpoint", *_OF_A_KIND)}
    return {name: path for name, path in given.items() if path}


def _inputs(config: ConvertConfig) -> dict[str, str]:
    # The Q-Former's tokenizer may be a hub name, which has no content to fingerprint here.
    return {name: path for name, path in _given(config).items() if name != "qformer_tokenizer" or os.path.exists(path)}


def _checked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _forward(config: ConvertConfig, folder: StepFolder) -> Mapping[str, Any]:
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
        "rows": report["placed"],  # a row is a key of the checkpoint
        "files": _files(Path(folder.path)),
        "report": report,
        "summary": {"kind": config.kind, "parameters": report["parameters"]},
    }


def _thresholds(config: ConvertConfig) -> dict[str, float] | None:
    """RAM's tags with their thresholds for a LION; None where no list is named."""
    if config.tags is None:
        log.warning(
            "No --tags and --thresholds: it is left open which tags this LION reads. The released LION was trained "
            "with RAM's thresholds, in the order of RAM's list."
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


def _back(config: ConvertConfig) -> StepResult:
    """Return the file, then a note beside it that says what it was made of: the proof that it is complete."""
    out = Path(storage.absolute(config.out))
    note = out.with_name(out.name + ".json")
    source = fingerprint(config.checkpoint)
    if out.is_dir():
        raise UserError(f"{out} is a folder; with --back, --out is the file to write.")
    if out.exists():
        made = storage.read_json(str(note)) if note.exists() else {}
        if made.get("source") == source and made.get("sha256") == storage.sha256(str(out)):
            return StepResult("convert", str(out), True, made["summary"])
        raise UserError(f"{out} exists and was not made from {config.checkpoint} as it is; remove it or rename --out.")
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
