"""The rule that selects tags: RAM's thresholds and order, one number for all, unlisted tags, files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.tags import (
    TagRule,
    load_thresholds,
    make_rule,
    parse_thresholds,
    save_thresholds,
    surest,
    tags_from_rows,
    tags_to_rows,
)
from pipelines.core.tables import TAG

# Of RAM's lists (recognize-anything 7cb804a, ram/data), in the order of its tag list.
RAM = {
    "body": 1.0, "dog": 0.9, "grass": 0.83, "group": 1.0, "person": 0.86, "red": 0.85, "see": 1.0, "stand": 0.8,
    "woman": 0.8,
}  # fmt: skip
SEEN = [
    ("group", 0.97), ("body", 0.93), ("see", 0.9), ("woman", 0.9), ("dog", 0.85), ("person", 0.8), ("grass", 0.72),
    ("red", 0.7), ("stand", 0.7),
]  # fmt: skip


def test_rams_thresholds_select_the_tags_of_ram() -> None:
    assert make_rule(thresholds=RAM).select(SEEN) == [("woman", 0.9)]
    assert len(TagRule(threshold=0.5, thresholds=RAM).select(SEEN)) == 9


def test_the_default_is_per_tag_where_there_are_thresholds() -> None:
    assert make_rule(thresholds=RAM).threshold == "per_tag"
    assert make_rule() == TagRule(40, 0.5, "confidence", None)
    assert make_rule(threshold=0.7, thresholds=RAM).threshold == 0.7


def test_ram_writes_tags_in_the_order_of_its_list() -> None:
    tags = [("woman", 0.99), ("stand", 0.97), ("dog", 0.98), ("grass", 0.9)]
    assert [tag for tag, _ in make_rule(order="list", thresholds=RAM).select(tags)] == [
        "dog",
        "grass",
        "stand",
        "woman",
    ]
    assert [tag for tag, _ in make_rule(thresholds=RAM).select(tags)] == ["woman", "dog", "stand", "grass"]
    chosen = make_rule(2, order="list", thresholds=RAM).select(tags)
    assert chosen == [("dog", 0.98), ("woman", 0.99)], "the two surest, in the list's order"


def test_a_tag_without_a_threshold_has_the_default_and_comes_last() -> None:
    tags = [("hovercraft", 0.5), ("eel", 0.51), ("cat", 0.99), ("woman", 0.85)]
    rule = make_rule(order="list", thresholds=RAM)
    assert rule.select(tags) == [("woman", 0.85), ("cat", 0.99), ("eel", 0.51)]


@pytest.mark.parametrize("threshold", [0.1, 0.65, 0.8, 0.83, 0.86, 0.9])
def test_a_stored_confidence_at_its_threshold_is_not_above_it(threshold: float) -> None:
    """Compare as float32, the type of confidences: float32(0.8) is larger than the number 0.8."""
    stored = float(np.float32(threshold))
    above = float(np.nextafter(np.float32(threshold), np.float32(1)))
    for rule in (TagRule(threshold=threshold), TagRule(threshold="per_tag", thresholds={"dog": threshold})):
        assert rule.reads([("dog", threshold), ("dog", stored), ("dog", above)]) == [False, False, True]


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="tagger of these tags has no thresholds"):
        TagRule(threshold="per_tag")
    with pytest.raises(ValueError, match="tagger of these tags has no list"):
        TagRule(order="list")
    with pytest.raises(ValueError, match="at least one"):
        TagRule(top_k=0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        TagRule(threshold=40)
    with pytest.raises(ValueError, match="'per_tag' or a number"):
        TagRule(threshold="high")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="list, confidence"):
        TagRule(order="alphabet")  # type: ignore[arg-type]


def test_tags_go_to_an_arrow_table_and_back() -> None:
    rows = pa.array([tags_to_rows([("dog", 0.5), ("ball", 0.25)]), None, []], pa.list_(TAG))
    assert [tags_from_rows(row) for row in rows.to_pylist()] == [[("dog", 0.5), ("ball", 0.25)], [], []]


def test_a_request_of_whole_numbers_gives_floats() -> None:
    ((tag, score),) = tags_from_rows([{"tag": "dog", "score": 1}])
    assert (tag, score) == ("dog", 1.0)
    assert isinstance(score, float)


def test_the_surest_keep_their_order() -> None:
    assert surest([("a", 0.6), ("b", 0.9), ("c", 0.7)], 2) == [("b", 0.9), ("c", 0.7)]


def test_a_file_keeps_thresholds_and_their_order(tmp_path: Path) -> None:
    (path,) = save_thresholds(tmp_path, RAM)
    assert list((load_thresholds(tmp_path) or {}).items()) == list(RAM.items())
    save_thresholds(tmp_path, None)
    assert not Path(path).exists(), "a folder that is saved anew has no thresholds of its past"
    assert load_thresholds(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("dog 0.9", "is not JSON"), ("[0.9]", "a JSON object"), ("{}", "a JSON object"),
        ('{"dog": "high"}', "'dog' is 'high'"), ('{"dog": 1.5}', "from 0 to 1"), ('{"dog": NaN}', "from 0 to 1"),
        ('{"dog": true}', "from 0 to 1"), ('{" ": 0.5}', "from 0 to 1"),
    ],
)  # fmt: skip
def test_another_file_is_refused(content: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_thresholds(content, "x.json")
