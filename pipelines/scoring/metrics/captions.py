"""Caption metrics of the COCO caption scorer: BLEU-1..4, ROUGE-L, CIDEr and, on request, METEOR (needs Java).

pycocoevalcap computes them; the tokenizer is a choice, and the result names it. SPICE is not computed: its parser is a
download of 400 MB that the package starts by itself, and this project downloads only what the user requests.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.scoring.estimates import (
    Array,
    Estimate,
    Scores,
    bootstrap_mean,
    bootstrap_of_sums,
    require_pairs,
    safe_ratio,
)
from pipelines.scoring.metrics.meteor import meteor as corpus_meteor
from pipelines.scoring.metrics.metric import FRACTION, Metric, Need, ScoringInputs
from pipelines.scoring.metrics.tokenizers import Tokenizer, available_tokenizer, tokenize

if TYPE_CHECKING:
    from pipelines.scoring.config import ScoringConfig

_ORDERS = 4
# The smoothing constants of the official BLEU; they matter only where a count is 0.
_TINY, _SMALL = 1e-15, 1e-9


def captions(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenizer: Tokenizer | None = None,
    meteor: bool = False,
) -> Scores:
    """Compute BLEU-1..4, ROUGE-L, CIDEr (primary) and, on request, METEOR against all references of the images.

    The numbers are fractions, as in the official scorer: papers print CIDEr 1.382 as 138.2. An empty caption scores 0.

    Args:
        predictions: (n) captions.
        references: (n) each image's reference captions, one or more.
        tokenizer: `ptb-java` or `ptb-python`; None: `ptb-java` where Java is installed.
        meteor: whether to compute METEOR too, which needs Java and takes about 15 s to start.

    Raises:
        ValueError: the lists differ in length or are empty, or an image has no reference.
        RuntimeError: a program in Java failed.
    """
    require_pairs(len(predictions), len(references))
    if not all(references):
        raise ValueError("An image has no reference caption; every image needs one or more.")
    tokenizer = tokenizer or available_tokenizer()
    candidates, truth = _tokenize(predictions, references, tokenizer)
    empty = np.array([not candidate for candidate in candidates])
    cider = np.where(empty, 0.0, _cider(candidates, truth))
    estimates = {
        "CIDEr": bootstrap_mean(cider),
        **_bleu(candidates, truth),
        "ROUGE_L": bootstrap_mean(np.where(empty, 0.0, _rouge(candidates, truth))),
    }
    if meteor:
        estimates["METEOR"] = corpus_meteor(candidates, truth)
    return Scores(
        metric="captions",
        primary="CIDEr",
        estimates=estimates,
        per_sample=cider,
        counts={
            "samples": len(predictions),
            "references": sum(len(texts) for texts in references),
            "empty_answers": int(empty.sum()),
        },
        notes=_notes(tokenizer, meteor, len(predictions)),
    )


def _notes(tokenizer: str, meteor: bool, samples: int) -> Mapping[str, str]:
    notes = {
        "rule": "official (pycocoevalcap 1.2)",
        "tokenizer": tokenizer,
        "interval": "bootstrap over images; CIDEr's document frequencies are fixed at those of the whole list",
        "SPICE": "not computed (its parser is a separate download)",
    }
    if meteor:
        notes["METEOR"] = "corpus score; the bootstrap sums its statistics anew for each draw of images"
    else:
        notes["METEOR"] = "not asked for"
    if samples == 1:
        notes["CIDEr"] = "0 by definition: with one image every word is in every document"
    return notes


def _tokenize(
    predictions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: Tokenizer
) -> tuple[list[str], list[list[str]]]:
    """Tokenize candidates and references in one call: starting Java takes longer than all the captions."""
    flat = [*predictions, *(caption for texts in references for caption in texts)]
    tokenized = iter(tokenize(flat, tokenizer))
    candidates = [next(tokenized) for _ in predictions]
    return candidates, [[next(tokenized) for _ in texts] for texts in references]


def _bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Estimate]:
    """Compute corpus BLEU-1..4 as functions of summed counts, so that the bootstrap is exact."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=_ORDERS)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
    rows = [
        (
            counts["testlen"],
            scorer._single_reflen(counts["reflen"], "closest", counts["testlen"]),
            *counts["correct"],
            *counts["guess"],
        )
        for counts in scorer.ctest
    ]
    statistics = np.array(rows, dtype=np.float64)

    def order(k: int) -> Estimate:
        return bootstrap_of_sums(statistics, lambda sums: _bleu_of_sums(sums, k))

    return {f"Bleu_{k}": order(k) for k in range(1, _ORDERS + 1)}


def _bleu_of_sums(sums: Array, order: int) -> Array:
    """Compute BLEU (Papineni et al., 2002) of summed counts.

    Args:
        sums: (r, 2 + 8) lengths of candidates and references, matches of order 1 to 4, n-grams of order 1 to 4.
        order: n of the longest n-grams.

    Returns:
        (r,) values.
    """
    correct, guessed = sums[:, 2 : 2 + order], sums[:, 2 + _ORDERS : 2 + _ORDERS + order]
    score = np.prod((correct + _TINY) / (guessed + _SMALL), axis=1) ** (1.0 / order)
    ratio = (sums[:, 0] + _TINY) / (sums[:, 1] + _SMALL)
    penalty = np.exp(np.minimum(0.0, 1.0 - safe_ratio(np.ones_like(ratio), ratio)))
    return score * penalty


def _rouge(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    return np.array([rouge.calc_score([c], list(texts)) for c, texts in zip(candidates, references, strict=True)])


def _cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    """Compute (n,) CIDEr-D of each image, with document frequencies over all the images."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    scorer = CiderScorer()
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
    return np.asarray(scorer.compute_score()[1], dtype=np.float64)


def _score(inputs: ScoringInputs) -> Scores:
    return captions(inputs.predictions, inputs.references, inputs.config.tokenizer, inputs.config.meteor)


def _needs(config: "ScoringConfig") -> Collection[Need]:
    needs: list[Need] = ["java"] if config.meteor or config.tokenizer == "ptb-java" else []
    return needs


METRIC = Metric(
    name="captions",
    primary="CIDEr",
    # CIDEr-D is at most 10, far above any real list of captions; intervals of a comparison are not cut there.
    bounds={
        "CIDEr": (0.0, math.inf),
        **{f"Bleu_{order}": FRACTION for order in range(1, _ORDERS + 1)},
        "ROUGE_L": FRACTION,
        "METEOR": FRACTION,
    },
    score=_score,
    needs=_needs,
)
