"""Instructions as a step: cut the question files, index the images, build what is missing, draw the card, publish."""

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.core import shards, storage, tables
from pipelines.core.errors import DataRefused, UserError
from pipelines.core.runtime import ray_session, require_resources
from pipelines.core.shards import Proof, ShardIndex
from pipelines.core.steps import StepFolder, StepResult, run_step
from pipelines.core.tag_rules import described, table_rule
from pipelines.instructions.builder import EVALUATION_IMAGE, IMAGE_NOT_TAGGED, Wording
from pipelines.instructions.config import InstructionsConfig, InstructionSet, check

log = logging.getLogger("lion.instructions")
CARD = "card.html"
_PROGRESS_SECONDS = 5.0
_NOT_BAD = (IMAGE_NOT_TAGGED, EVALUATION_IMAGE)


def instructions(config: InstructionsConfig) -> StepResult:
    """Build the table, or continues with the shards that are missing, or finds it done.

    Leaves `instructions/*.parquet` (tables.INSTRUCTIONS), `quarantine/*.parquet` (tables.QUARANTINE), `card.html` and
    the manifest.

    Raises:
        UserError: a wrong configuration or path, or a set without a single usable row.
        DataRefused: more of the annotations are bad than `max_bad_fraction`.
    """
    check(config)
    config = _absolute(config)
    inputs = {"tagged": config.tagged}
    if config.tokenizer:
        inputs["tokenizer"] = config.tokenizer
    for entry in config.sets:
        inputs.update({f"{entry.name}.{name}": path for name, path in entry.paths().items()})
    # Files count by their content: the inputs' digests stand for the paths in the step's identity.
    identity = dataclasses.replace(config, sets=[entry.without_places() for entry in config.sets])

    def work(folder: StepFolder) -> Mapping[str, Any]:
        with ray_session(config.ray):
            require_resources({"CPU": 1}, "A build of instructions")
            return _Build(config, folder.path).work()

    # Kosmos-2's notation is written in another way since version 3; the other notations are not.
    version = 4 if config.notation == "kosmos2" else 3
    return run_step("instructions", identity, config.out, work, inputs, version)


def _absolute(config: InstructionsConfig) -> InstructionsConfig:
    """Return the configuration with paths that mean the same in every worker, those of second files filled in."""
    sets = [entry.absolute() for entry in config.sets]
    tokenizer = storage.absolute(config.tokenizer) if config.tokenizer else ""
    return dataclasses.replace(config, tagged=storage.absolute(config.tagged), tokenizer=tokenizer, sets=sets)


class _Build:
    """One execution of the step inside a Ray session."""

    def __init__(self, config: InstructionsConfig, folder: str) -> None:
        self.config, self.folder = config, folder

    def work(self) -> dict[str, Any]:
        """Does what is missing and returns the manifest's entries."""
        from pipelines.instructions.card import write_card

        indices = self._cut()
        images = self._index()
        proofs = self._rows(indices)
        summaries = [self._summary(entry, indices[entry.name], proofs[entry.name]) for entry in self._built()]
        _require_rows(self._built(), summaries)
        counts = _totals(summaries)
        _refuse_bad(counts, self.config.max_bad_fraction, self.folder)
        (card,) = shards.in_tasks(write_card, [(self.folder, self.config, summaries, images)])
        return {
            "rows": counts["rows"],
            "summary": {
                "quarantined": counts["bad"],
                "images_not_tagged": counts["reasons"][IMAGE_NOT_TAGGED],
                "evaluation_records_kept_out": counts["reasons"][EVALUATION_IMAGE],
                "sets": {summary["name"]: summary["rows"] for summary in summaries},
                "card": storage.join(self.folder, CARD),
            },
            "reasons": dict(sorted(counts["reasons"].items())),
            "sets": summaries,
            "images": images,
            "tags_read": described(table_rule(self.config.tagged, threshold=self.config.threshold)),
            **card,
            "schema": {field.name: str(field.type) for field in tables.INSTRUCTIONS},
            "files": [
                *(file for entry in self._built() for proof in proofs[entry.name] for file in proof["files"]),
                *(file for entry in self._built() for file in indices[entry.name].files),
            ],
        }

    def _built(self) -> list[InstructionSet]:
        """Return the sets that give rows."""
        return [entry for entry in self.config.sets if entry.mode != "keep_out"]

    def _cut(self) -> dict[str, ShardIndex]:
        """Cut every set in a Ray task, so that the driver's memory is not in it."""
        from pipelines.instructions.questions import cut_set, was_cut

        found = {entry.name: was_cut(entry, self.folder) for entry in self.config.sets}
        missing = [entry for entry in self.config.sets if found[entry.name] is None]
        cut = shards.in_tasks(cut_set, [(entry, self.folder, self.config.shard_rows) for entry in missing])
        found |= {entry.name: index for entry, index in zip(missing, cut, strict=True)}
        return {name: index for name, index in found.items() if index is not None}

    def _index(self) -> dict[str, int]:
        """Make the index of images and the table of evaluation images; says what there is."""
        from pipelines.instructions import images, leakage

        files = images.tagged_files(self.config.tagged)
        (known,) = shards.in_tasks(leakage.count_evaluation_images, [(self.folder, self.config.sets)])
        training = any(entry.mode == "train" for entry in self.config.sets)
        if training and not known:
            log.warning(
                "No evaluation split is named, so that none is kept out of training; add sets of mode keep_out."
            )
        rule = table_rule(self.config.tagged, threshold=self.config.threshold)
        log.info("Tags that the data card counts: %s", rule.in_words())
        stage = images.IndexImages(self.folder, files, bool(known) and training, self.config.tokenizer, rule)
        pieces = images.shard_set(self.folder)
        missing = [{"shard": shard} for shard in sorted(set(range(len(files))) - pieces.done())]
        if missing:
            _drain(missing, stage.__call__, "images indexed")
            (_,) = shards.in_tasks(images.join_index, [(self.folder, len(files))])
        elif not storage.exists(storage.join(self.folder, images.INDEX)):
            (_,) = shards.in_tasks(images.join_index, [(self.folder, len(files))])
        (digests,) = shards.in_tasks(leakage.join_evaluation, [(self.folder, self.config.sets)])
        proofs = pieces.proofs(range(len(files)))
        return {
            "tagged": sum(proof["rows"] for proof in proofs),
            "unreadable": sum(proof["unreadable"] for proof in proofs),
            "evaluation": known,
            "evaluation_digests": digests,
        }

    def _rows(self, indices: Mapping[str, ShardIndex]) -> dict[str, list[Proof]]:
        """Return the proofs of every set's shards in order, the missing ones computed."""
        from pipelines.instructions.questions import shard_set
        from pipelines.instructions.stages import BuildShard

        missing = []
        for number, entry in enumerate(self.config.sets):
            todo = set(range(indices[entry.name].shards)) - shard_set(self.folder, entry).done()
            missing += [{"set": number, "shard": shard} for shard in sorted(todo)]
        total = sum(index.shards for index in indices.values())
        log.info("%d of %d shards to build", len(missing), total)
        if missing:
            wording = Wording(self.config.seed, self.config.notation)
            stage = BuildShard(
                self.folder, self.config.sets, wording, self.config.evaluation_images, self.config.tokenizer
            )
            _drain(missing, stage.__call__, "rows")
        return {
            entry.name: [_without_card(proof) for proof in
                         shard_set(self.folder, entry).proofs(range(indices[entry.name].shards))]
            for entry in self._built()
        }  # fmt: skip

    def _summary(self, entry: InstructionSet, index: ShardIndex, proofs: Sequence[Proof]) -> dict[str, Any]:
        tasks, reasons, left_out, leaked = (Counter[str]() for _ in range(4))
        reasons.update(index.bad_records)
        for proof in proofs:
            tasks.update(proof["tasks"])
            reasons.update(proof["reasons"])
            left_out.update(proof["left_out"])
            leaked.update(proof["evaluation_images"])
        return {
            "name": entry.name,
            "kind": entry.kind,
            "mode": entry.mode,
            "split": entry.split,
            "rows_in": index.rows + sum(index.bad_records.values()),
            "rows": tasks.total(),
            "tasks": dict(sorted(tasks.items())),
            "reasons": dict(sorted(reasons.items())),
            "left_out": dict(sorted(left_out.items())),
            "evaluation_images": dict(sorted(leaked.items())),
        }


