"""A metric from outside the package: registered in one line, then scored, evaluated and compared like any other."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.cli import from_values, parse
from pipelines.comparison.config import CompareConfig, NoiseCurve
from pipelines.comparison.plan import Run
from pipelines.comparison.results import Results, analyze, read_evaluation
from pipelines.core.errors import UserError
from pipelines.core.parquet import write_file
from pipelines.core.tables import INSTRUCTIONS, PREDICTIONS, to_table
from pipelines.evaluation.benchmark import require_scorable
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.run import evaluate
from pipelines.scoring import (
    Benchmark,
    Metric,
    Scores,
    ScoringConfig,
    ScoringInputs,
    find_metric,
    register_benchmark,
    register_metric,
    score,
    score_table,
)
from pipelines.scoring import benchmarks as benchmarks_module
from pipelines.scoring.estimates import Array, bootstrap_of_sums, safe_ratio
from pipelines.scoring.metrics import catalog

WORDS = 10.0


def words_per_reference(sums: Array) -> Array:
    """Compute (r,) ten times the predicted words per word of the reference from (r, 2) sums of both."""
    return np.asarray(WORDS * safe_ratio(sums[:, 0], sums[:, 1]))


def length(inputs: ScoringInputs) -> Scores:
    """Score the length of answers: a number of sums, on another scale than a share."""
    pairs = zip(inputs.predictions, inputs.references, strict=True)
    outcomes = np.array([[len(answer.split()), len(texts[0].split())] for answer, texts in pairs], dtype=np.float64)
    return Scores(
        metric="length",
        primary="relative_length",
        estimates={"relative_length": bootstrap_of_sums(outcomes, words_per_reference)},
        per_sample=outcomes[:, 0] / outcomes[:, 1],
        outcomes=outcomes,
        notes={"rule": "words"},
    )


LENGTH = Metric(
    name="length",
    primary="relative_length",
    bounds={"relative_length": (0.0, 2 * WORDS)},
    score=length,
    formula=words_per_reference,
)
REFERENCE = "a dog on a red bus"


@pytest.fixture(autouse=True)
def toy_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the toy metric and a toy benchmark for one test."""
    monkeypatch.setattr(catalog, "_METRICS", dict(catalog._METRICS))
    monkeypatch.setattr(benchmarks_module, "_REGISTERED", {})
    register_metric(LENGTH)
    register_benchmark(Benchmark("toy_length", "caption", "length", max_new_tokens=20))


def table(*answers: str) -> pa.Table:
    """Return predictions of the toy benchmark, one image each."""
    rows = [
        {
            "sample_id": f"toy_length:caption:{number}", "image_id": str(number), "task": "caption",
            "prediction": answer, "references": [REFERENCE],
        }
        for number, answer in enumerate(answers)
    ]  # fmt: skip
    return to_table(rows, PREDICTIONS)


def test_a_registered_metric_scores_lists_and_tables() -> None:
    by_list = score("toy_length", ["a dog on", "a dog"], [REFERENCE, [REFERENCE]])
    assert (by_list.metric, by_list.value) == ("length", pytest.approx(10 * 5 / 12))
    by_table = score_table(table("a dog on", "a dog"), "toy_length")
    assert by_table["caption"].as_dict() == by_list.as_dict()
    # A set that has the benchmark's name is scored by the toy metric among the tasks of `mixed` too.
    assert score_table(table("a dog on", "a dog"), "mixed")["caption"].metric == "length"


def test_a_registered_metric_is_compared_by_its_formula_and_bounds(tmp_path: Path) -> None:
    """The comparison applies the metric's formula to sums and cuts intervals to the metric's bounds."""
    answers = {"short": ("a dog", "a", "a dog on"), "long": (REFERENCE * 2, REFERENCE, f"{REFERENCE} at night")}
    evaluations = {}
    for arm, texts in answers.items():
        for seed in (1, 2, 3):
            file = str(tmp_path / f"{arm}-{seed}.parquet")
            # One seed answers differently, so that the seeds' spread is wide and the interval meets the bounds.
            write_file(file, table(*(texts if seed < 3 else [REFERENCE] * 3)))
            result = evaluate(EvaluateConfig(benchmark="toy_length", predictions=file, out=str(tmp_path)))
            evaluations[Run(arm, seed), 0.0] = read_evaluation(result.path)
    config = CompareConfig(
        arms={arm: {} for arm in answers}, seeds=[1, 2, 3], resamples=200, noise=NoiseCurve(levels=[])
    )
    document = analyze(config, Results(evaluations, list(answers), [1, 2, 3]))
    group = document["groups"]["caption"]
    assert (group["metric"], group["primary"]) == ("length", "relative_length")
    short = group["arms"]["short"]
    assert short["by_seed"] == pytest.approx([10 * 6 / 18, 10 * 6 / 18, 10])
    assert (short["low"], short["high"]) != (0.0, 1.0)
    assert 0.0 <= short["low"] < short["value"] < short["high"] <= 20.0
    assert short["high"] > 1.0  # no share: the bounds are the metric's
    assert -20.0 <= group["effects"]["long"]["low"] < group["effects"]["long"]["value"]


