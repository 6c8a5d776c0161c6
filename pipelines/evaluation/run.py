"""`evaluate` as a step: predictions by distributed inference, unless they exist already, and then their metrics."""

import contextlib
import logging
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipelines.core import steps, storage
from pipelines.core.copies import share_model
from pipelines.core.runtime import ray_session
from pipelines.core.steps import StepFolder, StepResult
from pipelines.core.tag_rules import ModelRules, model_rules, thresholds_of
from pipelines.evaluation.benchmark import answer_limits, count_prompts, definition, require_scorable
from pipelines.evaluation.config import TAG_READING, EvaluateConfig
from pipelines.evaluation.distributed import (
    answer_distributed,
    answer_locally,
    plan_local,
    plan_pool,
    report_progress,
)
from pipelines.evaluation.results import write_results
from pipelines.evaluation.shards import (
    IMAGES,
    count_quarantined,
    missing_shards,
    prediction_entries,
    read_predictions,
    write_input,
)
from pipelines.evaluation.tracking import log_decoding, log_numbers
from pipelines.inference.answerer import AnswererSettings, Precision
from pipelines.inference.decoding import Decoding, box_warning, in_words, resolve_decoding
from pipelines.registry import ModelReference, Registry, flatten
from pipelines.scoring.benchmarks import MIXED, benchmark_table
from pipelines.scoring.prediction_files import read_decoding
from pipelines.scoring.predictions import join_references, load_instructions, load_predictions
from pipelines.scoring.scorer import needs_sizes, select_rows

log = logging.getLogger("lion.evaluate")
# Version of the files of a finished evaluation: 2 added `scores.parquet`, 3 the rules, decoding and tags read.
_VERSION = 3
_RUN = "run.json"


def evaluate(config: EvaluateConfig) -> StepResult:
    """Run the step, continue it, or return its finished result.

    The result has `metrics.json`, `scores.parquet` (each sample's contribution, of `tables.SCORES`) and, with a model,
    `predictions/`.

    Raises:
        UserError: a configuration, a path or a table is wrong, or the cluster cannot hold the actors.
    """
    config.check()
    return _evaluate_predictions(config) if config.predictions is not None else _evaluate_model(config)


def _identity(config: EvaluateConfig) -> dict[str, Any]:
    """Return the settings that both kinds of evaluation are identified by."""
    return {
        "benchmark": config.benchmark,
        "definition": definition(config.benchmark),
        "scoring": steps.canonical(config.scoring),
    }


def _evaluate_predictions(config: EvaluateConfig) -> StepResult:
    """Score existing predictions. Imports neither Ray nor torch."""

    def work(folder: StepFolder) -> Mapping[str, Any]:
        task = None if config.benchmark == MIXED else benchmark_table().find(config.benchmark).task
        predictions = load_predictions(config.predictions or "", task)
        counts: dict[str, int] = {}
        if config.data:
            instructions = select_rows(load_instructions(config.data), config.benchmark)
            predictions, counts = join_references(predictions, instructions)
            counts |= count_prompts(config.benchmark, instructions)
        return write_results(config, folder, predictions, counts, read_decoding(config.predictions or ""))

    inputs = {"predictions": config.predictions or ""} | ({"data": config.data} if config.data else {})
    if config.tagged and needs_sizes(config.benchmark, config.scoring):
        inputs["tagged"] = config.tagged
    return steps.run_step("evaluate", _identity(config), config.out, work, inputs, _VERSION)


def _evaluate_model(config: EvaluateConfig) -> StepResult:
    """Answer the benchmark's questions with a model and score the answers."""
    registry = Registry(config.registry, config.out)
    model = registry.lookup(config.model or "")
    decoding = resolve_decoding(model.folder, config.inference.decoding, config.inference.beams)

    def work(folder: StepFolder) -> Mapping[str, Any]:
        entries = _answer_and_score(config, folder, model, decoding)
        if model.name:
            prefix = _tracking_prefix(config)
            log_numbers(registry, model, flatten(entries["summary"]["metrics"], f"{prefix}."))
            log_decoding(registry, model, prefix, entries["decoding"])
        return entries

    identity = _identity(config) | _model_identity(config, model, decoding)
    inputs = {"model": model.folder, "data": config.data or "", "tagged": config.tagged or ""}
    return steps.run_step("evaluate", identity, config.out, work, inputs, _VERSION)


def _model_identity(config: EvaluateConfig, model: ModelReference, decoding: Decoding) -> dict[str, Any]:
    """Return the settings that an evaluation of a model is identified by, apart from `_identity`."""
    # Decoding is identified by its effective settings: the model's own, written out, give the same hash.
    inference = steps.canonical(config.inference)
    identity: dict[str, Any] = {
        "inference": {name: value for name, value in inference.items() if name not in ("beams", "decoding")},
        "decoding": decoding.as_dict(),
    }
    if config.tag_noise.strength:  # strength 0 is no noise, whatever the other settings are
        identity["tag_noise"] = steps.canonical(config.tag_noise)
    # An empty setting is decided by the model and the table, which are inputs and are hashed as such.
    identity |= {name: value for name in TAG_READING if (value := getattr(config, name)) is not None}
    identity["model_version"] = str(model) if model.name else None
    return identity


