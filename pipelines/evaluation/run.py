"""`evaluate` as a step: predictions by distributed inference where they are not given, then their metrics."""

import contextlib
import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import steps, storage
from pipelines.core.copies import share_model
from pipelines.core.errors import UserError
from pipelines.core.parquet import read_file, read_parquet, write_file
from pipelines.core.paths import path_field
from pipelines.core.runtime import RayConfig, ray_session
from pipelines.core.steps import StepFolder, StepResult, runtime_group
from pipelines.core.tables import IMAGE_BYTES, INSTRUCTIONS, PREDICTIONS, SCORES, TAG, to_table
from pipelines.core.tag_rules import ModelRules, model_rules, thresholds_of
from pipelines.evaluation.distributed import (
    InferenceConfig,
    answer_here,
    answer_shards,
    plan_here,
    plan_pool,
    report_progress,
)
from pipelines.evaluation.tag_noise import TagNoise, noisy_column
from pipelines.evaluation.tracking import log_decoding, log_numbers
from pipelines.inference.answerer import (
    IMAGES,
    UNANSWERABLE,
    Asking,
    Precision,
    images_file,
    predictions_file,
    quarantine_file,
    shard_file,
)
from pipelines.inference.decoding import Decoding, box_warning, in_words, resolve_decoding
from pipelines.registry import RegistryConfig
from pipelines.scoring.benchmarks import MIXED, benchmark_table
from pipelines.scoring.config import ScoringConfig
from pipelines.scoring.estimates import Scores
from pipelines.scoring.prediction_files import prediction_row, read_decoding
from pipelines.scoring.predictions import join_references, load_instructions, load_predictions
from pipelines.scoring.scorer import Group, grouped, needs_sizes, score_table, select_rows
from pipelines.sources.embedded import EmbeddedImages, open_embedded

log = logging.getLogger("lion.evaluate")
METRICS = "metrics.json"
SAMPLE_SCORES = "scores.parquet"
# Of the files of a finished evaluation: 2 has `scores.parquet`, 3 names rules, decoding and the tags read.
_VERSION = 3
_READING = ("threshold", "tag_order")
_RUN = "run.json"
_SHARD = pa.schema([*INSTRUCTIONS, pa.field("uri", pa.string(), nullable=False), pa.field("tags", pa.list_(TAG))])


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """A model on a benchmark, or the metrics of predictions that are there already."""

    benchmark: str = MIXED
    """A benchmark's or a task's name (`pipelines/scoring/benchmarks.yaml`); `mixed`: each task by its own metric."""
    predictions: str | None = path_field("input", None)
    """Predictions (a Parquet file or a folder) to score without any model. Only the column `prediction` must be there;
    true answers are in `references` (REC: `box`), or come from `data` by sample_id."""
    model: str | None = path_field("model", None)
    """The model that is asked: a folder, or `models:/NAME@ALIAS`."""
    data: str | None = path_field("input", None)
    """The `instructions` folder (made in mode evaluate) with questions and true answers."""
    tagged: str | None = path_field("input", None)
    """With a model: the `tagged` folder, which says where the images are and what their tags are. With `predictions`:
    only for the sizes of the images, where boxes are in pixels."""
    threshold: Literal["per_tag"] | float | None = None
    """What a tag's confidence must be above to be read: a number for all, or per_tag, each tag's own threshold; empty:
    as the model was trained, or where no training has decided it, per_tag with a table that has thresholds."""
    tag_order: Literal["list", "confidence"] | None = None
    """Order of the tags: confidence, or list as RAM writes them; empty: as the model was trained."""
    out: str = path_field("output", "runs")
    """Folder or URI under which the result's folder lies."""
    scoring: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    tag_noise: TagNoise = dataclasses.field(default_factory=TagNoise)
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)


