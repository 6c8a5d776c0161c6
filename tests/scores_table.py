"""Rebuild ``docs/scores.md``: ``python -m tests.scores_table``.

The `here` column is computed; the other scorers' values are recorded in ``tests/scores/``. With ``--peers FOLDER``
(source files of the other scorers, see ``tests/scores/peers.py``; needs Java) they are computed and recorded anew.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.scoring import ScoringConfig, score
from pipelines.scoring.estimates import Scores
from tests.scores.answers import questions
from tests.scores.cases import CASES, Case
from tests.scores.peers import VERSIONS, Peers, cider

Values = dict[str, dict[str, float]]
FOLDER = Path(__file__).parent / "scores"
RECORDED = FOLDER / "peers.json"
ANSWERS = FOLDER / "vqa_answers.json"
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "scores.md"
COLUMNS = {"official": "official", "lavis": "LAVIS", "lmms_eval": "lmms-eval", "vlmevalkit": "VLMEvalKit"}
_QUESTIONS = 400
_DECIMALS = 4


def here(case: Case) -> Scores:
    """Return this project's scores of a case, by the default rules and by all others."""
    config = ScoringConfig(tokenizer="ptb-python", compare=True)
    return score(case.benchmark, case.predictions, case.references, config)


def there(case: Case, peers: Peers) -> Values:
    """Return the other scorers' numbers of a case, by scorer."""
    if case.benchmark == "vqa":
        scorers = peers.soft_accuracies()
        answer, others = case.predictions[0], case.references[0]
        return {name: {"soft_accuracy": scorers[name](answer, others)} for name in COLUMNS}
    if case.benchmark == "aokvqa_direct":
        value = {"direct_answer": peers.aokvqa_direct(case.predictions[0], case.references[0])}
        return {"official": value, "lavis": value}
    if case.benchmark == "pope":
        return peers.pope(case.predictions, case.references)
    if case.benchmark == "rec":
        overlaps = peers.box(case.predictions[0], case.references[0])
        return {name: {"mean_iou": value} for name, value in overlaps.items()}
    official, plain = (cider(case.predictions, case.references, tokenized) for tokenized in (True, False))
    return {"official": {"CIDEr": official}, "lmms_eval": {"CIDEr": official}, "vlmevalkit": {"CIDEr": plain}}


def record(folder: Path) -> None:
    """Compute the other scorers' values and store them."""
    peers = Peers(folder)
    document = {"versions": VERSIONS, "cases": {case.name: there(case, peers) for case in CASES}}
    RECORDED.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    scorers = peers.soft_accuracies()
    rows = [
        {
            "prediction": answer,
            "answers": others,
            "scores": {name: round(scorer(answer, list(others)), 9) for name, scorer in scorers.items()},
        }
        for answer, others in questions(_QUESTIONS)
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    ANSWERS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def recorded() -> Mapping[str, Values]:
    """Return the stored values by case."""
    values: Mapping[str, Values] = json.loads(RECORDED.read_text(encoding="utf-8"))["cases"]
    return values


def table(peers: Mapping[str, Values]) -> str:
    """Return the document.

    Args:
        peers: the other scorers' numbers by case.
    """
    lines = [
        "# Scores compared with other scorers",
        "",
        "The scores of five scorers for the same predictions. The columns of the others come from running their code;",
        "`here` is this project with its default rules. `python -m tests.scores_table` writes this page. The same",
        "comparisons run as tests (`tests/test_scores_table.py`), with 400 generated questions for every rule of VQA.",
        "",
        f"| input | {' | '.join(COLUMNS.values())} | here | why |",
        f"|{'---|' * (len(COLUMNS) + 3)}",
    ]
    for case in CASES:
        columns = [_shown(case, peers[case.name].get(column, {})) for column in COLUMNS]
        lines.append(f"| {case.name} | {' | '.join(columns)} | {_shown_here(case)} | {case.why} |")
    lines += [
        "",
        *(f"- {COLUMNS[name]}: {version}." for name, version in VERSIONS.items()),
        "",
        "## Rules",
        "",
        "Every result names its rule: in `notes` of `metrics.json`, under the table of `jobs.evaluate` and in the",
        "report of a comparison.",
        "",
        "| setting | values |",
        "|---|---|",
        "| `scoring.vqa` | `official` (default), `lavis` (LION's published numbers), `lmms_eval`, `vlmevalkit` |",
        "| `scoring.pope` | `official` (default), `strict`: an empty answer is wrong whatever the label |",
        "| `scoring.compare` | `true`: the numbers by every other rule too, such as `soft_accuracy[lavis]` |",
        "",
        "lmms-eval's OK-VQA task normalizes a little differently from its VQAv2 task; `lmms_eval` follows each for its",
        "own benchmark. GQA, VSR, IconQA and A-OKVQA's choices are compared in lower case, without outer space and a",
        "full stop at the end; `scoring.compare` adds plain equality (A-OKVQA's authors) and LAVIS's rule for GQA.",
        "",
        "Captions: `ptb-python`, the tokenizer for machines without Java, gives the official tokens on all 25,014",
        "captions of COCO val2017 and all 26,488 expressions of RefCOCO, RefCOCO+ and RefCOCOg (validation). Captions",
        "with one or two odd words put in agree in 99.98 %, texts of odd words alone in 99.9 % (10,000 each).",
        "",
        "Intervals are bootstraps over the samples and stay within what a metric can be: METEOR's too, whose corpus",
        "score is computed anew from the sums of each draw.",
        "",
    ]
    return "\n".join(lines)


def _shown(case: Case, numbers: Mapping[str, float]) -> str:
    if not numbers:
        return "–"
    return " / ".join(f"{numbers[name]:.{_DECIMALS}g}" if name in numbers else "–" for name in case.numbers)


def _shown_here(case: Case) -> str:
    scores = here(case)
    if scores.counts.get("unreadable_answers"):
        return "unreadable"
    return _shown(case, {name: estimate.value for name, estimate in scores.estimates.items()})


def main() -> None:
    """Write the table, and first the other scorers' values where their code is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder with the other scorers' source files")
    arguments: Any = parser.parse_args()
    if arguments.peers is not None:
        record(arguments.peers)
    DOCUMENT.write_text(table(recorded()), encoding="utf-8")
    print(f"{len(CASES)} rows in {DOCUMENT}")


if __name__ == "__main__":
    main()
