"""The comparison's numbers, its gallery and its report, from constructed answers."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from jobs.compare import show
from models.tags import TagRule
from pipelines.comparison import examples
from pipelines.comparison.config import CompareConfig, NoiseCurve, StageSpec
from pipelines.comparison.plan import Run
from pipelines.comparison.report import p_value, points, published, render
from pipelines.comparison.results import (
    Document,
    Results,
    _effect,
    analyze,
    decodings_differ,
    measure_group,
    verdict,
)
from pipelines.comparison.statistics import Measured
from pipelines.comparison.tracking import arm_numbers
from pipelines.core import storage
from pipelines.core.parquet import read_file
from pipelines.evaluation.results import SAMPLE_SCORES
from pipelines.scoring.metrics.catalog import find_metric
from tests.pipelines.comparison.answers import all_results, write_world


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> CompareConfig:
    root = tmp_path_factory.mktemp("questions")
    data, tagged, _ = write_world(root, 12)
    return CompareConfig(
        test_data=data,
        test_tagged=tagged,
        arms={"static": {}, "dynamic": {}},
        seeds=[3, 5, 8],
        noise=NoiseCurve(levels=[1.0]),
        resamples=200,
        examples=2,
    )


@pytest.fixture(scope="module")
def results(config: CompareConfig, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Answers whose dynamic arm is better on vqa and worse on rec; tag noise affects the dynamic arm only."""
    rows = write_world(tmp_path_factory.mktemp("again"), 12)[2]

    def mistakes(arm: str, task: str, strength: float) -> float:
        if arm == "static":
            return {"vqa": 0.9, "rec": 0.0}.get(task, 0.4)
        return {"vqa": 0.0, "rec": 0.9}.get(task, 0.4) + 0.1 * strength

    return all_results(tmp_path_factory.mktemp("results"), config, rows, mistakes)


@pytest.fixture(scope="module")
def document(config: CompareConfig, results: Results) -> Document:
    return analyze(config, results)


def test_an_arms_number_is_the_mean_of_its_evaluations(document: Document, results: Results) -> None:
    for group, numbers in document["groups"].items():
        for arm in ("static", "dynamic"):
            tasks = [evaluation.metrics["tasks"][group] for evaluation in results.of(arm)]
            by_seed = [task["estimates"][numbers["primary"]]["value"] for task in tasks]
            estimate = numbers["arms"][arm]
            assert estimate["by_seed"] == pytest.approx(by_seed)
            assert estimate["value"] == pytest.approx(np.mean(by_seed))
            assert estimate["low"] <= estimate["value"] <= estimate["high"]


def test_what_differs_is_found_in_its_direction_and_what_does_not_is_undecided(document: Document) -> None:
    effects = {group: numbers["effects"]["dynamic"] for group, numbers in document["groups"].items()}
    assert {group: effect["verdict"] for group, effect in effects.items()} == {
        "caption": "undecided", "vqa": "better", "rec": "worse", "pope": "undecided",
    }  # fmt: skip
    assert effects["caption"]["value"] == 0.0
    assert effects["vqa"]["p_holm"] >= effects["vqa"]["p"]


def few(config: CompareConfig, results: Results, count: int) -> Document:
    """Return the numbers of the same answers for the first seeds only."""
    seeds = config.seeds[:count]
    kept = {key: evaluation for key, evaluation in results.evaluations.items() if key[0].seed in seeds}
    return analyze(dataclasses.replace(config, seeds=seeds), Results(kept, results.arms, seeds))


