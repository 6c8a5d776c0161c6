"""The settings of a build of instructions."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import later_field, runtime_field, runtime_group
from pipelines.instructions.templates import TASKS
from pipelines.sources import QuestionFiles, question_source
from pipelines.sources.boxes import Notation
from pipelines.sources.collection import check_collection

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_FILES = ("annotations", "questions", "instances", "image_data", "pid_splits")


@dataclasses.dataclass(frozen=True)
class InstructionSet:
    """One set of questions, and the rows that are built from it."""

    name: str
    """Name of the set. The ids of its samples begin with it."""
    kind: str
    """Format of its files: coco_captions, textcaps, flickr30k, vqa, aokvqa, gqa, ocrvqa, vsr, iconqa, visdial, refcoco,
    visual_genome, flickr30k_entities, flickr30k_phrases or pope. A format of your own is MODULE:KIND."""
    annotations: str | None = path_field("input", None)
    """The annotation file (Flickr30K Entities: the folder). Empty only for VQA's test splits, which have no answers."""
    questions: str | None = path_field("input", None)
    """VQA: the questions file, where questions and answers are in different files."""
    instances: str | None = path_field("input", None)
    """RefCOCO: the file of the boxes. Empty: instances.json next to refs(*).p."""
    image_data: str | None = path_field("input", None)
    """Visual Genome: image_data.json. Empty: the one next to the annotations. GQA works without it."""
    pid_splits: str | None = path_field("input", None)
    """IconQA: pid_splits.json. Empty: the one next to the annotations."""
    split: str | None = None
    """Use only rows of this split, for files with several splits (A-OKVQA, RefCOCO, Flickr30K …). Empty: all rows."""
    tasks: list[str] = dataclasses.field(default_factory=list)
    """Tasks that each row of the file gives, such as [rec, reg]. Empty: the usual task of the format."""
    mode: Literal["train", "evaluate", "keep_out"] = "train"
    """train: one answer per sample. evaluate: all references, and a phrasing that training never uses. keep_out: no
    rows, but the images of the set are kept out of training."""
    prompt: str | None = None
    """A phrasing of yours or of a benchmark, with {text}, {choices} or {box}. Empty: the phrasings of this project."""
    images: str | None = path_field("input", None)
    """keep_out: the folder of the set's images, where they are not in `tagged`. Copies of them under other names are
    then kept out, too."""
    collection: str | None = later_field(None)
    """The collection that the image numbers or names in the files belong to, the same as in the precompute step's
    source: coco, visual_genome, or a name of yours, such as nocaps. Empty: COCO for numbers; POPE and VSR recognize the
    collection by the file names."""

    def files(self) -> QuestionFiles:
        """Return the files of the set, with the default path of a second file filled in."""
        paths = {name: getattr(self, name) for name in _FILES}
        return question_source(self.kind).complete(QuestionFiles(**paths, split=self.split, collection=self.collection))

    def paths(self) -> dict[str, str]:
        """Return the path of every file that the set reads, by the name of its field."""
        return self.files().paths()

    def without_paths(self) -> "InstructionSet":
        """Return the set without paths, for the step's hash; the folder of images is replaced by its listing."""
        return self._at(dict.fromkeys(_FILES), self.images and ",".join(_listing(self.images)))

    def absolute(self) -> "InstructionSet":
        """Return the set with absolute paths, which mean the same in every worker, and with second files filled in."""
        paths = {name: storage.absolute(path) for name, path in self.paths().items()}
        return self._at(paths, self.images and storage.absolute(self.images))

    def _at(self, paths: Mapping[str, str | None], images: str | None) -> "InstructionSet":
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return InstructionSet(**{**values, **paths, "images": images})

    def chosen_tasks(self) -> tuple[str, ...]:
        """Return the tasks without repetitions; the usual task of the format where none is set."""
        return tuple(dict.fromkeys(self.tasks)) or question_source(self.kind).tasks[:1]


def _listing(folder: str) -> list[str]:
    root = storage.absolute(folder)
    return [name.removeprefix(root) for name in storage.list_files(root)]


