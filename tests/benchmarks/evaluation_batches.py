"""Evaluation of several tasks in one run, compared with one run per task.

An untrained LION never ends an answer. So each answer is ended after the usual number of tokens of its task, because
the longest answer of a batch decides how long the batch takes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from pipelines.inference.answerer import Answerer, AnswererSettings
from pipelines.inference.decoding import DecodingConfig, resolve_decoding
from tests.benchmarks.figures import Figure, Settings, clock, in_turns, seconds
from tests.benchmarks.material import Tables, photographs, save_tables

# Tokens of an answer, including its end token, and the limit of the task.
LENGTHS = {"vqa": 3, "caption": 14, "rec": 22, "reg": 10}
LIMITS = dict(zip(LENGTHS, (8, 32, 33, 31), strict=True))
BATCH = 16


class Ending(LogitsProcessor):
    """Logits processor that ends each answer at a set length."""

    def __init__(self, end: int) -> None:
        self.end, self.lengths = end, list[int]()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Allow only the end token at the set length, and forbid it before."""
        beams = len(scores) // len(self.lengths)
        over = torch.tensor([length <= input_ids.shape[1] for length in self.lengths for _ in range(beams)])
        only_end = torch.full_like(scores, float("-inf"))
        only_end[:, self.end] = 0.0
        going_on = scores.clone()
        going_on[:, self.end] = float("-inf")
        return torch.where(over.to(scores.device)[:, None], only_end, going_on)


class EndingAnswerer(Answerer):
    """Evaluation's batches, with answers that end at their set lengths."""

    def __init__(self, settings: AnswererSettings) -> None:
        super().__init__(settings)
        self.ending = Ending(self.model.config.eos_token_id)
        generate: Any = partial(self.model.generate, logits_processor=LogitsProcessorList([self.ending]))
        self.model.generate = generate

    def _generate(
        self, rows: Sequence[Mapping[str, Any]], images: Sequence[Any], bounds: Mapping[str, int]
    ) -> list[str]:
        self.ending.lengths = [LENGTHS[row["task"]] for row in rows]
        return super()._generate(rows, images, bounds)


def rows_of(tables: Tables) -> list[dict[str, Any]]:
    """Return the instructions with the paths and tags of their images, as in a shard of an evaluation."""
    images = {row["image_id"]: row for row in pq.read_table(tables.tagged).to_pylist()}
    rows = pq.read_table(tables.instructions).to_pylist()
    return [row | {name: images[row["image_id"]][name] for name in ("uri", "tags")} for row in rows]


def measure(settings: Settings) -> Iterator[Figure]:
    """Measure LION tiny with four tasks and beam 5."""
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    tables = save_tables(settings.work, photographs(settings.work / "images", 16), settings.choose(256, 128))
    rows = rows_of(tables)
    decoding = resolve_decoding(tables.lion, DecodingConfig(), 5)
    answerer = EndingAnswerer(AnswererSettings(tables.lion, "benchmark", LIMITS, decoding, BATCH, "fp32", cuda, 1))

    def apart() -> None:
        for task in LENGTHS:
            answerer.replies([row for row in rows if row["task"] == task])

    def as_they_come() -> None:
        for first in range(0, len(rows), BATCH):
            answerer.replies(rows[first : first + BATCH])

    answerer.replies(rows[:BATCH])
    ways: dict[str, Callable[[], object]] = {
        "mixed": partial(answerer.replies, rows),
        "apart": apart,
        "as they come": as_they_come,
    }
    contenders: dict[str, Callable[[], float]] = {name: partial(seconds, way) for name, way in ways.items()}
    turns = in_turns(settings.choose(3, 2), contenders)
    ours, others, unsorted = ([1000 * value / len(rows) for value in turns[name]] for name in ways)
    yield Figure("mixed_tasks", "four tasks in one run, beam 5", "each task by itself", ours, others, "ms/answer",
                 clock(), goal=0.95)  # fmt: skip
    yield Figure("like_with_like", "four tasks in one run, beam 5", "batches of rows in their order", ours, unsorted,
                 "ms/answer", clock(), goal=1.2)  # fmt: skip
