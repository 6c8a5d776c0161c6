"""Precompute as a step: cut the source, compute the missing shards, publish the manifest."""

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from models.tags import THRESHOLD, thresholds_text
from pipelines.core import steps, storage, tables
from pipelines.core.errors import UserError
from pipelines.core.runtime import live_nodes, ray_session, require_resources
from pipelines.core.shards import ShardIndex, in_tasks
from pipelines.core.steps import StepFolder, StepResult
from pipelines.core.tag_rules import TABLE_THRESHOLDS
from pipelines.precompute.captioner import resolve_encoder
from pipelines.precompute.config import Precision, PrecomputeConfig, TaggerConfig, check
from pipelines.precompute.plan import ModelPlan, check_fit, make_plan
from pipelines.precompute.shards import cut_source, shard_set
from pipelines.precompute.taggers import Tagger, make_tagger
from pipelines.precompute.tally import Tally

log = logging.getLogger("lion.precompute")
_VERSION = 2  # version of the result's files; 2 added the tagger's thresholds
_INPUTS = (("source", "annotations"), ("tagger", "path"), ("tagger", "thresholds"), ("captioner", "path"))
"""Settings that are paths. They count in the step's hash by the content of their files."""
_RUN = "run.json"
"""What the first start of a run decided."""


def precompute(config: PrecomputeConfig) -> StepResult:
    """Run the step, resume it where it was stopped, or return its finished result.

    The step's folder then has `tagged/*.parquet` (tables.TAGGED), `quarantine/*.parquet` (tables.QUARANTINE), the
    manifest and, for a tagger with thresholds, `tagged/_tag_thresholds.json`. In the manifest rows_in = rows +
    quarantined. The input is the images plus the annotation records that could not be used (`bad_annotations`), each of
    which is a row of the quarantine.

    Raises:
        UserError: a wrong configuration or path, or a plan whose actors fit on no node.
        DataRefused: more of the input is bad than `max_bad_fraction` allows.
    """
    check(config)
    config = _absolute(config)
    tagger = make_tagger(config.tagger)
    encoder = resolve_encoder(config.captioner.path)
    inputs = {"tagger_weights": config.tagger.path, "sentence_encoder": encoder}
    if config.source.annotations:
        inputs["annotations"] = config.source.annotations
    if thresholds := config.tagger.thresholds or _neighboring_thresholds(config.tagger):
        inputs["tagger_thresholds"] = thresholds

    def work(folder: StepFolder) -> Mapping[str, Any]:
        with ray_session(config.ray):
            tagger.prepare()
            return _Run(folder.path, config, tagger, _provenance(config, tagger, encoder)).work()

    return steps.run_step("precompute", _identity(config, tagger), config.out, work, inputs, _VERSION)


def _neighboring_thresholds(tagger: TaggerConfig) -> str | None:
    """Return the thresholds file next to a table that is a single file, or None.

    The digest of that file does not cover its neighbor; the digest of a folder does.
    """
    if tagger.kind != "table" or storage.is_folder(tagger.path):
        return None
    path = storage.join(tagger.path.rpartition("/")[0], TABLE_THRESHOLDS)
    return path if storage.exists(path) else None


def _absolute(config: PrecomputeConfig) -> PrecomputeConfig:
    """Return the configuration with absolute paths, which mean the same in every worker."""
    source = config.source
    annotations = storage.absolute(source.annotations) if source.annotations else None
    source = dataclasses.replace(source, annotations=annotations, images=storage.absolute(source.images))
    if not storage.exists(source.images):
        raise UserError(f"source.images {source.images} does not exist; give the folder of the images.")
    tagger = config.tagger
    path, thresholds = (uri and storage.absolute(uri) for uri in (tagger.path, tagger.thresholds))
    tagger = dataclasses.replace(tagger, path=path, thresholds=thresholds)
    return dataclasses.replace(config, source=source, tagger=tagger)


def _identity(config: PrecomputeConfig, tagger: Tagger) -> dict[str, Any]:
    """Return everything that decides the result, for the step's hash.

    Paths of inputs are left out, because inputs count by content (`steps.run_step` adds their digests). Image files
    count by their URIs: reading millions of images for a hash would take as long as the run. Without annotations the
    folder's listing says which images there are, so it is added.
    """
    settings: dict[str, Any] = steps.canonical(config)
    for group, key in _INPUTS:
        del settings[group][key]
    if not config.source.annotations:
        settings["source"]["listing"] = steps.digest_of(storage.list_files(config.source.images))
    if type(tagger).digest is not Tagger.digest:  # the default digest is that of the input's files, which count anyway
        settings["tagger"]["digest"] = tagger.digest()
    return settings


def _provenance(config: PrecomputeConfig, tagger: Tagger, encoder: str) -> dict[str, str]:
    """Return which tagger and which sentence encoder made the result, for the Parquet metadata and the manifest."""
    return {
        "tagger": config.tagger.kind,
        "tagger_digest": tagger.digest(),
        "tagger_floor": str(config.tagger.floor),
        "sentence_encoder": config.captioner.path or "all-MiniLM-L6-v2",
        "sentence_encoder_digest": steps.fingerprint(encoder),
    }


