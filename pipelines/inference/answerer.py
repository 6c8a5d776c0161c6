"""A loaded model that answers rows of questions; tasks of both levels share a batch."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from models.tags import tags_from_rows
from pipelines.core.copies import local_copy
from pipelines.core.runtime import worker_threads
from pipelines.core.tables import IMAGE_BYTES
from pipelines.inference.decoding import Decoding
from pipelines.scoring.prediction_files import prediction_row
from pipelines.sources.images import BadImage, load_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.core.tag_rules import ModelRules

Precision = Literal["fp32", "bf16"]
STAGE = "evaluate"
"""Name of the stage in quarantine rows."""
UNANSWERABLE = "unanswerable"
"""Reason of a row whose question does not fit the model."""
_IMAGE_READERS = 8


@dataclasses.dataclass(frozen=True)
class AnswererSettings:
    """The settings of an `Answerer`, the same for every batch of a run.

    Attributes:
        model: the local `from_pretrained` folder.
        version: the model's version, written into the predictions.
        limits: task → largest number of tokens of an answer.
        decoding: the settings of decoding.
        batch_size: rows per forward pass.
        precision: arithmetic of the model.
        on_gpu: whether the model runs on the process's GPU.
        threads: threads of the model on CPUs.
        rules: the rules by which the model reads tags; None: the rules in its own settings.
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
        """The effective settings of decoding as plain JSON values, including the limits of the tasks."""
        return self.decoding.as_dict(self.limits)


@dataclasses.dataclass(frozen=True)
class Unanswered:
    """A row without an answer: the reason (that of its image, or `unanswerable`) and the detail."""

    reason: str
    detail: str


class Answerer:
    """A loaded model that answers rows.

    Args:
        settings: the model, and how it answers.
    """

    def __init__(self, settings: AnswererSettings) -> None:
        import torch
        from transformers.utils.logging import disable_progress_bar

        from models.alignment import align_weights
        from models.lion import LionForConditionalGeneration, LionProcessor
        from models.lion.precision import set_precision

        disable_progress_bar()
        self.settings = settings
        if not settings.on_gpu:
            torch.set_num_threads(worker_threads(settings.threads))
        self.device = torch.device("cuda" if settings.on_gpu else "cpu")
        folder = local_copy(settings.model)
        self.processor = LionProcessor.from_pretrained(folder)
        if settings.rules is not None:
            self.processor.set_rules(settings.rules.text, settings.rules.vector)
        model = LionForConditionalGeneration.from_pretrained(folder)
        if settings.precision == "bf16":
            set_precision(model, torch.bfloat16)
        self.model = model.to(self.device).eval()
        align_weights(self.model)
        self.readers = ThreadPoolExecutor(_IMAGE_READERS)

    def answer(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the predictions of all rows in order, and the quarantine rows of those without an answer.

        A row whose image cannot be read, or whose question does not fit the model, gets an empty prediction: it counts
        as a wrong answer and is never left out.
        """
        replies = self.replies(rows)
        bad = [
            _quarantine_row(row, reply)
            for row, reply in zip(rows, replies, strict=True)
            if isinstance(reply, Unanswered)
        ]
        texts = ["" if isinstance(reply, Unanswered) else reply for reply in replies]
        version = self.settings.version
        return [prediction_row(row, text, version) for row, text in zip(rows, texts, strict=True)], bad

    def replies(
        self, rows: Sequence[Mapping[str, Any]], limits: Mapping[str, int] | None = None
    ) -> list[str | Unanswered]:
        """Return the answer of every row in order, or the reason why there is none.

        Args:
            rows: each with `task`, `level`, `instruction`, `tags` (a list of `{"tag", "score"}`, or None), and either
                `image` (a picture, or a `BadImage` in its stead) or `uri`, with `image_bytes` where the encoded bytes
                are available.
            limits: largest number of tokens by task, in place of those of the settings.
        """
        bounds = limits or self.settings.limits
        # With sampling, a batch is one row: its draws then depend on the row only, not on the batch or an attempt.
        size = self.settings.batch_size if self.settings.decoding.seed is None else 1
        # Similar rows share a batch, which is computed to its longest answer and padded to its longest question.
        order = sorted(range(len(rows)), key=lambda row: _sort_key(rows[row], bounds))
        replies: dict[int, str | Unanswered] = {}
        for start in range(0, len(rows), size):
            batch = order[start : start + size]
            replies |= zip(batch, self._batch([rows[row] for row in batch], bounds), strict=True)
        return [replies[row] for row in range(len(rows))]

    def _batch(self, rows: Sequence[Mapping[str, Any]], bounds: Mapping[str, int]) -> list[str | Unanswered]:
        """Return the replies of one forward pass."""
        images = list(self.readers.map(_open, rows))
        problems = [Unanswered(image.reason, image.detail) if isinstance(image, BadImage) else None for image in images]
        # The questions are checked together, which is cheap, and one by one only if one of them does not fit.
        if self._refusal([row for row, problem in zip(rows, problems, strict=True) if problem is None]):
            problems = [problem or self._refusal([row]) for row, problem in zip(rows, problems, strict=True)]
        answerable = [row for row, problem in enumerate(problems) if problem is None]
        answers: list[str] = []
        if answerable:
            answers = self._generate([rows[row] for row in answerable], [images[row] for row in answerable], bounds)
        by_row = dict(zip(answerable, answers, strict=True))
        return [by_row[row] if problem is None else problem for row, problem in enumerate(problems)]

    def _refusal(self, rows: Sequence[Mapping[str, Any]]) -> Unanswered | None:
        """Return the reason why questions do not fit the model (the first of several), or None."""
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
        seed, devices = self.settings.decoding.seed, [self.device] if self.settings.on_gpu else []
        with torch.inference_mode(), torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(_seed_of(seed, rows[0]))
            ids = self.model.generate(
                **inputs,
                **self.settings.decoding.settings,
                # The run's largest limit, not the batch's: the answer to a row must not depend on the rows next to it.
                max_new_tokens=max(bounds.values()),
            ).cpu()
            start = 1  # the first token is the decoder's start token, which is no part of the answer
            for row, limit in enumerate(limits):
                ids[row, start + limit :] = self.model.generation_config.pad_token_id or 0
        return self.processor.answers(ids)


def _seed_of(seed: int, row: Mapping[str, Any]) -> int:
    """Return the seed of a row's draws, computed from the run's seed, the row's id if it has one, and the question."""
    key = f"{seed}\n{row['task']}\n{row.get('sample_id', '')}\n{row['instruction']}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest())


def _sort_key(row: Mapping[str, Any], bounds: Mapping[str, int]) -> tuple[int, str, int]:
    """Return the key that rows are sorted by: the limit of the task, the task, and the length of the question."""
    letters = len(row["instruction"]) + sum(len(tag["tag"]) for tag in row["tags"] or ())
    return bounds[row["task"]], row["task"], letters


def _open(row: Mapping[str, Any]) -> "Image | BadImage":
    """Return a row's picture, or the reason why there is none: a value, so that one bad file does not end the batch."""
    if "image" in row:
        return row["image"]
    try:
        return load_image(row["uri"], row.get(IMAGE_BYTES.name))
    except BadImage as error:
        return error


def _quarantine_row(row: Mapping[str, Any], reply: Unanswered) -> dict[str, Any]:
    sample = f"sample {row['sample_id']}: " if reply.reason == UNANSWERABLE else ""
    return {
        "image_id": row["image_id"], "uri": row["uri"], "stage": STAGE, "reason": reply.reason,
        "detail": f"{sample}{reply.detail}",
    }  # fmt: skip
