"""What a build of instructions is asked to do."""

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
    """One set of questions and what is made of it."""

    name: str
    """Its name: the beginning of its samples' ids."""
    kind: str
    """Format of its files: a question source, such as coco_captions, vqa, aokvqa, refcoco or pope."""
    annotations: str | None = path_field("input", None)
    """The annotation file (Flickr30K Entities: the folder); empty only for VQA's test splits, which have no answers."""
    questions: str | None = path_field("input", None)
    """The questions file of VQA, where it is another one."""
    instances: str | None = path_field("input", None)
    """The boxes of RefCOCO's refs(*).p; empty: instances.json beside it."""
    image_data: str | None = path_field("input", None)
    """Visual Genome's image_data.json; empty: beside its annotations (GQA, which can do without: none)."""
    pid_splits: str | None = path_field("input", None)
    """IconQA's pid_splits.json; empty: beside its annotations."""
    split: str | None = None
    """Only rows of this split, of files that hold several (A-OKVQA, RefCOCO, Flickr30K …); empty: all."""
    tasks: list[str] = dataclasses.field(default_factory=list)
    """What is made of each row, such as rec and reg; empty: the format's usual task."""
    mode: Literal["train", "evaluate", "keep_out"] = "train"
    """train: one answer a sample. evaluate: all references, and a phrasing that training never shows. keep_out: nothing
    is made of it, but its images are kept out of training."""
    prompt: str | None = None
    """A wording of your own or of a benchmark, with {text}, {choices} or {box}; empty: the project's phrasings."""
    images: str | None = path_field("input", None)
    """keep_out: the folder of its images, where they are not in `tagged`, so that copies of them are found as well."""
    collection: str | None = later_field(None)
    """Whose pictures the numbers or names in its files are of, as in the precompute step's source: coco, visual_genome
    or a name of your own, such as nocaps; empty: COCO's for numbers, and as each name tells for POPE and VSR."""

    def files(self) -> QuestionFiles:
        """Where its files are, the second one filled in."""
        given = {name: getattr(self, name) for name in _FILES}
        return question_source(self.kind).complete(QuestionFiles(**given, split=self.split, collection=self.collection))

    def paths(self) -> dict[str, str]:
        """Return every file that it reads, by the name of its field."""
        return self.files().paths()

    def without_places(self) -> "InstructionSet":
        """What it is, wherever its files are; of the images' folder the listing counts."""
        return self._at(dict.fromkeys(_FILES), self.images and ",".join(_listing(self.images)))

    def absolute(self) -> "InstructionSet":
        """Return the same with places that mean the same in every worker, those of second files filled in."""
        paths = {name: storage.absolute(path) for name, path in self.paths().items()}
        return self._at(paths, self.images and storage.absolute(self.images))

    def _at(self, paths: Mapping[str, str | None], images: str | None) -> "InstructionSet":
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return InstructionSet(**{**values, **paths, "images": images})

    def chosen_tasks(self) -> tuple[str, ...]:
        """Its tasks, each once."""
        return tuple(dict.fromkeys(self.tasks)) or question_source(self.kind).tasks[:1]


def _listing(folder: str) -> list[str]:
    root = storage.absolute(folder)
    return [name.removeprefix(root) for name in storage.list_files(root)]


