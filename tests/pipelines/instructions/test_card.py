"""The data card: text of the data is escaped, charts have their counts, and parts without data say so."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.core import storage
from pipelines.instructions import images, questions
from pipelines.instructions.card import write_card
from pipelines.instructions.charts import HeatMap, Histogram, Table
from pipelines.instructions.config import InstructionsConfig, InstructionSet

ENTRY = InstructionSet(name="s", kind="vqa", annotations="a.json", questions="q.json")
SUMMARY: dict[str, Any] = {
    "name": "s", "kind": "vqa", "mode": "train", "split": None, "rows_in": 1200, "rows": 1100, "tasks": {"vqa": 1100},
    "reasons": {"no_answer": 7}, "left_out": {"without_choices": 3}, "evaluation_images": {"id": 90},
}  # fmt: skip
COUNTS = {"evaluation": 12, "evaluation_digests": 5, "unreadable": 0}


def write_proof(shards: Any, **entries: Any) -> None:
    """Write a shard's proof and an empty result, as its last stage leaves them."""
    storage.write_json(shards.done_file(0), {"shard": 0, **entries})
    Path(shards.result_file(0)).parent.mkdir(parents=True, exist_ok=True)
    Path(shards.result_file(0)).touch()


def card(folder: Path, tagged: Path, statistics: dict[str, Any], rows: list[dict[str, Any]], tags: Any = None) -> str:
    config = InstructionsConfig(tagged=str(tagged), sets=[ENTRY])
    examples = {"vqa": rows} if rows else {}
    write_proof(questions.shard_set(str(folder), ENTRY), statistics=statistics, examples=examples, leaked_images=["7"])
    write_proof(images.shard_set(str(folder)), statistics=tags or {})
    entries = write_card(str(folder), config, [SUMMARY], COUNTS)
    assert entries["evaluation_images_in_training"] == 1
    return (folder / "card.html").read_text()


def row(**changes: Any) -> dict[str, Any]:
    base = {"sample_id": "s:vqa:1", "image_id": "100000003", "task": "vqa", "instruction": "Who?", "answers": ["a man"],
            "box": None, "key": "00", "uri": "/gone.png"}  # fmt: skip
    return {**base, **changes}


def test_text_of_the_data_is_escaped(tagged: Path, tmp_path: Path) -> None:
    example = row(instruction="Is <b>this</b> it?", answers=["<script>", "a & b", "c", "d", "e"])
    page = card(tmp_path, tagged, {}, [example])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "Is &lt;b&gt;this&lt;/b&gt; it?" in page
    assert "(+ 2 more)" in page


def test_an_image_that_is_gone_has_its_reason(tagged: Path, tmp_path: Path) -> None:
    page = card(tmp_path, tagged, {}, [row()])
    assert "<img" not in page
    assert re.search(r"<p class=note>missing", page)


def test_parts_without_data_say_so(tagged: Path, tmp_path: Path) -> None:
    page = card(tmp_path, tagged, {}, [])
    for text in ("no tokenizer is set", "The images have no tags.", "<h2>0 examples</h2>"):
        assert text in page
    assert "<h2>Boxes" not in page


def test_numbers_are_on_the_page(tagged: Path, tmp_path: Path) -> None:
    statistics = {
        "boxes": {"area": {"3": 4}, "width": {"5": 4}, "height": {"5": 4}, "center": {"2,3": 4}},
        "tokens": {"vqa": {"instruction": {"12": 1, "250": 1}}},
    }
    page = card(tmp_path, tagged, statistics, [], tags={"per_image": {"3": 2, "55": 1}, "confidence": {"19": 61}})
    for text in ("1,100 rows of 1 sets", "<td class=n>1,200</td>", "left out: without_choices", "Boxes: 4", "160+",
                 "Tags of 3 images", "per image (mean 20.3)", "kept out (id 90)", "over 128"):  # fmt: skip
        assert text in page, text
    assert "<td class=n>131.0</td><td class=n>12</td><td class=n>250</td><td class=n>250</td><td>50.00%</td>" in page


def test_a_histogram_scales_to_its_tallest_bar_and_labels_it() -> None:
    chart = Histogram("lengths", [5, 0, 20, 10], ("0", "32"))
    heights = [bar.height for bar in chart.bars]
    assert [height / heights[2] for height in heights] == pytest.approx([0.25, 0.0, 1.0, 0.5])
    assert all(bar.y + bar.height == pytest.approx(chart.bars[0].y + chart.bars[0].height) for bar in chart.bars)
    x, anchor, count = chart.label
    assert (anchor, count) == ("end", 20)
    assert x == pytest.approx(3 * chart.width / 4)
    assert Histogram("none", [0, 0], ("0", "1")).label[2] == 0


def test_a_heat_map_has_a_cell_for_each_count() -> None:
    (first, second) = HeatMap("centers", {"0,9": 1, "9,0": 4}).cells
    assert (first.x > first.y, first.count, first.opacity) == (True, 1, 0.25)
    assert (second.y > second.x, second.count, second.opacity) == (True, 4, 1.0)


def test_columns_of_numbers_are_aligned_as_numbers() -> None:
    assert Table(("task", "rows", "share"), [("vqa", 3, "1 %"), ("rec", 4.5, 2)]).numeric == [False, True, False]
