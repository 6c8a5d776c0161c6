"""POPE, polling for object hallucination (Li et al., EMNLP 2023): yes-or-no questions about objects."""

import re
from collections.abc import Sequence

import numpy as np

from pipelines.evaluation.estimates import Array, Scores, bootstrap_of_sums, require_pairs, safe_ratio

_NEGATIONS = {"No", "no", "not"}
_SAYS_YES_OR_NO = re.compile(r"\b(?:yes|no|not)\b", re.IGNORECASE)


def says_yes(answer: str) -> bool:
    """The official reading: the first sentence says no where it has the word No, no or not, and yes otherwise."""
    words = answer.split(".", 1)[0].replace(",", "").split(" ")
    return _NEGATIONS.isdisjoint(words)


def pope(predictions: Sequence[str], labels: Sequence[str], file_questions: int | None = None) -> Scores:
    """Accuracy, precision, recall, F1 (primary) and yes-rate, as the official scorer counts them.

    The one deviation: the official scorer takes an empty answer for a yes; here it is wrong whatever the label, and
    counted. Answers that say neither yes nor no are read as the official scorer reads them (yes), and counted.

    Args:
        predictions: (n) answers.
        labels: (n) `yes` or `no`.
        file_questions: the length of the question file where it is not n. There are random files of 2910 and of 3000
            questions; numbers of one do not compare with numbers of the other.

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
        raise ValueError(f"POPE's labels are yes and no, but there is {wrong[0]!r}.")
    positive = np.array([label == "yes" for label in truth])
    empty = np.array([not answer.strip() for answer in predictions])
    said_yes = np.where(empty, ~positive, [says_yes(answer) for answer in predictions])
    outcomes = np.stack(
        [said_yes & positive, said_yes & ~positive, ~said_yes & ~positive, ~said_yes & positive], axis=1
    ).astype(np.float64)
    true_positive, false_positive, true_negative, false_negative = outcomes.sum(axis=0).astype(int).tolist()
    return Scores(
        metric="pope",
        primary="f1",
        estimates={name: bootstrap_of_sums(outcomes, formula) for name, formula in _FORMULAS.items()},
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
        notes={"questions": f"{len(truth)} answers; the question file has {file_questions} questions"},
    )


def _accuracy(sums: Array) -> Array:
    return safe_ratio(sums[:, 0] + sums[:, 2], sums.sum(axis=1))


def _precision(sums: Array) -> Array:
    return safe_ratio(sums[:, 0], sums[:, 0] + sums[:, 1])


def _recall(sums: Array) -> Array:
    return safe_ratio(sums[:, 0], sums[:, 0] + sums[:, 3])


def f1(sums: Array) -> Array:
    """(r, 4) true and false positives, true and false negatives → (r,) F1."""
    # In the official scorer's order of operations, so that the last digits agree too.
    precision, recall = _precision(sums), _recall(sums)
    return safe_ratio(2 * precision * recall, precision + recall)


def _yes_rate(sums: Array) -> Array:
    return safe_ratio(sums[:, 0] + sums[:, 1], sums.sum(axis=1))


_FORMULAS = {"f1": f1, "accuracy": _accuracy, "precision": _precision, "recall": _recall, "yes_rate": _yes_rate}