@pytest.mark.parametrize("count, words", [(1, "one seed: a hint"), (2, "two seeds: a hint")])
def test_fewer_than_three_seeds_give_a_hint_and_nothing_stronger(
    count: int, words: str, config: CompareConfig, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = few(config, results, count)
    assert numbers["evidence"] == words
    assert numbers["tests"] == 0
    effects = [group["effects"]["dynamic"] for group in numbers["groups"].values()]
    under_noise = [level["effects"]["dynamic"] for group in numbers["groups"].values() for level in group["noise"]]
    assert {effect["verdict"] for effect in effects} == {"hint"}
    assert {effect[key] for effect in effects for key in ("p", "p_holm", "smallest_seen")} == {None}
    assert {effect[key] for effect in under_noise for key in ("p", "smallest_seen")} == {None}
    assert numbers["groups"]["vqa"]["effects"]["dynamic"]["value"] > 0.5  # the numbers themselves stay
    assert not [name for name in arm_numbers(numbers, "dynamic") if name.endswith((".p", ".p_holm", ".smallest_seen"))]
    gallery: dict[str, dict[str, list[Document]]] = {"vqa": {"gained dynamic": [], "lost dynamic": [], "worst": []}}
    text = text_of(page(numbers, gallery))
    assert text.count(words) >= len(effects)
    assert words.capitalize() in text
    assert not re.search(STRONG, text)
    assert text.count(f"{words}; intervals") == 2  # in the figures of differences and of noise
    show(numbers | {"champion": None}, "report.html")
    printed = capsys.readouterr().err
    assert words in printed
    assert not re.search(STRONG, printed)


def test_three_seeds_give_verdicts_and_the_smallest_detectable_difference(document: Document) -> None:
    assert document["evidence"] == "3 seeds"
    effects = [group["effects"]["dynamic"] for group in document["groups"].values()]
    assert document["tests"] == len(effects) == 4
    vqa = document["groups"]["vqa"]["effects"]["dynamic"]
    assert 0 < vqa["smallest_seen"] < vqa["value"]
    assert "vqa.soft_accuracy.difference.smallest_seen" in arm_numbers(document, "dynamic")
    text = text_of(page(document, {}))
    assert "wins" in text
    assert "a hint" not in text
    assert re.search(STRONG, text)
    assert f"a true difference of {points(vqa['smallest_seen'])} points is detected with a probability of 80%" in text
    assert document["groups"]["caption"]["effects"]["dynamic"]["smallest_seen"] is None  # no image differs: no spread


# Words that the report of one or two seeds must not contain: verdicts and significance.
STRONG = r"\b(wins?|loses?|better|worse|beats?|no difference shown|Holm)\b|\bp [=<]|p after"


def text_of(page: str) -> str:
    """Return the text of a page without styles and tags; the texts of figures are included."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)))


def test_an_arm_that_lacks_a_seed_is_named(results: Results) -> None:
    others = {key: value for key, value in results.evaluations.items() if key != (Run("dynamic", 5), 1.0)}
    with pytest.raises(ValueError, match=r"No evaluation of dynamic, seed 5 at tag noise 1: every arm needs every"):
        Results(others, results.arms, results.seeds)


def test_the_page_names_what_all_seeds_share(config: CompareConfig, results: Results) -> None:
    shared = {"stage1": StageSpec(once_per="comparison"), "stage2": StageSpec(once_per="seed"), "last": StageSpec()}
    numbers = analyze(dataclasses.replace(config, stages=shared), results)
    assert numbers["shared_stages"] == ["stage1"]
    assert "Parts that all seeds share are trained once (the tag encoder, stage1)" in text_of(page(numbers, {}))


def test_noise_has_its_own_numbers(document: Document) -> None:
    vqa = document["groups"]["vqa"]["noise"]
    assert [level["strength"] for level in vqa] == [0.0, 1.0]
    assert vqa[0]["arms"]["static"] == {
        k: document["groups"]["vqa"]["arms"]["static"][k] for k in ("value", "low", "high")
    }
    assert vqa[1]["arms"]["static"]["value"] == vqa[0]["arms"]["static"]["value"]
    assert vqa[1]["arms"]["dynamic"]["value"] < vqa[0]["arms"]["dynamic"]["value"]


def test_models_of_different_questions_are_not_compared(results: Results) -> None:
    first = results.of("static")[0]
    vqa = first.groups["vqa"]
    other = dataclasses.replace(first, groups={"vqa": dataclasses.replace(vqa, sample_ids=vqa.sample_ids[::-1])})
    with pytest.raises(ValueError, match="did not answer the same questions"):
        measure_group({"a": [first], "b": [other]}, "vqa", 100)


def test_the_gallery_shows_gains_losses_low_scores_and_a_random_sample(config: CompareConfig, results: Results) -> None:
    chosen = examples.choose(results, "vqa", "static", ["dynamic"], 3)
    static, dynamic = (results.scores(arm, "vqa") for arm in ("static", "dynamic"))
    assert all(dynamic[position] > static[position] for position in chosen["gained dynamic"])
    assert len(chosen["gained dynamic"]) == 3
    assert chosen["lost dynamic"] == []
    worst = sorted(static + dynamic)[:3]
    assert [static[position] + dynamic[position] for position in chosen["worst"]] == pytest.approx(worst)
    assert chosen == examples.choose(results, "vqa", "static", ["dynamic"], 3)
    shown = examples.gallery(results, {"rec": {"drawn": [0, 1]}}, config.test_data, config.test_tagged)
    example = shown["rec"]["drawn"][0]
    assert example["picture"].startswith("data:image/jpeg;base64,")
    assert [answer["arm"] for answer in example["answers"]] == ["static", "dynamic"]
    true, static_box = example["true_box"], example["answers"][0]["box"]
    assert static_box["x"] == pytest.approx(true["x"], abs=3)
    assert example["tags"]


def test_a_tag_is_struck_out_where_no_arm_reads_it(config: CompareConfig, results: Results, document: Document) -> None:
    chosen = {"rec": {"drawn": [0]}}
    gallery = examples.gallery(results, chosen, config.test_data, config.test_tagged)
    tag, score, _ = gallery["rec"]["drawn"][0]["tags"][0]
    never = TagRule(threshold="per_tag", thresholds={tag: 1.0})
    for rules, is_read in (((never,), False), ((never, TagRule(threshold=score / 2)), True)):
        shown = examples.gallery(results, chosen, config.test_data, config.test_tagged, rules)
        assert shown["rec"]["drawn"][0]["tags"][0] == (tag, score, is_read)
        line = next(line for line in page(document, shown).splitlines() if line.startswith('<p class="tags">'))
        assert line.startswith(f'<p class="tags"><span class="tag{"" if is_read else " unread"}">')


def test_a_missing_image_is_reported_on_the_page(config: CompareConfig, results: Results, document: Document) -> None:
    image = first_image(results, "vqa")
    picture = next(Path(config.test_tagged).parent.glob(f"*{image}.png"))
    content = picture.read_bytes()
    picture.unlink()
    try:
        shown = examples.gallery(results, {"vqa": {"drawn": [0]}}, config.test_data, config.test_tagged)
    finally:
        picture.write_bytes(content)
    assert shown["vqa"]["drawn"][0]["problem"].startswith("missing")
    assert "The image cannot be read (missing" in page(document, shown)


def first_image(results: Results, group: str) -> str:
    """Return the image of a group's first question."""
    table = read_file(storage.join(results.first.folder, SAMPLE_SCORES))
    return str(table.filter(pc.equal(table["group"], group))["image_id"][0].as_py())


def page(document: Document, gallery: dict[str, dict[str, list[Document]]]) -> str:
    history = [{"kind": kind, "step": step, "loss": 1.0 / step, "cosine_positive": 0.7, "cosine_negative": 0.1}
               for step in (1, 2) for kind in ("train", "validation")]  # fmt: skip
    provenance = {
        "config": "arms: <static>", "trainings": {}, "code": {"commit": "abc"}, "hardware": {"cores": "2"},
        "reading": "0.5", "resamples": 200, "errors": dataclasses.asdict(NoiseCurve()), "decision": None,
    }  # fmt: skip
    return render(document, gallery, {arm: [history] for arm in document["arms"]}, {"encoder": history}, provenance)


def test_the_page_escapes_the_models_answers(results: Results, config: CompareConfig, document: Document) -> None:
    shown = examples.gallery(results, {"vqa": {"drawn": [0]}}, config.test_data, config.test_tagged)
    shown["vqa"]["drawn"][0]["answers"][0]["text"] = "<script>alert(1)</script>"
    text = page(document, shown)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "arms: &lt;static&gt;" in text


def test_the_page_names_the_rule_of_each_number(document: Document) -> None:
    assert "official" in document["groups"]["vqa"]["rule"]
    assert "Scored by these rules" in (shown := page(document, {}))
    assert document["groups"]["pope"]["rule"] in shown


def test_differences_of_fractions_stay_between_minus_one_and_one() -> None:
    # Two images and two seeds that disagree: Student's t alone would give ends far outside [-1, 1].
    measured = Measured(np.array([0.9, 0.1]), np.array([[1.0, 0.0], [0.8, 0.2], [0.0, 1.0]]), images=2)
    fraction, cider = (_effect(measured, find_metric(name).span) for name in ("vqa", "captions"))
    assert (fraction["low"], fraction["high"]) == (-1.0, 1.0)
    assert cider["high"] > 1
    assert cider["p"] == fraction["p"]


def test_models_that_were_decoded_differently_are_named_on_the_page(document: Document) -> None:
    arms = list(document["decoding"])
    settings = {"num_beams": 1, "repetition_penalty": 1.5, "max_new_tokens": {"rec": 48}}
    changed = document | {"decoding": {arm: [settings] for arm in arms}}
    assert not decodings_differ(changed)
    assert "All models decoded with num_beams 1, repetition_penalty 1.5" in page(changed, {})
    changed["decoding"] = {arm: [settings | {"repetition_penalty": 1.0 + number}] for number, arm in enumerate(arms)}
    assert decodings_differ(changed)
    assert "decoded with different settings" in page(changed, {})
    assert "decoded with num_beams 1, repetition_penalty 2" in page(changed, {})


def test_ids_of_figures_do_not_clash(document: Document) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page(document, {}))
    assert ids
    assert len(ids) == len(set(ids))


def test_published_numbers_are_of_the_same_metric(document: Document) -> None:
    rows = {row["group"]: row for row in published(document)}
    assert not any(row["same"] for row in rows.values())  # there are no published numbers for the sample world
    assert rows["caption"]["numbers"]["LION-4B"] == 138.20
    assert rows["rec"]["numbers"]["Kosmos-2"] == 52.32
    own = {"groups": {"vqa": {**document["groups"]["vqa"], "example_id": "okvqa:vqa:1"}}}
    assert published(own)[0]["same"]


def test_numbers_as_papers_print_them() -> None:
    assert (points(0.51236), points(-0.01, signed=True), points(0.0, signed=True)) == ("51.24", "−1.00", "+0.00")
    assert (p_value(0.0004), p_value(0.0451)) == ("< 0.001", "0.045")


def test_a_verdict_is_never_that_there_is_no_difference() -> None:
    assert (verdict(0.2, 0.01), verdict(-0.2, 0.01), verdict(0.2, 0.06)) == ("better", "worse", "undecided")
    assert verdict(0.2, None) == "hint"  # nothing was tested


def test_runs_read_as_words() -> None:
    assert str(Run("dynamic", 3)) == "dynamic, seed 3"
