"""Wrong settings are refused before any file is read."""

from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.instructions.config import InstructionsConfig, InstructionSet, check

GOOD: dict[str, Any] = {"name": "vqa", "kind": "vqa", "annotations": "a.json"}


def config(*sets: dict[str, Any], **changes: Any) -> InstructionsConfig:
    return InstructionsConfig(**{"tagged": "t", "sets": [InstructionSet(**entry) for entry in sets], **changes})


def test_a_correct_configuration_passes_and_is_not_changed() -> None:
    evaluated = {**GOOD, "name": "test", "annotations": None, "questions": "q.json", "mode": "evaluate"}
    good = config(GOOD, evaluated)

    check(good)

    assert good == config(GOOD, evaluated)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (config(), "sets is empty"),
        (config(GOOD, tagged=""), "tagged is empty"),
        (config(GOOD, shard_rows=0), "shard_rows"),
        (config({**GOOD, "mode": "keep_out"}), "sets is empty"),
        (config(GOOD, tokenizer="nowhere"), "no tokenizer.json"),
        (config({**GOOD, "images": "."}), "images is for mode keep_out only"),
        (config(GOOD, {**GOOD, "name": "k", "mode": "keep_out", "images": "nowhere"}), "image folder nowhere"),
        (config(GOOD, max_bad_fraction=2.0), "max_bad_fraction"),
        (config(GOOD, GOOD), "Two sets are named 'vqa'"),
        (config({**GOOD, "name": "a/b"}), "letters"),
        (config({**GOOD, "kind": "vqa2"}), "no question source"),
        (config({**GOOD, "tasks": ["rec"]}), "no task 'rec'"),
        (config({**GOOD, "prompt": "Answer:"}), "text"),
        (config({**GOOD, "annotations": None}), "no annotation file"),
        (config({**GOOD, "split": "val"}), "no use for split"),
        (config({"name": "p", "kind": "pope", "annotations": "p.json", "questions": "q.json"}), "no use for questions"),
    ],
)
def test_wrong_settings_are_refused(wrong: InstructionsConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(wrong)


def test_all_files_count_as_inputs() -> None:
    entry = InstructionSet(name="r", kind="refcoco", annotations="/data/refs(unc).p")
    assert entry.paths() == {"annotations": "/data/refs(unc).p", "instances": "/data/instances.json"}
    assert InstructionSet(name="r", kind="refcoco", annotations="r.jsonl").paths() == {"annotations": "r.jsonl"}
    regions = InstructionSet(name="v", kind="visual_genome", annotations="/vg/region_descriptions.json")
    assert regions.paths()["image_data"] == "/vg/image_data.json"
    problems = InstructionSet(name="i", kind="iconqa", annotations="/iconqa/problems.json")
    assert problems.paths()["pid_splits"] == "/iconqa/pid_splits.json"