def evaluate(config: EvaluateConfig) -> StepResult:
    """Run the step, or continues it, or finds it done.

    Leaves `metrics.json`, `scores.parquet` (each sample's share, of `tables.SCORES`) and, with a model, `predictions/`.

    Raises:
        UserError: a wrong configuration, path or table, or a plan that cannot be scheduled.
    """
    model, data, tagged = _check(config)
    identity: dict[str, Any] = {
        "benchmark": config.benchmark,
        "definition": _definition(config.benchmark),
        "scoring": steps.canonical(config.scoring),
    }
    if config.predictions is not None:
        inputs = {"predictions": config.predictions} | ({"data": data} if data else {})
        if tagged and needs_sizes(config.benchmark, config.scoring):
            inputs["tagged"] = tagged
        return steps.run_step(
            "evaluate", identity, config.out, lambda folder: _score_given(config, folder), inputs, _VERSION
        )
    from pipelines.registry import Registry

    models = Registry(config.registry, config.out)
    found = models.lookup(model)
    inputs = {"model": found.folder, "data": data, "tagged": tagged}
    decoding = resolve_decoding(found.folder, config.inference.decoding, config.inference.beams)
    # By the settings that hold: the model's own, written out, mean the same.
    identity["inference"] = {
        name: value for name, value in steps.canonical(config.inference).items() if name not in ("beams", "decoding")
    }
    identity["decoding"] = decoding.as_dict()
    if config.tag_noise.strength:  # none of it is no noise, whatever its other settings
        identity["tag_noise"] = steps.canonical(config.tag_noise)
    # What is left to the model is decided by the inputs.
    identity |= {name: value for name in _READING if (value := getattr(config, name)) is not None}
    identity["model_version"] = str(found) if found.name else None
    # A folder has no version but its content; its path would differ from machine to machine.
    version = str(found) if found.name else f"sha256:{steps.fingerprint(found.folder)}"

    def work(folder: StepFolder) -> Mapping[str, Any]:
        entries = _ask_and_score(config, folder, found.folder, version, decoding)
        if found.name:
            log_numbers(models, found, _numbers(config, entries["summary"]["metrics"]))
            log_decoding(models, found, _measured_as(config), entries["decoding"])
        return entries

    return steps.run_step("evaluate", identity, config.out, work, inputs, _VERSION)


def _definition(name: str) -> dict[str, Any]:
    """What of the registry decides a result: metrics and answer limits. A changed registry makes another result."""
    known = benchmark_table()
    chosen = {**known.tasks, **known.benchmarks} if name == MIXED else {name: known.find(name)}
    return {
        key: [found.metric, found.max_new_tokens, found.questions, str(found.boxes)] for key, found in chosen.items()
    }


def _check(config: EvaluateConfig) -> tuple[str, str, str]:
    """Return the paths of model, data and tagged, empty where they are not needed.

    Raises:
        UserError: a value that no run can work with, and what to give instead.
    """
    if config.benchmark != MIXED:
        benchmark_table().find(config.benchmark)
    if (config.predictions is None) == (config.model is None):
        raise UserError("Give either --predictions (metrics only) or --model (with --data and --tagged).")
    if config.model is None and config.tag_noise.strength:
        raise UserError("tag_noise changes what a model is asked; it has no effect on --predictions: leave it out.")
    for name in _READING:
        if config.model is None and getattr(config, name) is not None:
            raise UserError(f"{name} changes what a model is asked; it has no effect on --predictions: leave it out.")
    if config.model is not None and not (config.data and config.tagged):
        raise UserError("A model needs --data (the instructions folder) and --tagged (where images and tags are).")
    config.inference.check()
    return config.model or "", config.data or "", config.tagged or ""


def _score_given(config: EvaluateConfig, folder: StepFolder) -> dict[str, Any]:
    """Score predictions made elsewhere. Imports neither Ray nor torch."""
    task = None if config.benchmark == MIXED else benchmark_table().find(config.benchmark).task
    table = load_predictions(config.predictions or "", task)
    decoding = read_decoding(config.predictions or "")
    counts: dict[str, int] = {}
    if config.data:
        instructions = select_rows(load_instructions(config.data), config.benchmark)
        table, counts = join_references(table, instructions)
        counts |= _prompts(config.benchmark, instructions)
    return _publish(config, folder, table, counts, decoding, files=[])


