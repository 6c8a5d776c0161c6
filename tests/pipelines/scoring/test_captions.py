"""Caption metrics equal the official scorer's (P9), and the Python tokenizer the official one."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.scoring.metrics import meteor as module
from pipelines.scoring.metrics.captions import captions
from pipelines.scoring.metrics.meteor import meteor_of_sums
from pipelines.scoring.metrics.tokenizers import Tokenizer, tokenize

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
TOKENIZERS = [pytest.param("ptb-java", marks=needs_java), "ptb-python"]
OFFICIAL = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr")


@pytest.fixture(scope="module")
def official(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "data/metrics/captions/fakecap_on_val2017.json").read_text())


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_equal_to_the_official_scorer(official: dict[str, Any], tokenizer: Tokenizer) -> None:
    ids = list(official["cands"])
    scores = captions([official["cands"][i] for i in ids], [official["refs"][i] for i in ids], tokenizer)
    for name in OFFICIAL:
        assert scores.estimates[name].value == pytest.approx(official["scores"][name], abs=1e-4)
    per_image = [official["per_image"]["CIDEr"][i] for i in ids]
    np.testing.assert_allclose(scores.per_sample, per_image, atol=1e-4)
    assert scores.notes["tokenizer"] == tokenizer
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in scores.estimates.values())


@needs_java
@pytest.mark.slow
def test_meteor_equal_to_the_official_scorer(official: dict[str, Any]) -> None:
    ids = list(official["cands"])
    scores = captions(
        [official["cands"][i] for i in ids], [official["refs"][i] for i in ids], tokenizer="ptb-python", meteor=True
    )
    assert scores.estimates["METEOR"].value == pytest.approx(official["scores"]["METEOR"], abs=1e-4)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_tokens_are_the_official_ones(official: dict[str, Any], tokenizer: Tokenizer) -> None:
    ids = list(official["refs"])
    flat = [caption for i in ids for caption in official["refs"][i]]
    assert tokenize(flat, tokenizer) == [caption for i in ids for caption in official["refs_ptb"][i]]


@needs_java
def test_python_tokenizer_agrees_with_java_on_real_and_on_difficult_text(shared: Path) -> None:
    entries = json.loads((shared / "data/coco/captions.json").read_text())["annotations"]
    texts = [entry["caption"] for entry in entries]
    texts += json.loads((shared / "data/metrics/captions/human_leave_one_out_inputs.json").read_text())[
        "cands"
    ].values()
    texts += DIFFICULT
    assert tokenize(texts, "ptb-python") == tokenize(texts, "ptb-java")


def test_python_tokens_are_those_that_java_gave() -> None:
    # Made by `ptb-java` of texts written for it; read as one text, for a caption's end looks at the next one's start.
    pairs = json.loads((Path(__file__).parent / "ptb_tokens.json").read_text(encoding="utf-8"))
    assert len(pairs) > 300
    tokens = tokenize([caption for caption, _ in pairs], "ptb-python")
    wrong = [(*pair, other) for pair, other in zip(pairs, tokens, strict=True) if other != pair[1]]
    assert not wrong


@needs_java
def test_java_still_gives_the_stored_tokens() -> None:
    pairs = json.loads((Path(__file__).parent / "ptb_tokens.json").read_text(encoding="utf-8"))
    assert tokenize([caption for caption, _ in pairs], "ptb-java") == [tokens for _, tokens in pairs]


@needs_java
def test_tokenizers_agree_on_all_captions_of_coco_val2017(shared: Path) -> None:
    entries = json.loads((shared / "data/coco_text/captions_val2017.json").read_text())["annotations"]
    texts = [entry["caption"] for entry in entries]
    assert tokenize(texts, "ptb-python") == tokenize(texts, "ptb-java")


@pytest.mark.parametrize("unit", ["a", "a.", "<a ", "a-", "1,", "@", "a'", "(555) ", "a@", "A&", "www.", "½", "n't"])
def test_long_nonsense_is_tokenized_in_reasonable_time(unit: str) -> None:
    started = time.perf_counter()
    tokenize([unit * (8000 // len(unit))], "ptb-python")
    assert time.perf_counter() - started < 10


DIFFICULT = [
    "A man's dog, \"sitting\" (on) a 3.5 mat... isn't it?",
    "Mr. Smith's dog at 5:30 p.m. in the U.S. cannot see & hear; he's gonna leave!!",
    "a 1/2 eaten pizza w/ 50% off, $5, #1 t-shirt, black-and-white dog/cat",
    "rock 'n' roll at 6 o'clock in the '90s -- the 1970's",
    "3.5ft tall ‘single’ “double” quotes – a dash … café naïve ½ cup",
    "tabs\tand\nlines\u2028of\u0085all kinds",
    "write to a@b.com or www.example.com",
    "",
    "...",
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\ud83d"])
def test_line_breaks_inside_a_caption_do_not_shift_the_others(tokenizer: Tokenizer, line_break: str) -> None:
    assert tokenize([f"a{line_break}b {line_break} c", "", "end."], tokenizer) == ["a b c", "", "end"]


def test_an_empty_caption_scores_nothing_even_against_an_empty_reference() -> None:
    scores = captions(["", "...", "a dog"], [["a cat"], ["..."], ["a dog"]], "ptb-python")
    assert scores.per_sample[:2].tolist() == [0, 0]
    assert scores.estimates["ROUGE_L"].value == pytest.approx(1 / 3)
    assert scores.counts["empty_answers"] == 2


def test_one_image_has_no_cider_and_the_result_says_so() -> None:
    scores = captions(["a dog"], [["a dog"]], "ptb-python")
    assert scores.value == 0
    assert "one image" in scores.notes["CIDEr"]


def test_what_was_not_computed_is_said() -> None:
    notes = captions(["a dog", "a cat"], [["a dog"], ["a cat"]], "ptb-python").notes
    assert "not" in notes["METEOR"]
    assert "not computed" in notes["SPICE"]


@needs_java
@pytest.mark.slow
def test_meteors_interval_is_that_of_resampled_sums_and_stays_a_fraction() -> None:
    scores = captions(
        ["a man rides a horse", "two dogs play near the water in a large park"],
        [["a man rides a horse"], ["a dog"]],
        "ptb-python",
        meteor=True,
    ).estimates["METEOR"]
    # The corpus score is no mean of the images' scores, 1 and 0.0597, which are the ends of two images' resamples.
    assert scores.value == pytest.approx(0.3936974, abs=1e-7)
    assert scores.low == pytest.approx(0.0597015, abs=1e-7)
    assert scores.high == 1


def test_meteor_of_sums_follows_the_published_formula() -> None:
    # 4 of 5 words match exactly, one of them a function word on either side, in two chunks.
    statistics = np.zeros((1, 23))
    statistics[0, :8] = (5, 6, 2, 2, 3, 3, 1, 1)
    statistics[0, 20:] = (2, 4, 4)
    precision, recall = (0.75 * 3 + 0.25) / (0.75 * 3 + 0.25 * 2), (0.75 * 3 + 0.25) / (0.75 * 4 + 0.25 * 2)
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    assert meteor_of_sums(statistics)[0] == pytest.approx(mean * (1 - 0.6 * (2 / 4) ** 0.2))
    assert meteor_of_sums(np.zeros((1, 23)))[0] == 0


def test_meteor_without_java_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_tokenizer", lambda: "ptb-python")
    with pytest.raises(RuntimeError, match="needs Java"):
        captions(["a dog"], [["a dog"]], "ptb-python", meteor=True)


@pytest.mark.parametrize(
    "predictions, references, message",
    [([], [], "nothing to score"), (["a"], [], "1 predictions and 0"), (["a"], [[]], "no reference caption")],
)
def test_lists_that_do_not_fit_are_refused(predictions: list[str], references: list[list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        captions(predictions, references, "ptb-python")
