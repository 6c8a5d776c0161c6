"""Instructions as a step: cut the question files, index the images, build the missing shards, write the data card."""

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
"""Reasons of the quarantine that are no mistake in the annotations."""


def instructions(config: InstructionsConfig) -> StepResult:
    """Build the table, resume a stopped build at the missing shards, or return the finished result.

    The folder of the step then has `instructions/*.parquet` (tables.INSTRUCTIONS), `quarantine/*.parquet`
    (tables.QUARANTINE), `card.html` and the manifest.

    Raises:
        UserError: a wrong configuration or path, or a set without any usable row.
        DataRefused: more of the annotations are bad than `max_bad_fraction` allows.
    """
    check(config)
    config = _absolute(config)
    inputs = {"tagged": config.tagged}
    if config.tokenizer:
        inputs["tokenizer"] = config.tokenizer
    for entry in config.sets:
        inputs.update({f"{entry.name}.{name}": path for name, path in entry.paths().items()})
    # Files count by their content: `run_step` adds the digests of the inputs in place of their paths.
    identity = dataclasses.replace(config, sets=[entry.without_paths() for entry in config.sets])

    def work(folder: StepFolder) -> Mapping[str, Any]:
        with ray_session(config.ray):
            require_resources({"CPU": 1}, "A build of instructions")
            return _Build(config, folder.path).work()

    # Version 4 writes Kosmos-2's notation in another way. Builds in other notations keep their hashes.
    version = 4 if config.notation == "kosmos2" else 3
    return run_step("instructions", identity, config.out, work, inputs, version)


def _absolute(config: InstructionsConfig) -> InstructionsConfig:
    """Return the configuration with absolute paths, which mean the same in every worker, and with second files."""
    sets = [entry.absolute() for entry in config.sets]
    tokenizer = storage.absolute(config.tokenizer) if config.tokenizer else ""
    return dataclasses.replace(config, tagged=storage.absolute(config.tagged), tokenizer=tokenizer, sets=sets)


class _Build:
    """One execution of the step inside a Ray session.

    Args:
        config: the settings, with absolute paths.
        folder: the folder of the step.
    """

    def __init__(self, config: InstructionsConfig, folder: str) -> None:
        self.config, self.folder = config, folder

    def work(self) -> dict[str, Any]:
        """Compute the missing parts and return the entries of the manifest."""
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
        """Return the sets that rows are built from."""
        return [entry for entry in self.config.sets if entry.mode != "keep_out"]

    def _cut(self) -> dict[str, ShardIndex]:
        """Return the index of every set. Ray tasks cut the missing sets, to spare the memory of the driver."""
        from pipelines.instructions.questions import cut_set, was_cut

        indices = {entry.name: was_cut(entry, self.folder) for entry in self.config.sets}
        missing = [entry for entry in self.config.sets if indices[entry.name] is None]
        cut = shards.in_tasks(cut_set, [(entry, self.folder, self.config.shard_rows) for entry in missing])
        indices |= {entry.name: index for entry, index in zip(missing, cut, strict=True)}
        return {name: index for name, index in indices.items() if index is not None}

    def _index(self) -> dict[str, int]:
        """Build the index of images and the table of evaluation images; return their counts for the manifest."""
        from pipelines.instructions import images, leakage

        files = images.tagged_files(self.config.tagged)
        (evaluation,) = shards.in_tasks(leakage.count_evaluation_images, [(self.folder, self.config.sets)])
        training = any(entry.mode == "train" for entry in self.config.sets)
        if training and not evaluation:
            log.warning(
                "No set is an evaluation split, so no image is kept out of training; add sets of mode keep_out for the "
                "benchmarks that you will evaluate on."
            )
        rule = table_rule(self.config.tagged, threshold=self.config.threshold)
        log.info("Rule of the tags that the data card counts: %s", rule.in_words())
        stage = images.IndexImages(self.folder, files, bool(evaluation) and training, self.config.tokenizer, rule)
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
            "evaluation": evaluation,
            "evaluation_digests": digests,
        }

    def _rows(self, indices: Mapping[str, ShardIndex]) -> dict[str, list[Proof]]:
        """Build the missing shards and return the proofs of all, in order, by set."""
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
    """Run a stage over the missing shards and log its progress; the results are on disk.

    Args:
        missing: a row for each shard, the stage's input.
        stage: the stage.
        unit: of the logged counts.
    """
    started = logged = time.monotonic()
    rows = 0
    proofs = shards.run(
        lambda: shards.from_items(missing).map_batches(stage, batch_format="pyarrow", batch_size=None, num_cpus=1)
    )
    for number, proof in enumerate(proofs, start=1):
        rows += proof["rows"]
        if time.monotonic() - logged > _PROGRESS_SECONDS or number == len(missing):
            logged = time.monotonic()
            left = (logged - started) / number * (len(missing) - number)
            log.info("%d/%d shards, %d %s, %.0f s left", number, len(missing), rows, unit, left)


def _require_rows(sets: Sequence[InstructionSet], summaries: Sequence[Mapping[str, Any]]) -> None:
    """Check that every set gave a row.

    Raises:
        UserError: a set gave none.
    """
    for entry, summary in zip(sets, summaries, strict=True):
        if not summary["rows"]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(summary["reasons"]).most_common())
            split = f" in split {entry.split!r}" if entry.split else ""
            raise UserError(
                f"Set {entry.name!r} gave no row{split} ({reasons or 'its files are empty'}); check that its files "
                f"and split are right, that its images are in `tagged`, and that no other set evaluates on them."
            )


def _totals(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    reasons = Counter[str]()
    for summary in summaries:
        reasons.update(summary["reasons"])
    bad = sum(count for reason, count in reasons.items() if reason not in _NOT_BAD)
    return {"rows": sum(summary["rows"] for summary in summaries), "bad": bad, "reasons": reasons}


def _refuse_bad(counts: Mapping[str, Any], max_bad_fraction: float, folder: str) -> None:
    """Check the share of bad annotations.

    Raises:
        DataRefused: it is above `max_bad_fraction`.
    """
    share = counts["bad"] / max(1, counts["bad"] + counts["rows"])
    if share > max_bad_fraction:
        bad = [(reason, count) for reason, count in counts["reasons"].most_common() if reason not in _NOT_BAD]
        reasons = ", ".join(f"{reason} {count}" for reason, count in bad)
        raise DataRefused(
            f"{share:.2%} of the annotations are bad ({reasons}), more than max_bad_fraction {max_bad_fraction:.2%}; "
            f"repair those in {storage.join(folder, 'quarantine')}, or raise max_bad_fraction. Built shards are kept."
        )
