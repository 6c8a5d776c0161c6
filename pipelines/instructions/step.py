"""Instructions as a step: set by set, each finished set kept when the step is stopped."""

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipelines import storage, tables
from pipelines.errors import DataRefused, UserError
from pipelines.instructions.builder import IMAGE_NOT_TAGGED, Row, TaggedImages, build_rows
from pipelines.instructions.config import InstructionsConfig, InstructionSet, check
from pipelines.shards import write_parquet
from pipelines.sources.records import BadRecord
from pipelines.steps import StepFolder, StepResult, run_step

log = logging.getLogger("lion.instructions")
_PROGRESS_SECONDS = 5.0


def instructions(config: InstructionsConfig) -> StepResult:
    """Builds the table, or continues with the sets that are missing, or finds it done.

    Leaves `instructions/*.parquet` (tables.INSTRUCTIONS), `quarantine/*.parquet` (tables.QUARANTINE) and the manifest.

    Raises:
        UserError: a wrong configuration or path, or a set without a single usable row.
        DataRefused: more of the annotations are bad than `max_bad_fraction`.
    """
    check(config)
    inputs = {"tagged": config.tagged}
    for entry in config.sets:
        inputs.update({f"{entry.name}.{name}": path for name, path in entry.paths().items()})
    # Files count by their content: the inputs' digests stand for the paths in the step's identity.
    sets = [dataclasses.replace(entry, annotations=None, questions=None, instances=None) for entry in config.sets]
    identity = dataclasses.replace(config, sets=sets)
    return run_step("instructions", identity, config.out, lambda folder: _build(config, folder), inputs)


def _build(config: InstructionsConfig, folder: StepFolder) -> Mapping[str, Any]:
    images: TaggedImages | None = None
    proofs = []
    for entry in config.sets:
        proof = _finished(folder, entry)
        if proof is None:
            images = TaggedImages(config.tagged) if images is None else images
            proof = _SetWriter(config, entry, folder).write(images)
        proofs.append(proof)
    counts, reasons = Counter[str](), Counter[str]()
    for proof in proofs:
        counts.update({"rows": proof["rows"]})
        reasons.update(proof["reasons"])
    missing = reasons[IMAGE_NOT_TAGGED]
    bad = reasons.total() - missing
    share = bad / max(1, bad + counts["rows"])
    if share > config.max_bad_fraction:
        listed = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common() if reason != IMAGE_NOT_TAGGED)
        raise DataRefused(
            f"{share:.2%} of the annotations are bad ({listed}), more than max_bad_fraction "
            f"{config.max_bad_fraction:.2%}; see {folder.child('quarantine')}, or accept more."
        )
    return {
        "rows": counts["rows"],
        "summary": {
            "quarantined": bad,
            "images_not_tagged": missing,
            "sets": {proof["name"]: proof["rows"] for proof in proofs},
        },
        "reasons": dict(sorted(reasons.items())),
        "sets": [{key: value for key, value in proof.items() if key != "files"} for proof in proofs],
        "schema": {field.name: str(field.type) for field in tables.INSTRUCTIONS},
        "files": [file for proof in proofs for file in proof["files"]],
    }


def _proof_path(folder: StepFolder, entry: InstructionSet) -> str:
    return folder.child("progress", f"{entry.name}.json")


def _finished(folder: StepFolder, entry: InstructionSet) -> dict[str, Any] | None:
    """What a set left, where it was written to its end; its files were written before that."""
    path = _proof_path(folder, entry)
    return storage.read_json(path) if storage.exists(path) else None


class _SetWriter:
    """Writes one set as Parquet parts, in the memory of one part."""

    def __init__(self, config: InstructionsConfig, entry: InstructionSet, folder: StepFolder) -> None:
        self._config, self._entry, self._folder = config, entry, folder
        self._rows: list[Row] = []
        self._bad: list[dict[str, Any]] = []
        self._files: list[dict[str, Any]] = []
        self._parts = Counter[str]()
        self._tasks = Counter[str]()
        self._reasons = Counter[str]()

    def write(self, images: TaggedImages) -> dict[str, Any]:
        """Writes all parts, then the proof that the set is done.

        Raises:
            UserError: not a single row could be used.
        """
        left_out = Counter[str]()
        shown = time.monotonic()
        for found in build_rows(self._entry, images, self._config.seed, left_out):
            self._add(found)
            if time.monotonic() - shown > _PROGRESS_SECONDS:
                shown = time.monotonic()
                log.info("%s: %d rows, %d set aside", self._entry.name, self._tasks.total(), self._reasons.total())
        self._flush("instructions", self._rows)
        self._flush("quarantine", self._bad)
        if not self._tasks:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self._reasons.most_common())
            split = f" in split {self._entry.split!r}" if self._entry.split else ""
            raise UserError(
                f"Set {self._entry.name!r} gave no row{split} ({reasons or 'its files hold none'}); "
                f"check its files and split, and that `tagged` holds its images."
            )
        proof = {
            "name": self._entry.name,
            "mode": self._entry.mode,
            "rows": self._tasks.total(),
            "tasks": dict(self._tasks),
            "reasons": dict(sorted(self._reasons.items())),
            "left_out": dict(left_out),
            "files": self._files,
        }
        storage.write_json(_proof_path(self._folder, self._entry), proof)
        log.info("%s: %d rows, %d set aside", self._entry.name, self._tasks.total(), self._reasons.total())
        return proof

    def _add(self, found: Row | BadRecord) -> None:
        if isinstance(found, BadRecord):
            self._reasons[found.reason] += 1
            self._bad.append(dataclasses.asdict(found))
            if len(self._bad) == self._config.part_rows:
                self._flush("quarantine", self._bad)
            return
        self._tasks[found["task"]] += 1
        self._rows.append(found)
        if len(self._rows) == self._config.part_rows:
            self._flush("instructions", self._rows)

    def _flush(self, kind: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            schema = tables.INSTRUCTIONS if kind == "instructions" else tables.QUARANTINE
            name = f"{kind}/{self._entry.name}-{self._parts[kind]:05d}.parquet"
            self._files.append(write_parquet(self._folder.path, name, tables.to_table(rows, schema)))
            self._parts[kind] += 1
            rows.clear()