def _ask_and_score(
    config: EvaluateConfig, folder: StepFolder, model: str, version: str, decoding: Decoding
) -> dict[str, Any]:
    instructions = select_rows(load_instructions(config.data or ""), config.benchmark)
    limits = decoding.limits(_limits(config.benchmark, instructions))
    decoding.check(limits)
    if warning := box_warning(decoding.settings, limits):
        log.warning("%s", warning)
    shards = -(-instructions.num_rows // config.inference.shard_rows)
    missing = [shard for shard in range(shards) if not storage.exists(predictions_file(folder.path, shard))]
    rules = _rules(config, model)
    if missing:
        require_scorable(instructions, config.benchmark)
        _cut(instructions, config, folder.path, missing)
        local = config.inference.launcher == "local"
        with contextlib.nullcontext() if local else ray_session(config.ray):
            pool = plan_here(config.inference) if local else plan_pool(config.inference)
            asking = Asking(
                model=model if local else share_model(model, folder, "model"),
                version=version,
                limits=limits,
                decoding=decoding,
                batch_size=config.inference.batch_size,
                precision=_precision(config.inference, folder.path, on_gpu=pool.gpus > 0),
                on_gpu=pool.gpus > 0,
                threads=math.ceil(pool.cpus),
                rules=rules,
            )
            log.info("%d of %d shards to answer; models: %s; %s", len(missing), shards, pool, asking.precision)
            log.info("decoded with %s", in_words(asking.decoded_with))
            answered = (
                answer_here(folder.path, missing, asking)
                if local
                else answer_shards(folder.path, missing, asking, pool)
            )
            report_progress(answered, instructions.num_rows / shards * len(missing))
    storage.delete_folder(folder.child(IMAGES))
    table = pa.concat_tables([read_file(predictions_file(folder.path, shard)) for shard in range(shards)])
    if table.num_rows != instructions.num_rows:
        raise RuntimeError(f"{folder.path} has {table.num_rows} predictions for {instructions.num_rows} instructions.")
    files = [
        {
            "path": f"predictions/part-{shard:08d}.parquet",
            "sha256": storage.sha256(predictions_file(folder.path, shard)),
        }
        for shard in range(shards)
    ]
    counts = _quarantined(folder.path, shards) | _prompts(config.benchmark, instructions)
    return _publish(config, folder, table, counts, decoding.as_dict(limits), files, rules.described())


def _rules(config: EvaluateConfig, model: str) -> ModelRules:
    """Which tags the model reads: as it was trained, unless the configuration says otherwise.

    Raises:
        UserError: thresholds by tag are asked for, and neither the model nor the table has any.
    """
    number = isinstance(config.threshold, int | float) and config.tag_order != "list"
    of_table = None if number else thresholds_of(config.tagged or "")
    own = model_rules(model, of_table)
    rules = own.changed(config.threshold, config.tag_order, of_table)
    log.info("Tags that are read: %s", rules.in_words())
    if rules != own:
        log.warning("By itself the model reads %s.", own.in_words())
    elif of_table is not None and rules.text.threshold != "per_tag":
        log.info("The table has its tagger's thresholds, which this model was not trained with.")
    return rules


def _precision(config: InferenceConfig, folder: str, on_gpu: bool) -> Precision:
    """Return the precision of the run's first start: a continued run never mixes two."""
    path = storage.join(folder, _RUN)
    if not storage.exists(path):
        automatic = "bf16" if on_gpu else "fp32"
        storage.write_json(path, {"precision": automatic if config.precision == "auto" else config.precision})
    return storage.read_json(path)["precision"]


def require_scorable(instructions: pa.Table, name: str) -> dict[str, Scores]:
    """Score silence, so that answers that cannot be scored are refused before a model is asked for hours.

    Returns:
        The scores of silence by group: which groups there are, and which numbers.

    Raises:
        UserError: a task has no metric, or the true answers do not fit it.
    """
    silent = to_table([prediction_row(row, "", None) for row in instructions.to_pylist()], PREDICTIONS)
    try:
        # Silence has no boxes, so that their scale, which may need sizes of images, does not matter.
        return score_table(silent, name, ScoringConfig("ptb-python", box_scale="auto"))
    except UserError as error:
        raise UserError(
            f"{error} (The instructions must be made in mode evaluate, which keeps all answers.)"
        ) from error


def _limits(name: str, instructions: pa.Table) -> dict[str, int]:
    """Answer limits by task."""
    if name != MIXED:
        benchmark = benchmark_table().find(name)
        return {benchmark.task: benchmark.max_new_tokens}
    return {task: benchmark_table().find(task).max_new_tokens for task in sorted(set(instructions["task"].to_pylist()))}


def _prompts(name: str, instructions: pa.Table) -> dict[str, int]:
    """How many rows are asked in the benchmark's own words; nothing where it has none."""
    if name == MIXED or benchmark_table().find(name).prompt is None:
        return {}
    asks_like = benchmark_table().find(name).asks_like
    same = sum(asks_like(text) for text in instructions["instruction"].to_pylist())
    return {"asked_in_benchmark_words": same, "asked_in_other_words": instructions.num_rows - same}


def _cut(instructions: pa.Table, config: EvaluateConfig, folder: str, missing: Sequence[int]) -> None:
    """Write the missing shards' input: instructions with where their image lies and what its tags are."""
    tagged, rows = config.tagged or "", config.inference.shard_rows
    images = read_parquet(tagged, "tagged", ["image_id", "uri", "tags"])
    if absent := {"image_id", "uri"} - set(images.column_names):
        raise UserError(f"{tagged} is not a tagged folder: it lacks the columns {sorted(absent)}.")
    places = images["image_id"].combine_chunks()
    at = pc.index_in(instructions["image_id"], value_set=places).combine_chunks()
    if at.null_count:
        lost = instructions["image_id"].filter(pc.is_null(at))
        raise UserError(
            f"{at.null_count} instructions are about images that {tagged} lacks (first: {lost[0].as_py()!r})."
        )
    tags = pa.chunked_array([pa.nulls(images.num_rows, pa.list_(TAG))])
    if "tags" in images.column_names:
        tags = noisy_column(images["image_id"], images["tags"].cast(pa.list_(TAG)), config.tag_noise)
    columns = [*instructions.columns, images["uri"].take(at), tags.take(at)]
    table = pa.Table.from_arrays(columns, schema=_SHARD)
    embedded = open_embedded(tagged)
    for shard in missing:
        part = table.slice(shard * rows, rows)
        if embedded is not None:
            write_file(images_file(folder, shard), _embedded_images(embedded, part["image_id"]))
        write_file(shard_file(folder, shard), part)


def _embedded_images(embedded: EmbeddedImages, image_ids: pa.ChunkedArray) -> pa.Table:
    """Return the encoded bytes of a shard's images, each image once."""
    ids = pa.chunked_array([image_ids.unique()])
    contents = [embedded.content(int(row)) for row in embedded.rows(ids)]
    return pa.table({"image_id": ids, IMAGE_BYTES.name: pa.array(contents, pa.large_binary())})


def _quarantined(folder: str, shards: int) -> dict[str, int]:
    """Rows that the model was not asked, by why."""
    reasons: Counter[str] = Counter()
    for shard in range(shards):
        path = quarantine_file(folder, shard)
        if storage.exists(path):
            reasons.update(read_file(path)["reason"].to_pylist())
    unanswerable = reasons.pop(UNANSWERABLE, 0)
    return {"unreadable_images": reasons.total(), "unanswerable_questions": unanswerable}


def _publish(
    config: EvaluateConfig,
    folder: StepFolder,
    table: pa.Table,
    counts: Mapping[str, int],
    decoding: Mapping[str, Any] | None,
    files: list[dict[str, Any]],
    tags_read: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score the table, writes `scores.parquet` and `metrics.json`, and return the manifest's entries."""
    groups = grouped(table, config.benchmark, _sizes(config))
    scores = {key: group.score(config.scoring) for key, group in groups.items()}
    write_file(folder.child(SAMPLE_SCORES), to_table(_sample_scores(groups, scores), SCORES))
    others = table.num_rows - sum(found.n for found in scores.values())
    versions = sorted({version for version in table["model_version"].to_pylist() if version})
    document = {
        "benchmark": config.benchmark,
        "model_versions": versions,
        "decoding": decoding,
        "rows": table.num_rows,
        "counts": dict(counts) | ({"rows_left_out": others} if others else {}),
        "tasks": {task: found.as_dict() for task, found in scores.items()},
        "tags_read": tags_read,
        "published": {} if config.benchmark == MIXED else _published(config.benchmark),
        "published_rule": None
        if config.benchmark == MIXED
        else benchmark_table().find(config.benchmark).published_rule,
    }
    storage.write_json(folder.child(METRICS), document)
    digests = [{"path": name, "sha256": storage.sha256(folder.child(name))} for name in (SAMPLE_SCORES, METRICS)]
    entries = {
        "rows": table.num_rows,
        "files": [*files, *digests],
        "decoding": decoding,
        "summary": _summary(scores, counts),
    }
    return entries if tags_read is None else {**entries, "tags_read": tags_read}


def _sizes(config: EvaluateConfig) -> dict[str, tuple[int, int]] | None:
    """Width and height of the images by their ids, where they are of use and there is a `tagged` folder."""
    if not config.tagged or not needs_sizes(config.benchmark, config.scoring):
        return None
    columns = ["image_id", "width", "height"]
    images = read_parquet(config.tagged, "tagged", columns)
    if absent := set(columns) - set(images.column_names):
        raise UserError(f"{config.tagged} is not a tagged folder: it lacks the columns {sorted(absent)}.")
    rows = zip(*(images[name].to_pylist() for name in columns), strict=True)
    return {image_id: (width, height) for image_id, width, height in rows if width and height}


def _sample_scores(groups: Mapping[str, Group], scores: Mapping[str, Scores]) -> Iterator[dict[str, Any]]:
    """Rows of `tables.SCORES`."""
    for key, group in groups.items():
        found = scores[key]
        outcomes = [None] * len(group.rows) if found.outcomes is None else found.outcomes.tolist()
        for row, score, outcome in zip(group.rows, found.per_sample.tolist(), outcomes, strict=True):
            yield {
                "group": key, "sample_id": row["sample_id"], "image_id": row["image_id"], "score": score,
                "outcomes": outcome,
            }  # fmt: skip


def _numbers(config: EvaluateConfig, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return all numbers by the names that the model's version has them under: `evaluate.BENCHMARK.TASK.METRIC`."""
    return {
        f"{_measured_as(config)}.{task}.{metric}": value
        for task, numbers in metrics.items()
        for metric, value in numbers.items()
    }


def _measured_as(config: EvaluateConfig) -> str:
    """What the names of an evaluation's numbers in MLflow begin with."""
    noise = f".tag_noise_{config.tag_noise.strength:g}" if config.tag_noise.strength else ""
    return f"evaluate.{config.benchmark}{noise}"


def _published(name: str) -> dict[str, dict[str, float]]:
    """Published numbers as fractions, like our own."""
    by_model = benchmark_table().find(name).published
    return {
        model: {metric: round(value / 100, 6) for metric, value in numbers.items()}
        for model, numbers in by_model.items()
    }


def _summary(scores: Mapping[str, Scores], counts: Mapping[str, int]) -> dict[str, Any]:
    """What the JSON line says: each task's number by itself, and all of them under `metrics`."""
    numbers = {task: {name: found.value for name, found in one.estimates.items()} for task, one in scores.items()}
    return {
        **{f"{task}.{found.primary}": found.value for task, found in scores.items()},
        **{name: count for name, count in counts.items() if count},
        "metrics": numbers,
    }
