"""METEOR 1.5 (Denkowski and Lavie, WMT 2014) with an interval: the corpus score is a function of summed statistics.

The official program prints the counts of each image: lengths, matches of each kind, chunks. Its corpus score is a
formula of the summed counts, not the mean of the images' scores. The bootstrap therefore draws images and applies the
formula to the sums of each draw, so that the interval stays in [0, 1].
"""

from collections.abc import Sequence

import numpy as np

from pipelines.scoring.estimates import Array, Estimate, bootstrap_of_sums, safe_ratio
from pipelines.scoring.metrics.tokenizers import available_tokenizer

# The program's parameters for English, as pycocoevalcap calls it. Every run compares its score with this formula's.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # of exact, stem, synonym and paraphrase matches
# Columns of the statistics: lengths, function words, 4 x (content words, function words; candidate, reference), ...
_MATCHES = slice(4, 20)
_CHUNKS, _MATCHED, _REFERENCE_MATCHED = 20, 21, 22
_COLUMNS = 23
_TOLERANCE = 1e-6


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Estimate:
    """Return the corpus METEOR of tokenized captions.

    Args:
        candidates: (n) captions.
        references: (n) each image's reference captions.

    Raises:
        RuntimeError: there is no Java, or the program's score differs from the formula's.
    """
    if available_tokenizer() != "ptb-java":
        raise RuntimeError("METEOR needs Java, which is not on the path; install it or leave out METEOR.")
    statistics, official = _statistics(candidates, references)
    estimate = bootstrap_of_sums(statistics, meteor_of_sums)
    if abs(estimate.value - official) > _TOLERANCE:
        raise RuntimeError(
            f"The METEOR program gives {official}, but its statistics give {estimate.value} with the parameters of "
            "version 1.5; install the pycocoevalcap of requirements.txt."
        )
    return estimate


def meteor_of_sums(sums: Array) -> Array:
    """Return METEOR of summed statistics.

    Args:
        sums: (r, 23) statistics as the program prints them, summed over images.
    """
    length, reference_length, function_words, reference_function_words = sums[:, :4].T
    matches = sums[:, _MATCHES].reshape(-1, 4, 4)
    weighted = (_WEIGHTS[:, None] * (_DELTA * matches[:, :, :2] + (1 - _DELTA) * matches[:, :, 2:])).sum(axis=1)
    precision = safe_ratio(weighted[:, 0], _weighted_length(length, function_words))
    recall = safe_ratio(weighted[:, 1], _weighted_length(reference_length, reference_function_words))
    mean = safe_ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragmentation = safe_ratio(sums[:, _CHUNKS], (sums[:, _MATCHED] + sums[:, _REFERENCE_MATCHED]) / 2)
    score: Array = mean * (1 - _GAMMA * fragmentation**_BETA)
    return score


def _weighted_length(length: Array, function_words: Array) -> Array:
    weighted: Array = _DELTA * (length - function_words) + (1 - _DELTA) * function_words
    return weighted


def _statistics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Array, float]:
    """Return (n, 23) statistics, a row per image, that can be summed, and the program's corpus score."""
    from pycocoevalcap.meteor.meteor import Meteor

    program = Meteor()
    lines = [program._stat(candidate, list(texts)) for candidate, texts in zip(candidates, references, strict=True)]
    program.meteor_p.stdin.write(f"EVAL ||| {' ||| '.join(lines)}\n".encode())
    program.meteor_p.stdin.flush()
    answers = [program.meteor_p.stdout.readline() for _ in range(len(lines) + 1)]
    statistics = np.array([line.split() for line in lines], dtype=np.float64).reshape(len(lines), _COLUMNS)
    # A caption that equals its reference word for word has no fragmentation: the program counts no chunk for it.
    perfect = (statistics[:, _CHUNKS] == 1) & (statistics[:, _MATCHED] == statistics[:, 0])
    statistics[perfect & (statistics[:, _REFERENCE_MATCHED] == statistics[:, 1]), _CHUNKS] = 0
    return statistics, float(answers[-1])