@dataclasses.dataclass(frozen=True)
class InstructionsConfig:
    """Turns question files into the instructions table: questions in words, their answers, and boxes as text."""

    tagged: str = path_field("input", "")
    """The precomputed images: a precompute step's path, or a folder with several such steps; questions about other
    images are set aside."""
    sets: list[InstructionSet] = dataclasses.field(default_factory=list)
    """The sets of questions, in the order in which they are written."""
    out: str = path_field("output", "runs")
    """Folder or URI under which the step's folder is made."""
    seed: int = 0
    """Decides which phrasing each training sample has."""
    notation: Notation = "lion"
    """How boxes are written: lion [x1,y1,x2,y2]; markdown [phrase](x1,y1,x2,y2); kosmos2:
    <phrase>phrase</phrase><object>location tokens</object>, which are coarser (docs/notations.md)."""
    evaluation_images: Literal["keep_out", "allow"] = "keep_out"
    """What becomes of training rows about images of an evaluation split: sets of mode evaluate or keep_out, and splits
    such as val and test of the training sets' own files. Images are compared by id and by content."""
    shard_rows: int = 20_000
    """Questions of a shard: the unit of work, of retries and of what a killed build keeps; one Parquet file each."""
    tokenizer: str = path_field("input", "")
    """Folder of the language model's tokenizer (Flan-T5's), for lengths in tokens on the data card; empty: none."""
    threshold: Literal["per_tag"] | float | None = None
    """Which tags the data card counts, and for lengths a prompt lists: those above a number, or above each tag's own
    threshold (per_tag); empty: per_tag where the table has its tagger's thresholds, else 0.5."""
    max_bad_fraction: float = runtime_field(0.01)
    """The largest share of bad annotations that is accepted; images that are not in `tagged`, or that are kept out, are
    not counted as bad."""
    ray: RayConfig = runtime_group(RayConfig)


def check(config: InstructionsConfig) -> None:
    """Refuse what cannot work before anything is read.

    Raises:
        UserError: says what to change.
    """
    if not config.tagged:
        raise UserError("tagged is empty; give the `path` of a precompute step.")
    if not any(entry.mode != "keep_out" for entry in config.sets):
        raise UserError("sets is empty; name at least one set of questions of mode train or evaluate.")
    if config.shard_rows < 1:
        raise UserError(f"shard_rows is {config.shard_rows}; set it to 1 or more.")
    if not 0 <= config.max_bad_fraction <= 1:
        raise UserError(f"max_bad_fraction is {config.max_bad_fraction}; it is a share between 0 and 1.")
    if config.tokenizer and not storage.exists(storage.join(config.tokenizer, "tokenizer.json")):
        raise UserError(f"tokenizer {config.tokenizer} has no tokenizer.json; give the folder of a fast tokenizer.")
    names = [entry.name for entry in config.sets]
    for entry in config.sets:
        if names.count(entry.name) > 1:
            raise UserError(f"Two sets are named {entry.name!r}; give each a name of its own.")
        _check_set(entry)


def _check_set(entry: InstructionSet) -> None:
    if not _NAME.fullmatch(entry.name):
        raise UserError(f"The set name {entry.name!r} must be letters, digits and any of _ . + - only.")
    source = question_source(entry.kind)
    for name in (*_FILES[1:], "split"):
        if getattr(entry, name) is not None and name not in source.uses:
            raise UserError(f"Set {entry.name!r}: {entry.kind} has no use for {name}; leave it out.")
    if entry.images is not None and entry.mode != "keep_out":
        raise UserError(f"Set {entry.name!r}: images is for mode keep_out only; the others' lie in `tagged`.")
    if entry.images is not None and not storage.is_folder(entry.images):
        raise UserError(f"Set {entry.name!r}: the image folder {entry.images} does not exist; check images.")
    check_collection(entry.collection)
    if entry.collection is not None and source.ids == "own":
        raise UserError(f"Set {entry.name!r}: the ids of {entry.kind} tell their collection; leave collection out.")
    possible = source.tasks
    for task in entry.chosen_tasks():
        if task not in possible:
            raise UserError(f"Set {entry.name!r}: {entry.kind} has no task {task!r}; it has {', '.join(possible)}.")
        wanted = TASKS[task].placeholders
        if entry.prompt is not None and not all(name in entry.prompt for name in wanted):
            raise UserError(f"Set {entry.name!r}: the prompt for {task} must hold {' and '.join(wanted)}.")
    if entry.annotations is None and (entry.kind != "vqa" or entry.mode == "train" or entry.questions is None):
        raise UserError(f"Set {entry.name!r} has no annotation file; set annotations.")
