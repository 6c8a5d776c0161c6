"""Evaluations of constructed answers about the sample world: a comparison's numbers without any model."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.tags import tags_to_rows
from pipelines.comparison.config import CompareConfig
from pipelines.comparison.plan import Run
from pipelines.comparison.results import Results, read_evaluation
from pipelines.core.tables import INSTRUCTIONS, TAGGED, to_table
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.run import evaluate
from pipelines.sample_world.entries import Entry, make_entry
from pipelines.sample_world.scenes import PRESETS
from pipelines.scoring.config import ScoringConfig
from pipelines.sources.boxes import format_box

Row = Mapping[str, Any]


def write_world(root: Path, images: int) -> tuple[str, str, list[Row]]:
    """Write questions about a few scenes; return the folders `instructions` and `tagged`, and the questions."""
    entries = [make_entry(0, "test", number, PRESETS["small"]) for number in range(images)]
    rows = [row for entry in entries for row in _questions(entry)]
    tagged = []
    for entry in entries:
        path = root / entry.file_name("png")
        entry.draw().save(path)
        tags = tags_to_rows(entry.tags)
        size = {"width": entry.scene.width, "height": entry.scene.height}
        tagged.append({"image_id": str(entry.image_id), "uri": str(path), "source": "sample", "tags": tags, **size})
    for name, table in (("instructions", to_table(rows, INSTRUCTIONS)), ("tagged", to_table(tagged, TAGGED))):
        (root / name).mkdir()
        pq.write_table(table, root / name / "part-0.parquet")
    return str(root / "instructions"), str(root / "tagged"), rows


def _questions(entry: Entry) -> list[Row]:
    def row(task: str, number: int, text: str, answers: Sequence[str], box: Sequence[float] | None = None) -> Row:
        name = f"sample_{task}:{task}:{entry.image_id}-{number}"
        level = "region" if task == "rec" else "image"
        return {
            "sample_id": name, "image_id": str(entry.image_id), "task": task, "level": level, "instruction": text,
            "answers": list(answers), "box": box,
        }  # fmt: skip

    rows = [row("caption", 0, "Describe the image.", entry.captions)]
    rows += [row("vqa", n, question.text, [question.truth] * 10) for n, question in enumerate(entry.vqa)]
    width, height = entry.scene.width, entry.scene.height
    for number, texts in entry.expressions:
        x1, y1, x2, y2 = entry.scene.objects[number].box
        box = [x1 / width, y1 / height, x2 / width, y2 / height]
        rows.append(row("rec", number, f"Where is {texts[0]}?", [f"Answer: {format_box(box)}"], box))
    rows.append(row("pope", 0, f"Is there a {entry.scene.objects[0].name} in the image?", ["yes"]))
    rows.append(row("pope", 1, "Is there a violet elephant in the image?", ["no"]))
    return rows


def answer(row: Row, mistakes: float, rng: random.Random) -> str:
    """Return the true answer, or with the probability `mistakes` a wrong one."""
    wrong = rng.random() < mistakes
    if row["task"] == "caption":
        return "a picture of a thing on a ground" if wrong else str(row["answers"][0])
    if row["task"] == "rec":
        moved = rng.uniform(0.0, 0.6) if wrong else rng.uniform(-0.01, 0.01)
        x1, y1, x2, y2 = row["box"]
        x1, y1 = min(max(x1 + moved, 0.0), 0.8), min(max(y1 - moved, 0.0), 0.8)
        return f"Answer: {format_box((x1, y1, min(x1 + x2 - row['box'][0], 1.0), min(y1 + y2 - row['box'][1], 1.0)))}"
    if row["task"] == "pope":
        return ("no" if row["answers"][0] == "yes" else "yes") if wrong else str(row["answers"][0])
    return "something else" if wrong else str(row["answers"][0])


def evaluated(folder: Path, data: str, rows: Sequence[Row], predict: Callable[[Row], str]) -> str:
    """Evaluate answers to the questions; return the folder, with the same files as the evaluation of a model."""
    folder.mkdir(parents=True)
    predictions = [{"sample_id": row["sample_id"], "task": row["task"], "prediction": predict(row)} for row in rows]
    file = str(folder / "answers.parquet")
    pq.write_table(pa.Table.from_pylist(predictions), file)
    scoring = ScoringConfig("ptb-python")
    path = evaluate(EvaluateConfig(predictions=file, data=data, out=str(folder), scoring=scoring)).path
    (Path(path) / "predictions").mkdir()
    pq.write_table(pq.read_table(file), Path(path) / "predictions" / "part-0.parquet")
    return path


def all_results(
    root: Path, config: CompareConfig, rows: Sequence[Row], mistakes: Callable[[str, str, float], float]
) -> Results:
    """Return evaluations of every arm, seed and strength of noise.

    Args:
        root: folder for the evaluations.
        config: the arms, seeds, strengths and the folder of questions.
        rows: the questions.
        mistakes: (arm, task, strength) → probability of a wrong answer.
    """
    evaluations = {}
    for arm in config.arms:
        for seed in config.seeds:
            for strength in config.strengths:
                # The same random numbers for all arms: a question that is hard for one arm is hard for the others.
                def predict(row: Row, arm: str = arm, seed: int = seed, strength: float = strength) -> str:
                    rng = random.Random(f"{row['sample_id']}/{seed}")
                    return answer(row, mistakes(arm, row["task"], strength), rng)

                folder = evaluated(root / f"{arm}-{seed}-{strength}", config.test_data, rows, predict)
                evaluations[Run(arm, seed), strength] = read_evaluation(folder)
    return Results(evaluations, list(config.arms), config.seeds)