@dataclasses.dataclass(frozen=True)
class InstructionsConfig:
    """Build the instructions table from question files: questions in words, their answers, and boxes as text."""

    tagged: str = path_field("input", "")
    """The precomputed images: the path of a precompute step, or a folder of several such steps. Questions about other
    images are quarantined."""
    sets: list[InstructionSet] = dataclasses.field(default_factory=list)
    """The sets of questions, such as [{name: vqa, kind: vqa, annotations: a.json, questions: q.json}]."""
    out: str = path_field("output", "runs")
    """Folder or URI in which the folder of the result is created."""
    seed: int = 0
    """Decides which phrasing each training sample gets."""
    notation: Notation = "lion"
    """How boxes are written. lion: [x1,y1,x2,y2]. markdown: [phrase](x1,y1,x2,y2). kosmos2:
    <phrase>phrase</phrase><object>location tokens</object>, which is less exact (docs/notations.md)."""
    evaluation_images: Literal["keep_out", "allow"] = "keep_out"
    """Training rows about images of an evaluation split. keep_out: quarantine them. allow: keep them, and count them.
    Evaluation splits are the sets of mode evaluate or keep_out, and the splits val and test in the files of training
    sets. Images are compared by id and by content."""
    shard_rows: int = 20_000
    """Questions per result file, which is the unit of work and retries; a killed build keeps its finished shards."""
    tokenizer: str = path_field("input", "")
    """Folder of the language model's tokenizer (Flan-T5's). With it the data card shows lengths in tokens."""
    threshold: Literal["per_tag"] | float | None = None
    """Tags that the data card counts, and that count for the length of a prompt: those above a number, such as 0.5, or
    above the threshold of each tag (per_tag). Empty: per_tag where the table has its tagger's thresholds, else 0.5."""
    max_bad_fraction: float = runtime_field(0.01)
    """Largest fraction of annotations that may be bad; above it the build stops with exit code 3. Questions about
    images that are not in `tagged`, or that are kept out, do not count as bad."""
    ray: RayConfig = runtime_group(RayConfig)


def check(config: InstructionsConfig) -> None:
    """Check the settings before any file is read.

    Raises:
        UserError: the first wrong value, and what to set instead.
    """
    if not config.tagged:
        raise UserError("tagged is empty; give the `path` of a precompute step.")
    if not any(entry.mode != "keep_out" for entry in config.sets):
        raise UserError("sets is empty; name at least one set of questions of mode train or evaluate.")
    if config.shard_rows < 1:
        raise UserError(f"shard_rows is {config.shard_rows}; set it to 1 or more.")
    if not 0 <= config.max_bad_fraction <= 1:
        raise UserError(f"max_bad_fraction is {config.max_bad_fraction}; give 0 to 1.")
    if config.tokenizer and not storage.exists(storage.join(config.tokenizer, "tokenizer.json")):
        raise UserError(f"tokenizer {config.tokenizer} has no tokenizer.json; give the folder of a fast tokenizer.")
    names = [entry.name for entry in config.sets]
    for entry in config.sets:
        if names.count(entry.name) > 1:
            raise UserError(f"Two sets are named {entry.name!r}; give each set another name.")
        _check_set(entry)


def _check_set(entry: InstructionSet) -> None:
    if not _NAME.fullmatch(entry.name):
        raise UserError(f"The set name {entry.name!r} may have letters, digits and _ . + - only; rename it.")
    source = question_source(entry.kind)
    for name in (*_FILES[1:], "split"):
        if getattr(entry, name) is not None and name not in source.uses:
            raise UserError(f"Set {entry.name!r}: {entry.kind} has no use for {name}; leave {name} out.")
    if entry.images is not None and entry.mode != "keep_out":
        raise UserError(
            f"Set {entry.name!r}: images is for mode keep_out only; other sets have theirs in `tagged`. Leave it out."
        )
    if entry.images is not None and not storage.is_folder(entry.images):
        raise UserError(f"Set {entry.name!r}: the image folder {entry.images} does not exist; check images.")
    check_collection(entry.collection)
    if entry.collection is not None and source.ids == "own":
        raise UserError(
            f"Set {entry.name!r}: the image ids of {entry.kind} include their collection; leave collection out."
        )
    possible = source.tasks
    for task in entry.chosen_tasks():
        if task not in possible:
            raise UserError(f"Set {entry.name!r}: {entry.kind} has no task {task!r}; it has {', '.join(possible)}.")
        required = TASKS[task].placeholders
        if entry.prompt is not None and not all(name in entry.prompt for name in required):
            raise UserError(f"Set {entry.name!r}: the prompt for {task} lacks {' and '.join(required)}; add it.")
    if entry.annotations is None and (entry.kind != "vqa" or entry.mode == "train" or entry.questions is None):
        raise UserError(f"Set {entry.name!r} has no annotation file; set annotations.")
