"""Nested counts, lengths by the real tokenizer, and the prompt that LION's processor writes."""

from pathlib import Path
from typing import Any

import pytest

from models.tags import TagRule
from pipelines.instructions.statistics import (
    PROMPT,
    Tokens,
    add,
    box_statistics,
    describe,
    examples,
    merged,
    row_statistics,
    tag_statistics,
    usual_tags,
)


def test_counts_add_up_at_any_depth() -> None:
    first: dict[str, Any] = {}
    add(first, "a", "b")
    add(first, "c", number=3)
    assert merged([first, {"a": {"b": 2, "d": 1}}, {}]) == {"a": {"b": 3, "d": 1}, "c": 3}


def test_boxes_and_tags_fall_into_their_bins() -> None:
    boxes = box_statistics([(0.0, 0.0, 1.0, 1.0), (0.75, 0.75, 1.0, 1.0)])
    assert boxes["width"] == {"19": 1, "5": 1}
    assert boxes["center"] == {"5,5": 1, "8,8": 1}
    tags = [{"tag": "dog", "score": 0.96}, {"tag": "cat", "score": 0.5}]
    assert tag_statistics([tags, [], None]) == {
        "per_image": {"1": 1, "0": 1}, "confidence": {"19": 1, "10": 1}, "untagged": 1,
    }  # fmt: skip
    assert usual_tags(tags) == ["dog"]
    own = TagRule(threshold="per_tag", thresholds={"dog": 0.97, "cat": 0.4})
    assert tag_statistics([tags], own)["per_image"] == {"1": 1}
    assert usual_tags(tags, own) == ["cat"]


def test_lengths_by_flan_t5s_tokenizer(shared: Path) -> None:
    folder = str(shared / "tokenizers/flan-t5")
    assert Tokens(folder).lengths(["", "Answer: [0.440,0.060,0.650,0.367]"])[0] == 0
    row = {"task": "vqa", "level": "image", "instruction": "What is it?", "answers": ["a cat", "dog"], "box": None}
    counts = row_statistics([row], [7], folder)["tokens"]["vqa"]
    ((instruction, _),) = counts["instruction"].items()
    ((whole, _),) = counts["prompt with tags"].items()
    (fixed,) = Tokens(folder).lengths([PROMPT.replace("{tags}", "")])
    assert int(whole) == fixed + 7 + int(instruction)
    assert sum(counts["answer"].values()) == 2


def test_histograms_in_words() -> None:
    assert describe({"10": 98, "129": 2}) == {"mean": 12.38, "median": 10, "p99": 129, "max": 129, "over_128": 0.02}


def test_the_prompt_is_that_of_the_processor() -> None:
    from models.lion import PromptConfig
    from models.lion.processing import LionProcessor

    processor = LionProcessor.__new__(LionProcessor)
    processor.prompt = PromptConfig(kind="static").to_dict()
    assert processor.prompt_text("Q", [("dog", 0.9), ("man", 0.8)]) == PROMPT.replace("{tags}", "dog, man") + "Q"


@pytest.mark.parametrize("shift", [0, 5])
def test_examples_do_not_depend_on_the_order(shift: int) -> None:
    rows = [{"sample_id": f"s:{number}", "task": "vqa"} for number in range(20)]
    rows = rows[shift:] + rows[:shift]
    chosen = examples(rows, [row["sample_id"] for row in rows])["vqa"]
    assert len(chosen) == 6
    whole = examples(sorted(rows, key=lambda row: row["sample_id"]), sorted(row["sample_id"] for row in rows))
    assert chosen == whole["vqa"]
    assert all(row["uri"] == row["sample_id"] for row in chosen)
