"""POPE, polling for object hallucination (Li et al., EMNLP 2023): yes-or-no questions about objects.

A rule decides whether an answer counts as yes or as no, and every result names its rule:

* `official`: RUCAIBox/POPE's evaluate.py (3df3ba1). An answer counts as no where its first sentence has the word No, no
  or not. Any other answer counts as yes, also an empty one.
* `strict`: as `official`, but an empty answer is wrong for either label.
* `lmms_eval`, `vlmevalkit`: for comparison. The answer must be the word yes or no (lmms-eval 0.7.3), or have exactly
  one of the two words (VLMEvalKit e8e78f0). Any other answer is wrong. lmms-eval's recall leaves such answers out, and
  its yes-rate is that of the labels.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.scoring.estimates import Array, Estimate, Scores, bootstrap_of_sums, require_pairs, safe_ratio
from pipelines.scoring.metrics.answer_rules import strip_punctuation
from pipelines.scoring.metrics.metric import FRACTION, Metric

PopeRule = Literal["official", "strict"]
Flags = NDArray[np.bool_]
_NEGATIONS = {"No", "no", "not"}
_SAYS_YES_OR_NO = re.compile(r"\b(?:yes|no|not)\b", re.IGNORECASE)
_RULES: Mapping[str, str] = {
    "official": "official (RUCAIBox/POPE 3df3ba1: what does not say no is a yes, an empty answer too)",
    "strict": "strict (as official, but an empty answer is wrong)",
}


def says_yes(answer: str) -> bool:
    """Return whether an answer counts as yes by the official rule."""
    words = answer.split(".", 1)[0].replace(",", "").split(" ")
    return _NEGATIONS.isdisjoint(words)


def pope(
    predictions: Sequence[str],
    labels: Sequence[str],
    file_questions: int | None = None,
    rule: PopeRule = "official",
    compare: bool = False,
) -> Scores:
    """Return accuracy, precision, recall, F1 (primary) and yes-rate.

    Args:
        predictions: (n) answers.
        labels: (n) `yes` or `no`.
        file_questions: number of questions in the question file; None: n. There are random files of 2910 and of 3000
            questions, whose numbers cannot be compared with each other.
        rule: which answers count as yes.
        compare: whether to add accuracy, F1 and yes-rate by every other rule, as `f1[lmms_eval]`.

    Raises:
        ValueError: the lists differ in length, are empty or are longer than the file, or a label is not yes or no.
    """
    require_pairs(len(predictions), len(labels))
    file_questions = file_questions or len(labels)
    if len(labels) > file_questions:
        raise ValueError(
            f"{len(labels)} answers to a file of {file_questions} questions; name the benchmark of the longer file."
        )
    truth = [label.strip().lower() for label in labels]
    if wrong := sorted(set(truth) - {"yes", "no"}):
        raise ValueError(f"POPE's labels are yes and no, but a row has {wrong[0]!r}; correct its reference.")
    positive = np.array([label == "yes" for label in truth])
    empty = np.array([not answer.strip() for answer in predictions])
    official = np.array([says_yes(answer) for answer in predictions])
    readings = {"official": official, "strict": np.where(empty, ~positive, official)}
    said_yes = readings[rule]
    outcomes = _outcomes(said_yes, positive)
    true_positive, false_positive, true_negative, false_negative = outcomes.sum(axis=0).astype(int).tolist()
    estimates = {name: bootstrap_of_sums(outcomes, formula) for name, formula in _FORMULAS.items()}
    if compare:
        for other in (name for name in readings if name != rule):
            estimates |= _compared(other, _outcomes(readings[other], positive), _FORMULAS)
        estimates |= _compared("lmms_eval", _outcomes_of_three(predictions, positive, _lmms_eval), _LMMS_EVAL)
        estimates |= _compared("vlmevalkit", _outcomes_of_three(predictions, positive, _vlmevalkit), _VLMEVALKIT)
    return Scores(
        metric="pope",
        primary="f1",
        estimates=estimates,
        per_sample=(said_yes == positive).astype(np.float64),
        outcomes=outcomes,
        counts={
            "samples": len(truth),
            "true_positive": true_positive,
            "false_positive": false_positive,
            "true_negative": true_negative,
            "false_negative": false_negative,
            "empty_answers": int(empty.sum()),
            "neither_yes_nor_no": sum(_SAYS_YES_OR_NO.search(answer) is None for answer in predictions),
        },
        notes={
            "rule": _RULES[rule],
            "questions": f"{len(truth)} answers; the question file has {file_questions} questions",
        },
    )


def _outcomes(said_yes: Flags, positive: Flags) -> Array:
    """Return (n, 4) true and false positives, true and false negatives."""
    return np.stack(
        [said_yes & positive, said_yes & ~positive, ~said_yes & ~positive, ~said_yes & positive], axis=1
    ).astype(np.float64)


def _outcomes_of_three(predictions: Sequence[str], positive: Flags, reading: Callable[[str], str]) -> Array:
    """Return (n, 6) outcomes under a rule with a third reading, "neither".

    The first four columns are those of `_outcomes`, 0 for answers that are neither; the last two are such answers with
    the label yes and with the label no.
    """
    words = np.array([reading(answer) for answer in predictions])
    read = words != ""
    unread = np.stack([~read & positive, ~read & ~positive], axis=1)
    return np.concatenate([_outcomes(words == "yes", positive) * read[:, None], unread], axis=1).astype(np.float64)


def _lmms_eval(answer: str) -> str:
    word = answer.lower().strip()
    return word if word in ("yes", "no") else ""


def _vlmevalkit(answer: str) -> str:
    words = strip_punctuation(answer.lower(), re.compile(r"(?<!\d)\.(?!\d)")).split()
    return "" if ("yes" in words) == ("no" in words) else "yes" if "yes" in words else "no"


def _compared(name: str, outcomes: Array, formulas: Mapping[str, Callable[[Array], Array]]) -> dict[str, Estimate]:
    numbers = ("f1", "accuracy", "yes_rate")
    return {f"{key}[{name}]": bootstrap_of_sums(outcomes, formulas[key]) for key in numbers if key in formulas}


def _accuracy(sums: Array) -> Array:
    return safe_ratio(sums[:, 0] + sums[:, 2], sums.sum(axis=1))


def _precision(sums: Array) -> Array:
    return safe_ratio(sums[:, 0], sums[:, 0] + sums[:, 1])


def _recall(sums: Array) -> Array:
    return safe_ratio(sums[:, 0], sums[:, 0] + sums[:, 3])


def f1(sums: Array) -> Array:
    """Compute (r,) F1 from (r, 4) sums of true and false positives, true and false negatives."""
    # The order of operations is that of the official scorer, so that the last digits agree too.
    precision, recall = _precision(sums), _recall(sums)
    return safe_ratio(2 * precision * recall, precision + recall)


def _yes_rate(sums: Array) -> Array:
    return safe_ratio(sums[:, 0] + sums[:, 1], sums.sum(axis=1))


_FORMULAS = {"f1": f1, "accuracy": _accuracy, "precision": _precision, "recall": _recall, "yes_rate": _yes_rate}


def _lmms_eval_yes_rate(sums: Array) -> Array:
    return safe_ratio(sums[:, 0] + sums[:, 3] + sums[:, 4], sums.sum(axis=1))


def _vlmevalkit_f1(sums: Array) -> Array:
    precision = _precision(sums)
    recall = safe_ratio(sums[:, 0], sums[:, 0] + sums[:, 3] + sums[:, 4])
    return safe_ratio(2 * precision * recall, precision + recall)


_LMMS_EVAL = {"f1": f1, "accuracy": _accuracy, "yes_rate": _lmms_eval_yes_rate}
_VLMEVALKIT = {"f1": _vlmevalkit_f1, "accuracy": _accuracy}

METRIC = Metric(
    name="pope",
    primary="f1",
    bounds=dict.fromkeys(_FORMULAS, FRACTION),
    score=lambda inputs: pope(
        inputs.predictions,
        inputs.references,
        inputs.benchmark.questions,
        inputs.config.pope,
        inputs.config.compare,
    ),
    references="label",
    formula=f1,
)
