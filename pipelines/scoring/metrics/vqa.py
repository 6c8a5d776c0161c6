"""Answer accuracy: VQA's soft accuracy, A-OKVQA's two settings, and plain exact match.

Every result names the rule by which answers are compared, since the official code and the harnesses have different
rules (`answer_rules`, docs/scores.md). Sources: the VQA evaluation code (Antol et al., ICCV 2015; Goyal et al., CVPR
2017) and A-OKVQA's (Schwenk et al., ECCV 2022).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipelines.scoring.estimates import Array, Estimate, Scores, bootstrap_mean, require_pairs
from pipelines.scoring.metrics.answer_rules import RULES, RULES_OF_BENCHMARKS, SOURCES, VqaRule, normalize_answer
from pipelines.scoring.metrics.metric import FRACTION, Metric

_MIN_ANSWERS = 4


def soft_accuracy(prediction: str, answers: Sequence[str], rule: VqaRule = "official", benchmark: str = "") -> float:
    """Return min(agreeing annotators / 3, 1), averaged over leaving out each annotator in turn.

    Args:
        prediction: an answer.
        answers: the annotators' answers, usually ten.
        rule: how both are normalized.
        benchmark: the benchmark's name; a harness may have a separate rule for it.

    Raises:
        ValueError: there are fewer than four answers, so that no prediction could reach 1.
    """
    if len(answers) < _MIN_ANSWERS:
        raise ValueError(
            f"VQA's soft accuracy needs the answers of at least {_MIN_ANSWERS} annotators, but a question has "
            f"{len(answers)}; score single answers as `exact_match`."
        )
    compare = RULES_OF_BENCHMARKS.get((rule, benchmark), RULES[rule])
    answer, others = compare(prediction, answers)
    matches = sum(other == answer for other in others)
    with_out = matches * min((matches - 1) / 3, 1.0) + (len(others) - matches) * min(matches / 3, 1.0)
    return with_out / len(others)


def vqa(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    rule: VqaRule = "official",
    compare: bool = False,
    benchmark: str = "",
) -> Scores:
    """Return VQAv2's and OK-VQA's soft accuracy.

    Args:
        predictions: (n) answers.
        references: (n) the annotators' answers, usually ten.
        rule: how answers are normalized.
        compare: whether to add the accuracy by every other rule, as `soft_accuracy[lavis]`.
        benchmark: the benchmark's name; a harness may have a separate rule for it.

    Raises:
        ValueError: the lists differ in length or are empty, or a question has fewer than four answers.
    """
    require_pairs(len(predictions), len(references))

    def scores(by: VqaRule) -> list[float]:
        pairs = zip(predictions, references, strict=True)
        return [soft_accuracy(answer, answers, by, benchmark) for answer, answers in pairs]

    others: dict[str, list[float]] = {str(other): scores(other) for other in RULES if compare and other != rule}
    empty = [not normalize_answer(answer) for answer in predictions]
    return _scores("vqa", "soft_accuracy", scores(rule), empty, SOURCES[rule], others)


def aokvqa_direct(predictions: Sequence[str], references: Sequence[Sequence[str]], compare: bool = False) -> Scores:
    """Return A-OKVQA's score of direct answers: min(equal answers / 3, 1), compared as plain strings.

    The authors' code compares plain strings, too. Questions marked `difficult_direct_answer` belong to no official
    score; leave them out of the lists.

    Args:
        predictions: (n) answers.
        references: (n) the annotators' answers.
        compare: whether to add the score in lower case and without outer space, as `direct_answer[lower_case]`.

    Raises:
        ValueError: the lists differ in length or are empty.
    """
    require_pairs(len(predictions), len(references))

    def scores(form: Callable[[str], str]) -> list[float]:
        return [
            min(sum(form(answer) == form(other) for other in answers) / 3, 1.0)
            for answer, answers in zip(predictions, references, strict=True)
        ]

    others = {"lower_case": scores(lambda answer: answer.strip().lower())} if compare else {}
    empty = [not answer.strip() for answer in predictions]
    rule = "plain equality (allenai/aokvqa 83786de, LAVIS 1.0.2)"
    return _scores("aokvqa_direct", "direct_answer", scores(str), empty, rule, others)


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]], compare: bool = False) -> Scores:
    """Return the accuracy of answers with one right wording (or several): A-OKVQA's choices, GQA, VSR, IconQA.

    Answers are compared in lower case, without outer space and a full stop at the end. An empty answer is wrong.

    Args:
        predictions: (n) answers.
        references: (n) the right wordings.
        compare: whether to add the accuracy by plain equality (A-OKVQA's authors' code) and by LAVIS's rule for GQA,
            which normalizes the prediction alone, as `accuracy[plain]` and `accuracy[lavis]`.

    Raises:
        ValueError: the lists differ in length or are empty, or a question has no answer.
    """
    require_pairs(len(predictions), len(references))
    if not all(references):
        raise ValueError("A question has no reference answer; every question needs one.")

    def scores(form: Callable[[str], str], reference_form: Callable[[str], str]) -> list[float]:
        return [
            float(form(answer) in {reference_form(right) for right in answers})
            for answer, answers in zip(predictions, references, strict=True)
        ]

    empty = [not _plain(answer) for answer in predictions]
    accuracy = [0.0 if is_empty else score for is_empty, score in zip(empty, scores(_plain, _plain), strict=True)]
    others = {"plain": scores(str, str), "lavis": scores(normalize_answer, str)} if compare else {}
    rule = "equal in lower case, outer space and a final full stop ignored; an empty answer is wrong"
    return _scores("exact_match", "accuracy", accuracy, empty, rule, others)


def _plain(answer: str) -> str:
    return answer.strip().rstrip(".").strip().lower()


def _scores(
    metric: str,
    primary: str,
    scores: Sequence[float],
    empty: Sequence[bool],
    rule: str,
    others: Mapping[str, Sequence[float]],
) -> Scores:
    per_sample = np.asarray(scores, dtype=np.float64)
    estimates = {primary: _mean(scores)} | {f"{primary}[{name}]": _mean(values) for name, values in others.items()}
    scored: Array = per_sample[np.asarray(empty, dtype=bool)] > 0
    return Scores(
        metric=metric,
        primary=primary,
        estimates=estimates,
        per_sample=per_sample,
        counts={"samples": len(per_sample), "empty_answers": int(sum(empty))}
        | ({"empty_answers_taken_as_right": int(scored.sum())} if scored.any() else {}),
        notes={"rule": rule},
    )


def _mean(scores: Sequence[float]) -> Estimate:
    return bootstrap_mean(np.asarray(scores, dtype=np.float64))


VQA = Metric(
    name="vqa",
    primary="soft_accuracy",
    bounds={"soft_accuracy": FRACTION},
    score=lambda inputs: vqa(
        inputs.predictions, inputs.references, inputs.config.vqa, inputs.config.compare, inputs.benchmark.name
    ),
)
AOKVQA_DIRECT = Metric(
    name="aokvqa_direct",
    primary="direct_answer",
    bounds={"direct_answer": FRACTION},
    score=lambda inputs: aokvqa_direct(inputs.predictions, inputs.references, inputs.config.compare),
)
EXACT_MATCH = Metric(
    name="exact_match",
    primary="accuracy",
    bounds={"accuracy": FRACTION},
    score=lambda inputs: exact_match(inputs.predictions, inputs.references, inputs.config.compare),
)
