"""The kinds of sources: which reader belongs to the `kind` of a configuration, and how to register a further one.

A format of a user needs one module outside the project. It registers the format at its top level:

    register_question_source("birds", QuestionSource(lambda files: read_birds(files.required()), tasks=("vqa",)))

A configuration then says `kind: my_formats:birds`: every process that reads the kind, Ray's workers included, imports
`my_formats` first. `kind: birds` is enough in a process that has already imported the module.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar

from pipelines.core.errors import UserError
from pipelines.sources.records import BadRecord, ImageRecord, QuestionRecord

Ids = Literal["numbers", "names", "own"]
"""How a format identifies images. numbers: by numbers of a collection, which a setting names. names: by file names,
from which the reader derives ids. own: by ids that already name their collection."""
_NOT_FILES = ("split", "collection")
S = TypeVar("S")


@dataclass(frozen=True)
class QuestionFiles:
    """The files and settings of a question source.

    Attributes:
        annotations: the file with the answers (Flickr30K Entities: a folder); None for test splits of VQA.
        questions: VQA's questions, if they are in another file than the answers.
        instances: RefCOCO's boxes.
        image_data: Visual Genome's image_data.json.
        pid_splits: IconQA's pid_splits.json.
        split: read only rows of this split, from files that have several.
        collection: the collection of the image numbers or names in the files; None: COCO, or derived from the names.
    """

    annotations: str | None = None
    questions: str | None = None
    instances: str | None = None
    image_data: str | None = None
    pid_splits: str | None = None
    split: str | None = None
    collection: str | None = None

    def required(self, name: str = "annotations") -> str:
        """Return the path of a file.

        Raises:
            UserError: the path is not set.
        """
        path = getattr(self, name)
        if path is None:
            raise UserError(f"This kind of question set needs another file; set {name}.")
        return str(path)

    def paths(self) -> dict[str, str]:
        """Return the paths that are set, by field."""
        by_field = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_FILES}
        return {name: path for name, path in by_field.items() if path}


ImageReader = Callable[..., Iterator[ImageRecord | BadRecord]]
"""Called with `annotations` (a path or None), `images` (the folder) and `split` (a name or None)."""
QuestionReader = Callable[[QuestionFiles], Iterator[QuestionRecord | BadRecord]]


@dataclass(frozen=True)
class ImageSource:
    """A format of image lists.

    Attributes:
        read: the reader. With the ids "names" it also gets the argument `collection`.
        ids: how the format identifies images.
    """

    read: ImageReader
    ids: Ids = "own"


@dataclass(frozen=True)
class QuestionSource:
    """A format of questions.

    Attributes:
        read: the reader.
        tasks: the tasks that its rows can become, the default task first.
        uses: the fields of `QuestionFiles` that it reads, without `annotations`.
        folder: the kind of image source that gives the image files of a folder the ids of these questions.
        ids: how the format identifies images.
        default_file: a field of `uses`, and the function that returns its default path for a path of annotations (None:
            not needed).
    """

    read: QuestionReader
    tasks: tuple[str, ...]
    uses: tuple[str, ...] = ()
    folder: str = "folder"
    ids: Ids = "own"
    default_file: tuple[str, Callable[[str], str | None]] | None = None

    def complete(self, files: QuestionFiles) -> QuestionFiles:
        """Return the files with the default path of the second file, if that is not set."""
        if self.default_file is None or files.annotations is None or getattr(files, self.default_file[0]) is not None:
            return files
        return replace(files, **{self.default_file[0]: self.default_file[1](files.annotations)})


IMAGE_SOURCES: dict[str, ImageSource] = {}
"""The image sources of this process by kind; `register_image_source` adds to it."""
QUESTION_SOURCES: dict[str, QuestionSource] = {}
"""The question sources of this process by kind; `register_question_source` adds to it."""


def register_image_source(kind: str, source: ImageSource) -> None:
    """Make a format of image lists available under a kind.

    Raises:
        ValueError: the kind is taken, or has a colon.
    """
    _register(IMAGE_SOURCES, kind, source)


def register_question_source(kind: str, source: QuestionSource) -> None:
    """Make a format of questions available under a kind.

    Raises:
        ValueError: the kind is taken, or has a colon.
    """
    _register(QUESTION_SOURCES, kind, source)


def image_source(kind: str) -> ImageSource:
    """Return the image source of a kind.

    Args:
        kind: a key of `IMAGE_SOURCES`, or `MODULE:KIND`, which first imports the module that registers it.

    Raises:
        UserError: the kind is not registered, or the module cannot be imported.
    """
    return _lookup(IMAGE_SOURCES, kind, "image source")


def question_source(kind: str) -> QuestionSource:
    """Return the question source of a kind.

    Args:
        kind: a key of `QUESTION_SOURCES`, or `MODULE:KIND`, which first imports the module that registers it.

    Raises:
        UserError: the kind is not registered, or the module cannot be imported.
    """
    return _lookup(QUESTION_SOURCES, kind, "question source")


def _register(sources: dict[str, S], kind: str, source: S) -> None:
    if not kind or ":" in kind:
        raise ValueError(f"The kind {kind!r} must be a name without a colon.")
    if kind in sources:
        raise ValueError(f"The kind {kind!r} is already registered; choose another name.")
    sources[kind] = source


def _lookup(sources: Mapping[str, S], kind: str, what: str) -> S:
    module, _, name = kind.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"kind {kind!r}: the module {module} cannot be imported: {error}.") from error
    if name not in sources:
        raise UserError(f"There is no {what} {kind!r}; choose one of {', '.join(sources)}.")
    return sources[name]
