"""Write the sample world in the file formats of the benchmarks.

Files in the step's folder, for each of the splits train, val and test:

    images/sample_{split}_{image_id:012d}.png                     images of all splits
    captions_{split}.json, instances_{split}.json                 COCO
    vqa_questions_{split}.json, vqa_annotations_{split}.json      VQAv2, OK-VQA
    aokvqa_{split}.json                                           A-OKVQA
    refcoco/refs(sample).p, refcoco/instances.json                RefCOCO; one file for all splits, as in RefCOCO
    pope_{random,popular,adversarial}_{split}.json                POPE
    tags_detector.parquet, tags.txt                               tags of the simulated tagger, and its vocabulary
    preview.png                                                   a preview of some images
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.steps import StepFolder, StepResult, run_step
from pipelines.sample_world import drawing, formats, pope, tagging
from pipelines.sample_world.entries import Entry, make_entry
from pipelines.sample_world.scenes import PRESETS, PresetName

log = logging.getLogger("lion.sample_world")

WRITTEN_SPLITS = ("train", "val", "test")
_SHEET_IMAGES = 12
_PROGRESS_SECONDS = 5.0  # between two log lines


@dataclass(frozen=True)
class SampleWorldConfig:
    """Draws small scenes of colored shapes and writes them as files of COCO, VQAv2, A-OKVQA, RefCOCO and POPE."""

    out: str = path_field("output", "runs")
    """Folder or URI for the step's folder."""
    images: int = 500
    """Number of images, at least 10: 80 % for train, 10 % for val, 10 % for test."""
    seed: int = 0
    """Seed of the scenes and texts. Equal seeds give equal bytes. The splits of different seeds are disjoint, too: a
    train scene of seed 1 is no test scene of seed 0."""
    preset: PresetName = "small"
    """`tiny`: 3 or 4 objects in images of 64 pixels. `small`: 3 to 6 objects in images of 96 pixels."""
    image_size: int | None = None
    """Longer side of the images in pixels, at least 48. If empty, the preset's."""
    image_format: drawing.ImageFormat = "png"
    """File format of the images. `png` keeps the exact pixels."""


def sample_world(config: SampleWorldConfig) -> StepResult:
    """Write the world, unless it exists.

    Raises:
        UserError: there are fewer than 10 images, or the images are too small.
    """
    if config.images < 10:
        raise UserError(
            f"A sample world of {config.images} images has no val and test split; set images to at least 10."
        )
    if config.image_size is not None and config.image_size < 48:
        raise UserError(
            f"image_size is {config.image_size}: shapes are not recognizable below 48 pixels; set it to 48 or more."
        )
    return run_step("sample_world", config, config.out, lambda folder: _write_world(config, folder))


def split_sizes(images: int) -> dict[str, int]:
    """Return the number of images of each split: a tenth for val, a tenth for test, the rest for train."""
    tenth = images // 10
    return {"train": images - 2 * tenth, "val": tenth, "test": tenth}


class _WorldFiles:
    """A writer of files in the step's folder. `written` has their manifest entries, with rows and digests."""

    def __init__(self, folder: StepFolder) -> None:
        self._folder = folder
        self.written: list[dict[str, Any]] = []
        self._images = hashlib.sha256()
        self._filesystem, self._image_root = storage.resolve(folder.child("images"))
        for name in ("images", "refcoco"):
            storage.make_folder(folder.child(name))

    def image(self, name: str, content: bytes) -> None:
        """Write an image. It is not synced to disk, which is slow: only the manifest makes a world complete."""
        with self._filesystem.open_output_stream(f"{self._image_root}/{name}") as stream:
            stream.write(content)
        self._images.update(name.encode() + hashlib.sha256(content).digest())

    def file(self, name: str, content: bytes, rows: int) -> None:
        """Write an annotation file."""
        storage.write_atomic(self._folder.child(name), content)
        self.written.append({"path": name, "rows": rows, "sha256": hashlib.sha256(content).hexdigest()})

    def json(self, name: str, document: Any, rows: int) -> None:
        """Write a JSON document."""
        self.file(name, json.dumps(document).encode(), rows)

    def close_images(self, count: int) -> None:
        """Add one manifest entry for all images: the digest of their names and contents, in order."""
        self.written.append({"path": "images", "rows": count, "sha256": self._images.hexdigest()})