def _without_card(proof: Proof) -> Proof:
    return {key: value for key, value in proof.items() if key not in ("statistics", "examples", "leaked_images")}


def _drain(missing: Sequence[Mapping[str, Any]], stage: Callable[[pa.Table], pa.Table], unit: str) -> None:
    """Run a stage over shards, with a line on stderr every few seconds; what it makes stays on disk."""
    started = shown = time.monotonic()
    rows = 0
    found = shards.run(
        lambda: shards.from_items(missing).map_batches(stage, batch_format="pyarrow", batch_size=None, num_cpus=1)
    )
    for number, proof in enumerate(found, start=1):
        rows += proof["rows"]
        if time.monotonic() - shown > _PROGRESS_SECONDS or number == len(missing):
            shown = time.monotonic()
            left = (shown - started) / number * (len(missing) - number)
            log.info("%d/%d shards, %d %s, %.0f s left", number, len(missing), rows, unit, left)


def _require_rows(sets: Sequence[InstructionSet], summaries: Sequence[Mapping[str, Any]]) -> None:
    """
    Raises:
        UserError: a set gave not a single row.
    """
    for entry, summary in zip(sets, summaries, strict=True):
        if not summary["rows"]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(summary["reasons"]).most_common())
            split = f" in split {entry.split!r}" if entry.split else ""
            raise UserError(
                f"Set {entry.name!r} gave no row{split} ({reasons or 'its files hold none'}); check its files and "
                f"split, that `tagged` holds its images, and that they are none that another set evaluates on."
            )


def _totals(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    reasons = Counter[str]()
    for summary in summaries:
        reasons.update(summary["reasons"])
    bad = sum(count for reason, count in reasons.items() if reason not in _NOT_BAD)
    return {"rows": sum(summary["rows"] for summary in summaries), "bad": bad, "reasons": reasons}


def _refuse_bad(counts: Mapping[str, Any], max_bad_fraction: float, folder: str) -> None:
    """
    Raises:
        DataRefused: too much is bad.
    """
    share = counts["bad"] / max(1, counts["bad"] + counts["rows"])
    if share > max_bad_fraction:
        found = [(reason, count) for reason, count in counts["reasons"].most_common() if reason not in _NOT_BAD]
        listed = ", ".join(f"{reason} {count}" for reason, count in found)
        raise DataRefused(
            f"{share:.2%} of the annotations are bad ({listed}), more than max_bad_fraction {max_bad_fraction:.2%}; "
            f"see {storage.join(folder, 'quarantine')}, or accept more. What was built is kept."
        )
