"""The model's side of an evaluation: rows of a shard in, predictions out; tasks of both levels share a batch."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from models.tags import tags_from_rows
from pipelines.core import storage
from pipelines.core.copies import local_copy
from pipelines.core.parquet import read_file, write_file
from pipelines.core.runtime import worker_threads
from pipelines.core.tables import IMAGE_BYTES, PREDICTIONS, QUARANTINE, to_table
from pipelines.inference.decoding import Decoding
from pipelines.scoring.prediction_files import decoding_metadata, prediction_row
from pipelines.sources.images import BadImage, load_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.core.tag_rules import ModelRules

Precision = Literal["fp32", "bf16"]
STAGE = "evaluate"
UNANSWERABLE = "unanswerable"
IMAGES = "input_images"
"""Folder of the images of shards that are to be answered; deleted after the last."""
_IMAGE_READERS = 8


@dataclasses.dataclass(frozen=True)
class Asking:
    """How a model is asked, the same for every batch of a run.

    Attributes:
        model: the local `from_pretrained` folder.
        version: what the predictions say who made them.
        limits: task → most tokens of an answer.
        decoding: the settings that answers are decoded with.
        batch_size: rows a forward pass.
        precision: arithmetic of the model.
        on_gpu: whether it runs on the actor's GPU.
        threads: of the model, on CPUs.
        rules: which tags it reads; None: those of its own settings.
    """

    model: str
    version: str
    limits: Mapping[str, int]
    decoding: Decoding
    batch_size: int
    precision: Precision
    on_gpu: bool
    threads: int
    rules: "ModelRules | None" = None

    @property
    def decoded_with(self) -> dict[str, Any]:
        """The effective settings of decoding as plain JSON values, the limits of the tasks included."""
        return self.decoding.as_dict(self.limits)


@dataclasses.dataclass(frozen=True)
class Unanswered:
    """The reason why a row has no answer (that of its image, or `unanswerable`), and the detail."""

    reason: str
    detail: str


def shard_file(folder: str, shard: int) -> str:
    """Return a shard's rows: instructions with their images' `uri` and `tags`."""
    return storage.join(folder, f"input/shard-{shard:08d}.parquet")


def images_file(folder: str, shard: int) -> str:
    """Return a shard's images (`image_id`, `image_bytes`), where the tagged table embeds them."""
    return storage.join(folder, f"{IMAGES}/shard-{shard:08d}.parquet")


def predictions_file(folder: str, shard: int) -> str:
    """Return a shard's predictions; written last, so that it proves that the shard is done."""
    return storage.join(folder, f"predictions/part-{shard:08d}.parquet")


def quarantine_file(folder: str, shard: int) -> str:
    """Return a shard's rows that the model was not asked; no file where there are none."""
    return storage.join(folder, f"quarantine/part-{shard:08d}.parquet")


class Predict:
    """A Ray Data actor class: loads the model once, then answers shard after shard.

    Args:
        folder: the step's folder.
        asking: how the model is asked.
    """

    def __init__(self, folder: str, asking: Asking) -> None:
        self.folder = folder
        self.answerer = Answerer(asking)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Shard numbers in, (shard, rows) of what was written out. A shard done twice gives the same file."""
        rows = []
        for shard in batch["shard"].to_pylist():
            predictions, bad = self.answerer.answer(self._read(shard))
            self._write(shard, predictions, bad)
            rows.append(len(predictions))
        return pa.table({"shard": batch["shard"], "rows": pa.array(rows, pa.int64())})

    def _read(self, shard: int) -> list[dict[str, Any]]:
        """Return a shard's rows, with the encoded bytes of those images that the tagged table embeds."""
        rows, path = read_file(shard_file(self.folder, shard)).to_pylist(), images_file(self.folder, shard)
        if storage.exists(path):
            contents = {row["image_id"]: row[IMAGE_BYTES.name] for row in read_file(path).to_pylist()}
            for row in rows:
                row[IMAGE_BYTES.name] = contents.get(row["image_id"])
        return rows

    def _write(self, shard: int, predictions: list[dict[str, Any]], bad: list[dict[str, Any]]) -> None:
        """Write a shard's quarantine, or delete that of an earlier attempt, then its predictions.

        The predictions prove that the shard is done. Those of an earlier attempt go first, so that a process killed in
        between never leaves them beside a quarantine that is not theirs.
        """
        target, quarantine = predictions_file(self.folder, shard), quarantine_file(self.folder, shard)
        storage.delete_file(target)
        if bad:
            write_file(quarantine, to_table(bad, QUARANTINE))
        else:
            storage.delete_file(quarantine)
        metadata = decoding_metadata(self.answerer.asking.decoded_with)
        write_file(target, to_table(predictions, PREDICTIONS).replace_schema_metadata(metadata))