def _tracking_prefix(config: EvaluateConfig) -> str:
    """Return the start of the names of an evaluation's numbers in MLflow."""
    noise = f".tag_noise_{config.tag_noise.strength:g}" if config.tag_noise.strength else ""
    return f"evaluate.{config.benchmark}{noise}"


def _answer_and_score(
    config: EvaluateConfig, folder: StepFolder, model: ModelReference, decoding: Decoding
) -> dict[str, Any]:
    """Answer the shards that have no predictions yet, then score all predictions."""
    instructions = select_rows(load_instructions(config.data or ""), config.benchmark)
    limits = decoding.limits(answer_limits(config.benchmark, instructions))
    decoding.check(limits)
    if warning := box_warning(decoding.settings, limits):
        log.warning("%s", warning)
    rules = _tag_rules(config, model.folder)
    shards = -(-instructions.num_rows // config.inference.shard_rows)
    if missing := missing_shards(folder.path, shards):
        require_scorable(instructions, config.benchmark, config.scoring)
        rows = config.inference.shard_rows
        write_input(folder.path, missing, instructions, config.tagged or "", rows, config.tag_noise)
        log.info("%d of %d shards have no predictions yet", len(missing), shards)
        _answer(config, folder, model, decoding, limits, rules, missing, instructions.num_rows / shards)
    storage.delete_folder(folder.child(IMAGES))
    predictions = _complete_predictions(folder.path, shards, instructions)
    counts = count_quarantined(folder.path, shards) | count_prompts(config.benchmark, instructions)
    files = prediction_entries(folder.path, shards)
    return write_results(
        config, folder, predictions, counts, decoding.as_dict(limits), files, tags_read=rules.described()
    )


def _answer(
    config: EvaluateConfig,
    folder: StepFolder,
    model: ModelReference,
    decoding: Decoding,
    limits: Mapping[str, int],
    rules: ModelRules,
    missing: list[int],
    rows_per_shard: float,
) -> None:
    """Answer the missing shards, on the cluster or in this process."""
    local = config.inference.launcher == "local"
    with contextlib.nullcontext() if local else ray_session(config.ray):
        pool = plan_local(config.inference) if local else plan_pool(config.inference)
        on_gpu = pool.gpus > 0
        settings = AnswererSettings(
            model=model.folder if local else share_model(model.folder, folder, "model"),
            # A folder is identified by its content: its path differs from machine to machine.
            version=str(model) if model.name else f"sha256:{steps.fingerprint(model.folder)}",
            limits=limits,
            decoding=decoding,
            batch_size=config.inference.batch_size,
            precision=_precision(config, folder.path, on_gpu),
            on_gpu=on_gpu,
            threads=math.ceil(pool.cpus),
            rules=rules,
        )
        log.info("%s, %s, decoded with %s", pool, settings.precision, in_words(settings.decoded_with))
        rows_by_shard = (
            answer_locally(folder.path, missing, settings)
            if local
            else answer_distributed(folder.path, missing, settings, pool)
        )
        report_progress(rows_by_shard, rows_per_shard * len(missing))


def _tag_rules(config: EvaluateConfig, model: str) -> ModelRules:
    """Return the rules by which the model reads tags: those of its training, changed by the configuration.

    Raises:
        UserError: `threshold` is `per_tag`, and neither the model nor the table has thresholds.
    """
    number = isinstance(config.threshold, int | float) and config.tag_order != "list"
    table_thresholds = None if number else thresholds_of(config.tagged or "")
    trained = model_rules(model, table_thresholds)
    rules = trained.changed(config.threshold, config.tag_order, table_thresholds)
    log.info("The model reads %s", rules.in_words())
    if rules != trained:
        log.warning("The configuration changes which tags the model reads; it was trained with %s", trained.in_words())
    elif table_thresholds is not None and rules.text.threshold != "per_tag":
        log.info("The table has its tagger's thresholds, which are not used: the model was trained without them")
    return rules


def _precision(config: EvaluateConfig, folder: str, on_gpu: bool) -> Precision:
    """Return the precision of the run's first start, so that a continued run does not mix two."""
    path = storage.join(folder, _RUN)
    if not storage.exists(path):
        automatic = "bf16" if on_gpu else "fp32"
        precision = automatic if config.inference.precision == "auto" else config.inference.precision
        storage.write_json(path, {"precision": precision})
    return storage.read_json(path)["precision"]


def _complete_predictions(folder: str, shards: int, instructions: pa.Table) -> pa.Table:
    predictions = read_predictions(folder, shards)
    if predictions.num_rows != instructions.num_rows:
        raise RuntimeError(f"{folder} has {predictions.num_rows} predictions for {instructions.num_rows} instructions.")
    return predictions