def _write_world(config: SampleWorldConfig, folder: StepFolder) -> Mapping[str, Any]:
    files = _WorldFiles(folder)
    entries = _write_images(config, files)
    for split in WRITTEN_SPLITS:
        _write_split(files, config, split, [entry for entry in entries if entry.split == split])
    refs = formats.refcoco_refs(entries, config.image_format)
    files.file("refcoco/refs(sample).p", formats.pickled(refs), len(refs))
    instances = formats.coco_instances(entries, config.image_format)
    files.json("refcoco/instances.json", instances, len(instances["annotations"]))
    files.file("tags_detector.parquet", formats.detected_tags(entries), len(entries))
    files.file("tags.txt", "".join(f"{tag}\n" for tag in tagging.VOCABULARY).encode(), len(tagging.VOCABULARY))
    _write_preview(files, entries)
    summary = {
        "splits": split_sizes(config.images),
        "vqa": sum(len(entry.vqa) for entry in entries),
        "expressions": sum(len(ref["sentences"]) for ref in refs),
    }
    return {"rows": config.images, "files": files.written, "summary": summary}


def _write_images(config: SampleWorldConfig, files: _WorldFiles) -> list[Entry]:
    preset = PRESETS[config.preset]
    if config.image_size is not None:
        preset = replace(preset, image_size=config.image_size)
    entries: list[Entry] = []
    last_report = time.monotonic()
    for split, size in split_sizes(config.images).items():
        for index in range(size):
            entry = make_entry(config.seed, split, index, preset)
            content = drawing.encode_image(entry.draw(), config.image_format)
            files.image(entry.file_name(config.image_format), content)
            entries.append(entry)
            if time.monotonic() - last_report > _PROGRESS_SECONDS:
                last_report = time.monotonic()
                log.info("Drew %d of %d images.", len(entries), config.images)
    files.close_images(len(entries))
    return entries


def _write_split(files: _WorldFiles, config: SampleWorldConfig, split: str, entries: Sequence[Entry]) -> None:
    form = config.image_format
    captions = formats.coco_captions(entries, form)
    files.json(f"captions_{split}.json", captions, len(captions["annotations"]))
    instances = formats.coco_instances(entries, form)
    files.json(f"instances_{split}.json", instances, len(instances["annotations"]))
    questions, annotations = formats.vqa_documents(entries, split)
    files.json(f"vqa_questions_{split}.json", questions, len(questions["questions"]))
    files.json(f"vqa_annotations_{split}.json", annotations, len(annotations["annotations"]))
    files.json(f"aokvqa_{split}.json", formats.aokvqa_rows(entries, form), len(entries))
    scenes, names = [entry.scene for entry in entries], [entry.file_name(form) for entry in entries]
    for kind in pope.POPE_KINDS:
        rows = pope.pope_questions(scenes, names, kind, f"pope/{config.seed}/{split}")
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        files.file(f"pope_{kind}_{split}.json", lines.encode(), len(rows))


def _write_preview(files: _WorldFiles, entries: Sequence[Entry]) -> None:
    cells = []
    for entry in entries[:: max(1, len(entries) // _SHEET_IMAGES)][:_SHEET_IMAGES]:
        texts = [f"{entry.split} {entry.image_id}", *(f"- {text}" for text in entry.captions)]
        texts += [f"? {question.text} {question.truth}" for question in entry.vqa]
        texts += [f"? {entry.choice.text} {entry.choice.choices[entry.choice.correct_choice]}"]
        texts += [f"> {entry.scene.objects[number].name}: {'; '.join(names)}" for number, names in entry.expressions]
        texts += [", ".join(f"{tag} {score:.2f}" for tag, score in entry.tags[:8])]
        cells.append((entry.draw(), entry.scene.objects, texts))
    files.file("preview.png", drawing.encode_image(drawing.contact_sheet(cells), "png"), len(cells))