class Answerer:
    """A loaded model that answers rows."""

    def __init__(self, asking: Asking) -> None:
        import torch
        from transformers.utils.logging import disable_progress_bar

        from models.alignment import align_weights
        from models.lion import LionForConditionalGeneration, LionProcessor
        from models.lion.precision import set_precision

        disable_progress_bar()
        self.asking = asking
        if not asking.on_gpu:
            torch.set_num_threads(worker_threads(asking.threads))
        self.device = torch.device("cuda" if asking.on_gpu else "cpu")
        folder = local_copy(asking.model)
        self.processor = LionProcessor.from_pretrained(folder)
        if asking.rules is not None:
            self.processor.set_rules(asking.rules.text, asking.rules.vector)
        model = LionForConditionalGeneration.from_pretrained(folder)
        if asking.precision == "bf16":
            set_precision(model, torch.bfloat16)
        self.model = model.to(self.device).eval()
        align_weights(self.model)
        self.readers = ThreadPoolExecutor(_IMAGE_READERS)

    def answer(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Predictions of every row in order, and quarantine rows of those that could not be asked.

        A row whose image cannot be read, or whose question does not fit the model, has an empty prediction: it counts
        as answered wrongly and is never left out.
        """
        replies = self.replies(rows)
        bad = [
            _quarantine_row(row, reply)
            for row, reply in zip(rows, replies, strict=True)
            if isinstance(reply, Unanswered)
        ]
        texts = ["" if isinstance(reply, Unanswered) else reply for reply in replies]
        version = self.asking.version
        return [prediction_row(row, text, version) for row, text in zip(rows, texts, strict=True)], bad

    def replies(
        self, rows: Sequence[Mapping[str, Any]], limits: Mapping[str, int] | None = None
    ) -> list[str | Unanswered]:
        """Return the answer of every row in order, or why there is none.

        Args:
            rows: each with `task`, `level`, `instruction`, `tags` (a list of `{"tag", "score"}`, or None), and either
                `image` (a picture, or the `BadImage` that stands for it) or `uri`, with `image_bytes` where the encoded
                bytes are there.
            limits: instead of the run's.
        """
        bounds = limits or self.asking.limits
        # Draws follow from the row alone, so that a row's answer depends neither on a batch nor on an earlier attempt.
        size = self.asking.batch_size if self.asking.decoding.seed is None else 1
        # Like with like: a batch is computed to the end of its longest answer and padded to its longest question.
        order = sorted(range(len(rows)), key=lambda at: _length(rows[at], bounds))
        replies: dict[int, str | Unanswered] = {}
        for start in range(0, len(rows), size):
            places = order[start : start + size]
            replies |= zip(places, self._batch([rows[place] for place in places], bounds), strict=True)
        return [replies[place] for place in range(len(rows))]

    def _batch(self, rows: Sequence[Mapping[str, Any]], bounds: Mapping[str, int]) -> list[str | Unanswered]:
        """Return the replies of one forward pass."""
        images = list(self.readers.map(_open, rows))
        found = [Unanswered(one.reason, one.detail) if isinstance(one, BadImage) else None for one in images]
        if self._refusal([row for row, problem in zip(rows, found, strict=True) if problem is None]):
            found = [problem or self._refusal([row]) for row, problem in zip(rows, found, strict=True)]
        asked = [i for i, problem in enumerate(found) if problem is None]
        given: Iterator[str] = iter(())
        if asked:
            given = iter(self._generate([rows[i] for i in asked], [images[i] for i in asked], bounds))
        return [next(given) if problem is None else problem for problem in found]

    def _refusal(self, rows: Sequence[Mapping[str, Any]]) -> Unanswered | None:
        """Why the model cannot be asked these questions; of several, the first that is found."""
        if not rows:
            return None
        try:
            levels = [row["level"] for row in rows]
            self.processor(
                text=[row["instruction"] for row in rows],
                tags=[tags_from_rows(row["tags"]) for row in rows],
                levels=levels,
            )
        except ValueError as error:
            return Unanswered(UNANSWERABLE, str(error))
        return None

    def _generate(
        self, rows: Sequence[Mapping[str, Any]], images: Sequence[Any], bounds: Mapping[str, int]
    ) -> list[str]:
        import torch

        inputs = self.processor(
            images=list(images),
            text=[row["instruction"] for row in rows],
            tags=[tags_from_rows(row["tags"]) for row in rows],
            levels=[row["level"] for row in rows],
        )
        limits = [bounds[row["task"]] for row in rows]
        inputs = inputs.to(self.device)
        seed, devices = self.asking.decoding.seed, [self.device] if self.asking.on_gpu else []
        with torch.inference_mode(), torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(_seed_of(seed, rows[0]))
            ids = self.model.generate(
                **inputs,
                **self.asking.decoding.settings,
                # The run's largest limit, not the batch's: what a row is answered must not depend on its neighbors.
                max_new_tokens=max(bounds.values()),
            ).cpu()
            start = 1  # the decoder's first token is its start token, no part of the answer
            for row, limit in enumerate(limits):
                ids[row, start + limit :] = self.model.generation_config.pad_token_id or 0
        return self.processor.answers(ids)


def _seed_of(seed: int, row: Mapping[str, Any]) -> int:
    """The seed of a row's draws: follows from the run's seed, the row's id where it has one, and the question."""
    key = f"{seed}\n{row['task']}\n{row.get('sample_id', '')}\n{row['instruction']}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest())


def _length(row: Mapping[str, Any], bounds: Mapping[str, int]) -> tuple[int, str, int]:
    """What a row is sorted by: its task, those of short answers first, and how much there is to read."""
    letters = len(row["instruction"]) + sum(len(tag["tag"]) for tag in row["tags"] or ())
    return bounds[row["task"]], row["task"], letters


def _open(row: Mapping[str, Any]) -> "Image | BadImage":
    """Return the row's picture, or why there is none: as a value, so that one file stops nothing."""
    if "image" in row:
        return row["image"]
    try:
        return load_image(row["uri"], row.get(IMAGE_BYTES.name))
    except BadImage as error:
        return error


def _quarantine_row(row: Mapping[str, Any], why: Unanswered) -> dict[str, Any]:
    sample = f"sample {row['sample_id']}: " if why.reason == UNANSWERABLE else ""
    return {
        "image_id": row["image_id"], "uri": row["uri"], "stage": STAGE, "reason": why.reason,
        "detail": f"{sample}{why.detail}",
    }  # fmt: skip
