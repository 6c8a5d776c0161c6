"""Thresholds of a table: where they are searched, and errors if they are missing or different."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.tags import TagRule, save_thresholds
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.tag_rules import TABLE_THRESHOLDS, exceed_threshold, table_rule, thresholds_of

LIST = {"dog": 0.9, "cat": 0.2, "red": 0.5}


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """Create the folder of a precompute step with thresholds and an empty table."""
    folder = tmp_path / "precompute-1"
    (folder / "tagged").mkdir(parents=True)
    (folder / "tagged/part-00000000.parquet").touch()
    save_thresholds(folder / "tagged", LIST, TABLE_THRESHOLDS)
    return folder


def test_thresholds_are_found_from_every_path_of_a_table(step: Path) -> None:
    for path in (step, step / "tagged", step / "tagged/part-00000000.parquet", step.parent):
        thresholds = thresholds_of(str(path))
        assert thresholds is not None
        assert list(thresholds.items()) == list(LIST.items())
    assert thresholds_of("") is None


def test_a_copied_table_keeps_them(step: Path, tmp_path: Path) -> None:
    storage.upload_folder(str(step / "tagged"), str(tmp_path / "copy"))
    assert thresholds_of(str(tmp_path / "copy")) == LIST


def test_taggers_of_different_thresholds_need_a_number(step: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = step.parent / "precompute-2/tagged"
    other.mkdir(parents=True)
    save_thresholds(other, {**LIST, "dog": 0.8}, TABLE_THRESHOLDS)
    with pytest.raises(UserError, match="set threshold to one number"):
        table_rule(str(step.parent))
    assert table_rule(str(step.parent), threshold=0.6) == TagRule(threshold=0.6)


def test_a_broken_file_is_named(step: Path) -> None:
    (step / "tagged/_tag_thresholds.json").write_text('{"dog": "much"}')
    with pytest.raises(UserError, match=r"_tag_thresholds\.json: the threshold of tag 'dog' is 'much'"):
        table_rule(str(step))


@pytest.mark.parametrize("rule", [TagRule(), TagRule(threshold=0.2), TagRule(threshold="per_tag", thresholds=LIST)])
def test_the_vectorized_comparison_equals_the_rule_of_single_tags(rule: TagRule) -> None:
    names = ["dog", "dog", "cat", "cat", "red", "own", "own"]
    scores = np.array([0.9, 0.91, 0.2, 0.21, 0.5, 0.5, 0.51], np.float32)
    pairs = list(zip(names, scores.tolist(), strict=True))
    assert exceed_threshold(pa.array(names), scores, rule).tolist() == rule.reads(pairs)