def test_a_name_is_registered_once() -> None:
    register_metric(LENGTH)  # the same metric again changes nothing
    with pytest.raises(ValueError, match="metric 'length' already"):
        register_metric(dataclasses.replace(LENGTH, formula=None))
    with pytest.raises(ValueError, match="'vqav2' already"):
        register_benchmark(Benchmark("vqav2", "vqa", "vqa", 16))
    with pytest.raises(ValueError, match="must have a task out of"):
        register_benchmark(Benchmark("dance", "dance", "length", 16))
    with pytest.raises(ValueError, match="metric 'bertscore'"):
        register_benchmark(Benchmark("other", "vqa", "bertscore", 16))
    with pytest.raises(UserError, match="no metric 'bertscore'"):
        find_metric("bertscore")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bounds": {"relative_length": (0.0, 1.0)}}, "outside its bounds 0.0 to 1.0"),
        ({"bounds": {"words": (0.0, 1.0)}, "primary": "words"}, "declares the primary number 'words'"),
        ({"name": "other"}, "its scores are of 'length'"),
    ],
)
def test_scores_that_a_metric_does_not_declare_are_an_error(change: dict[str, Any], message: str) -> None:
    metric = dataclasses.replace(LENGTH, **change)
    inputs = ScoringInputs(["a dog"], [[REFERENCE]], Benchmark("toy", "caption", "length", 8), ScoringConfig())
    with pytest.raises(TypeError, match=message):
        metric.compute(inputs)


def test_a_metric_names_what_this_machine_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for config in (ScoringConfig(meteor=True), ScoringConfig(tokenizer="ptb-java")):
        with pytest.raises(UserError, match="'captions' needs Java"):
            score("caption", ["a dog"], [["a dog"]], config)
    assert score("caption", ["a dog"], [["a dog"]]).notes["tokenizer"] == "ptb-python"
    # An evaluation refuses it before a model answers.
    row = {
        "sample_id": "1", "image_id": "1", "task": "caption", "level": "image", "instruction": "Describe the image.",
        "answers": ["a dog"], "box": None,
    }  # fmt: skip
    instructions = to_table([row], INSTRUCTIONS)
    assert require_scorable(instructions, "caption")["caption"].n == 1
    with pytest.raises(UserError, match="'captions' needs Java"):
        require_scorable(instructions, "caption", ScoringConfig(meteor=True))


def test_every_metric_declares_what_its_scores_hold() -> None:
    """Each shipped metric is computed once; `Metric.compute` raises where a number has no bounds or leaves them."""
    references: dict[str, Any] = {"vqa": ["dog"] * 10, "rec": [[0.0, 0.0, 1.0, 0.9]], "pope": "yes"}
    tasks = {"captions": "caption", "exact_match": "vqa_choice"}
    for name in ("captions", "vqa", "aokvqa_direct", "exact_match", "rec", "pope"):
        metric = find_metric(name)
        scores = score(tasks.get(name, name), ["yes"], [references.get(name, ["dog"])], ScoringConfig(compare=True))
        assert (scores.metric, scores.primary) == (name, metric.primary)
        assert (scores.outcomes is not None) == (metric.formula is not None)


def test_the_former_key_of_the_tokenizer_is_refused_with_the_new_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "evaluate.yaml"
    file.write_text("scoring: {tokeniser: ptb-python}\n")
    for argv in (["--scoring.tokeniser", "ptb-python"], ["--config", str(file)]):
        with pytest.raises(SystemExit) as end:
            parse("evaluate", EvaluateConfig, argv)
        assert end.value.code == 2
        assert "Did you mean scoring.tokenizer?" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"Did you mean scoring\.tokenizer\?"):
        from_values("evaluate", EvaluateConfig, {"scoring": {"tokeniser": "ptb-python"}})
