"""The script of the README's pictures, on a demo's folder with two images."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.core.parquet import write_file
from pipelines.core.tables import INSTRUCTIONS, PREDICTIONS, TAGGED, to_table
from pipelines.instructions.templates import instruction
from tests.pictures import answers, compressed

CHAMPION = "models:/lion/2"


def folders(root: Path) -> None:
    """Write a demo's folder: its report, the tables of the test images, and the predictions of two models."""
    rows, images = [], []
    for name, width in (("a", 60), ("b", 30)):
        Image.new("RGB", (width, 40), "white").save(root / f"{name}.png")
        images.append({"image_id": name, "uri": str(root / f"{name}.png"), "width": width, "height": 40, "source": "x"})
        for task, text, answer in (("caption", "", "a red picture"), ("vqa", "What color?", "red"), ("rec", "it", "")):
            question = instruction(task, "evaluate", {"text": text} if text else {}, "", None)
            row = {"sample_id": f"{name}:{task}", "image_id": name, "task": task, "level": "image"}
            rows.append(row | {"instruction": question, "answers": [answer], "box": [0.0, 0.0, 0.5, 0.5]})
    write_file(str(root / "questions/instructions/0.parquet"), to_table(rows, INSTRUCTIONS))
    write_file(str(root / "tagged/tagged/0.parquet"), to_table(images, TAGGED))
    for folder, version, box in (
        ("evaluate-1", "models:/lion/1", "no box"),
        ("evaluate-2", CHAMPION, "[0.2,0.2,0.9,0.9]"),
    ):
        predictions = [
            {**{key: row[key] for key in ("sample_id", "image_id", "task", "box")}, "references": row["answers"],
             "prediction": box if row["task"] == "rec" else "red", "model_version": version}
            for row in rows
        ]  # fmt: skip
        write_file(str(root / folder / "predictions/0.parquet"), to_table(predictions, PREDICTIONS))
    steps = [
        {"name": "comparison", "champion": CHAMPION},
        {"name": "test_questions", "path": str(root / "questions")},
        {"name": "tagged_test", "path": str(root / "tagged")},
    ]
    (root / "report.json").write_text(json.dumps({"steps": steps}))


def test_a_card_for_each_image_with_the_champions_box(tmp_path: Path) -> None:
    folders(tmp_path)
    sheet = answers(str(tmp_path))
    assert sheet.width == 2 * 320 + 20
    # The color of a predicted box, slightly blurred. Only the champion predicts a box.
    assert (np.abs(np.asarray(sheet, np.int16) - [229, 72, 77]).max(axis=2) < 20).any()
    assert Image.open(io.BytesIO(compressed(sheet))).size == sheet.size