class _Run:
    """One execution of the step inside a Ray session.

    Args:
        folder: the folder of the step.
        config: the settings, with absolute paths.
        tagger: the tagger, prepared.
        provenance: see `_provenance`.
    """

    def __init__(self, folder: str, config: PrecomputeConfig, tagger: Tagger, provenance: dict[str, str]) -> None:
        self.folder = folder
        self.shards = shard_set(folder)
        self.config = config
        self.tagger = tagger
        self.provenance = provenance
        self.speed: dict[str, Any] | None = None

    def work(self) -> dict[str, Any]:
        """Cut the source, compute the missing shards, and return the entries of the manifest."""
        index = self._source()
        done = self.shards.done()
        if self.config.retry_quarantined:
            done -= self.shards.quarantined()
        missing = sorted(set(range(index.shards)) - done)
        proofs = self.shards.proofs(sorted(done))
        tally = Tally(index, self.config.max_bad_fraction, proofs)
        tally.check()
        if missing:
            computed = self._compute(index, missing, tally)
            proofs = sorted([*proofs, *computed], key=lambda proof: proof["shard"])
        tally.report(now=True)  # an earlier run that was refused may have computed everything
        return self._manifest(index, proofs)

    def _source(self) -> ShardIndex:
        """Return the cut source.

        A Ray task reads it, because an annotation file can need more memory than the head node has.
        """
        index = self.shards.index()
        if index is None:
            index = in_tasks(_cut, [(self.config, self.folder)])[0]
        if not index.rows:
            bad = f" ({sum(index.bad_records.values())} bad records)" if index.bad_records else ""
            raise UserError(f"The source has no images{bad}; check source.annotations and source.images.")
        return index

    def _compute(self, index: ShardIndex, missing: list[int], tally: Tally) -> list[dict[str, Any]]:
        from pipelines.precompute.pipeline import run_shards, task_memory

        nodes = live_nodes()
        captioner = self.config.captioner if index.counts["captions"] else None
        plan = make_plan(self.config.tagger, captioner, nodes, self.tagger.needs_model)
        needed = {**plan.total(), "memory": task_memory(self.config, self.tagger)}
        require_resources(needed, "Precompute (its models, and one CPU to read, decode and write)")
        check_fit(plan, nodes)
        precision = self._precision(bool(plan.tagger.gpus))
        log.info("%d of %d shards to compute; %s; %s", len(missing), index.shards, plan, precision)
        computed, clock = [], []
        proofs = run_shards(missing, self.folder, index, self.config, self.tagger, plan, precision, self.provenance)
        try:
            for proof in proofs:
                computed.append(proof)
                clock.append(time.monotonic())
                tally.add(proof)
                tally.report()
                tally.check()
        finally:
            proofs.close()
        rows = sum(proof["rows"] for proof in computed[1:])
        # Measured from the first finished shard on, so that loading the models does not count.
        if rows and clock[-1] > clock[0]:
            self.speed = {"unit": "images", "per_second": rows / (clock[-1] - clock[0]),
                          "workers": plan.tagger.actors, "device": _device(plan, nodes)}  # fmt: skip
        return computed

    def _precision(self, on_gpu: bool) -> Precision:
        """Return the precision of the run's first start, so that a resumed run does not mix two."""
        path = storage.join(self.folder, _RUN)
        if storage.exists(path):
            precision: Precision = storage.read_json(path)["precision"]
        else:
            requested = self.config.tagger.precision
            precision = ("bf16" if on_gpu else "fp32") if requested == "auto" else requested
            storage.write_json(path, {"precision": precision})
        self.provenance["tagger_precision"] = precision
        return precision

    def _manifest(self, index: ShardIndex, proofs: list[dict[str, Any]]) -> dict[str, Any]:
        reasons: Counter[str] = Counter()
        for proof in proofs:
            reasons.update(proof["quarantined"])
        rows = sum(proof["rows"] for proof in proofs)
        assert index.rows == rows + reasons.total(), f"{index.rows} images in, {rows} and {reasons} out"
        bad_annotations = sum(index.bad_records.values())
        counts = {
            "rows_in": index.rows + bad_annotations,
            "quarantined": reasons.total() + bad_annotations,
            "bad_annotations": bad_annotations,
            "without_tags": sum(proof["without_tags"] for proof in proofs),
        }
        columns = [*tables.TAGGED, *([tables.IMAGE_BYTES] if self.config.embed_bytes else [])]
        self._precision(on_gpu=False)  # reads the precision of the first start into the provenance
        thresholds = self._thresholds()
        return {
            "rows": rows,
            "summary": counts,
            "reasons": {"image": dict(sorted(reasons.items())), "annotation": dict(index.bad_records)},
            "made_by": self.provenance,
            "thresholds": thresholds[0]["path"] if thresholds else None,
            "speed": self.speed,
            "schema": {field.name: str(field.type) for field in columns},
            "files": [*(file for proof in proofs for file in proof["files"]), *index.files, *thresholds],
        }

    def _thresholds(self) -> list[dict[str, Any]]:
        """Write the tagger's thresholds next to its tags; return the file as the manifest lists it, or nothing."""
        if self.tagger.thresholds is None:
            log.info("The tagger has no thresholds by tag: tags are read above one threshold, %g by default", THRESHOLD)
            return []
        name = f"tagged/{TABLE_THRESHOLDS}"
        path, content = storage.join(self.folder, name), thresholds_text(self.tagger.thresholds).encode()
        storage.write_atomic(path, content)
        return [{"path": name, "sha256": storage.sha256(path)}]


def _device(plan: ModelPlan, nodes: Iterable[Mapping[str, Any]]) -> str:
    """Return the hardware that the taggers compute on: Ray's name of the GPUs, or cpu."""
    if not plan.tagger.gpus:
        return "cpu"
    mark = "accelerator_type:"  # Ray gives a node such a resource for each kind of GPU it has
    names = sorted({name.removeprefix(mark) for node in nodes for name in node if name.startswith(mark)})
    return " or ".join(names) or "GPU"


def _cut(config: PrecomputeConfig, folder: str) -> ShardIndex:
    from pipelines.sources import read_images

    source = config.source
    records = read_images(source.kind, source.annotations, source.images, source.split, source.collection)
    return cut_source(records, folder, config.shard_rows)
