"""docs/scores.md: scores of this project compared with those of other scorers."""

import json
import os
from pathlib import Path
from typing import cast

import pytest

from pipelines.scoring.metrics.answer_rules import VqaRule
from pipelines.scoring.metrics.vqa import soft_accuracy
from tests.scores.cases import CASES, Case
from tests.scores_table import ANSWERS, COLUMNS, DOCUMENT, here, recorded, table, there


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_rule_gives_the_score_of_its_original_code(case: Case) -> None:
    scores = here(case)
    assert scores.primary
    values = recorded()[case.name]
    for scorer in COLUMNS:
        for name, value in values.get(scorer, {}).items():
            key = name if scorer == "official" else f"{name}[{scorer}]"
            if key in scores.estimates:
                assert scores.estimates[key].value == pytest.approx(value, abs=1e-6), (scorer, name)
    if "official" in values:
        assert set(case.numbers) <= set(values["official"])


def test_vqa_by_every_rule_on_generated_questions() -> None:
    rows = json.loads(ANSWERS.read_text(encoding="utf-8"))
    assert len(rows) == 400
    differing = 0
    for row in rows:
        for name, value in row["scores"].items():
            rule = cast(VqaRule, name.removesuffix("_okvqa"))
            computed = soft_accuracy(row["prediction"], row["answers"], rule, "okvqa" if name != rule else "")
            assert computed == pytest.approx(value, abs=1e-9), (name, row)
        differing += len(set(row["scores"].values())) > 1
    assert differing > 200, "the questions must tell the rules apart"


def test_the_document_is_the_output_of_the_command() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == table(recorded()), "run python -m tests.scores_table"


@pytest.mark.skipif("LION_PEERS" not in os.environ, reason="LION_PEERS names no folder with the other scorers' files")
def test_recorded_values_are_those_of_the_other_scorers() -> None:
    from tests.scores.peers import Peers

    peers = Peers(Path(os.environ["LION_PEERS"]))
    for case in CASES:
        if case.benchmark != "caption":
            assert there(case, peers) == recorded()[case.name]
