"""The table of benchmarks: complete, checked when read, and a wrong name gets the nearest right one."""

import pytest

from pipelines.core.errors import UserError
from pipelines.instructions.templates import TASKS
from pipelines.scoring import benchmark_table
from pipelines.scoring.benchmarks import parse
from pipelines.sources import QUESTION_SOURCES

TASK = "tasks: {caption: {metric: captions, max_new_tokens: 30}}\n"


def test_all_benchmarks_are_in_the_table() -> None:
    names = set(benchmark_table().benchmarks)
    refcoco = {f"{name}_{split}" for name in ("refcoco", "refcoco+") for split in ("val", "testA", "testB")}
    pope = {"pope_random", "pope_random_3000", "pope_popular", "pope_adversarial"}
    sample = {f"sample_{task}" for task in ("caption", "vqa", "aokvqa", "rec", "pope")}
    captions = {"coco_caption", "flickr30k_caption", "nocaps", "textcaps"}
    questions = {"okvqa", "vqav2", "aokvqa_direct", "aokvqa_choice", "gqa", "vsr", "iconqa"}
    assert names == refcoco | {"refcocog_val", "refcocog_test"} | pope | sample | captions | questions


def test_readers_and_tasks_exist() -> None:
    for benchmark in benchmark_table().benchmarks.values():
        assert benchmark.task in TASKS
        if benchmark.source is not None:
            assert benchmark.task in QUESTION_SOURCES[benchmark.source].tasks


def test_prompts_have_the_placeholders_of_their_task() -> None:
    for benchmark in benchmark_table().benchmarks.values():
        if benchmark.prompt is not None:
            assert all(name in benchmark.prompt for name in TASKS[benchmark.task].placeholders)


def test_published_numbers_of_lion() -> None:
    published = benchmark_table().find("coco_caption").published
    assert published["LION-12B"]["CIDEr"] == 139.25
    rec = [
        entry.published["LION-4B"]["acc@0.5"]
        for entry in benchmark_table().benchmarks.values()
        if "Kosmos-2" in entry.published
    ]
    assert len(rec) == 8
    assert sum(rec) / 8 == pytest.approx(85.98, abs=0.01)


def test_prompt_is_recognized_in_an_instruction() -> None:
    benchmark = benchmark_table().find("okvqa")
    assert benchmark.asks_like("Question: what (is) this? Short answer:")
    assert not benchmark.asks_like("what is this?")


@pytest.mark.parametrize("wrong, nearest", [("coco_captions", "coco_caption"), ("refcoco_vla", "refcoco_val")])
def test_a_wrong_name_gets_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        benchmark_table().find(wrong)


@pytest.mark.parametrize(
    "text, message",
    [
        ("tasks: {}", "exactly the keys"),
        ("benchmarks: {}\ntasks: {caption: {metric: captions}}", "must have exactly"),
        (TASK + "benchmarks: {a: {task: dance}}", "must have a task out of"),
        (TASK + "benchmarks: {a: {task: caption, promt: x}}", "unknown keys"),
        (TASK + "benchmarks: {a: {task: caption, metric: bertscore}}", "bertscore"),
        (TASK + "benchmarks: {a: {task: caption, max_new_tokens: 0}}", "positive whole number"),
        (TASK + "benchmarks: {a: {task: caption, published: {LION: {CIDEr: high}}}}", "not a number"),
        (TASK + "benchmarks: {a: {task: caption, published_rule: older}}", "published_rule 'older'"),
        (TASK + "benchmarks: {a: {task: caption, metric: rec, boxes: {scale: 100}}}", "'a': The scale of boxes is 100"),
        (TASK + "benchmarks: {a: {task: caption, metric: rec, boxes: {corners: yx}}}", "keys out of .'order', 'scale'"),
        (TASK + "benchmarks: {a: {task: caption, boxes: {scale: 999}}}", "reads none"),
        (TASK + "benchmarks: {caption: {task: caption}}", "of tasks and of benchmarks"),
    ],
)
def test_a_wrong_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)
