"""IconQA: problems.json by problem id, and pid_splits.json with the ids of each split (Lu et al. 2021).

Format: https://iconqa.github.io; pictures are iconqa/SPLIT/TYPE/ID/image.png. Two of its three types of problems are
read: choose_txt and fill_in_blank. The third, choose_img, offers pictures to choose from, which LION cannot be shown.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.core.errors import UserError
from pipelines.sources.records import (
    WRONG_VALUE,
    BadAnnotation,
    BadRecord,
    QuestionRecord,
    field,
    text_field,
    texts_field,
    unicode_text,
)
from pipelines.sources.streams import object_entries

_TYPES = ("choose_txt", "fill_in_blank")
_SPLITS = ("train", "val", "test")


def image_id_of(path: str) -> str | None:
    """The id of a file: "…/train/choose_txt/3/image.png" → "iconqa/train/choose_txt/3"; None for a choice's picture."""
    parts = path.split("/")
    return f"iconqa/{'/'.join(parts[-4:-1])}" if len(parts) >= 4 and parts[-1] == "image.png" else None


def read_questions(annotations: str, split: str | None, pid_splits: str) -> Iterator[QuestionRecord | BadRecord]:
    """Problems in the file's order: choices with the right one, or the answer that fills the blank.

    Args:
        annotations: problems.json.
        split: one of pid_splits.json, such as choose_txt_train or fill_in_blank_val; train, val or test: both types
            of it; None: all that can be read.
        pid_splits: pid_splits.json.

    Raises:
        UserError: a file is missing or of another format, or has no such split, or one of choose_img.
    """
    places = _places(pid_splits, split)
    for problem, entry in object_entries(annotations):
        if problem not in places:
            continue
        own_split, kind = places[problem]
        image_id, where = f"iconqa/{own_split}/{kind}/{problem}", f"problem {problem}"
        try:
            unicode_text(problem, "a problem's id")
            yield _problem(problem, image_id, entry, kind, own_split, where)
        except BadAnnotation as error:
            yield error.record(image_id)


def _places(pid_splits: str, split: str | None) -> Mapping[str, tuple[str, str]]:
    """Return the split and the type of each problem that is wanted."""
    lists: dict[str, list[Any]] = {}
    for name, ids in object_entries(pid_splits):
        lists[name] = ids if isinstance(ids, list) else []
    if split is None or split in _SPLITS:
        wanted = [f"{kind}_{name}" for kind in _TYPES for name in ([split] if split else _SPLITS)]
    else:
        wanted = [split]
    known = [name for name in lists if name.startswith(_TYPES)]
    if missing := [name for name in wanted if name not in known]:
        raise UserError(
            f"{pid_splits} has no split {' or '.join(missing)} to read; it has {', '.join(sorted(known)) or 'none'}"
            " (problems of choose_img offer pictures to choose from and cannot be used)."
        )
    own = {f"{kind}_{name}": (name, kind) for kind in _TYPES for name in _SPLITS}
    of_problem = {str(problem): place for name, place in own.items() for problem in lists.get(name, [])}
    chosen = [str(problem) for name in wanted for problem in lists[name]]
    return {problem: of_problem[problem] for problem in chosen if problem in of_problem}


def _problem(problem: str, image_id: str, entry: Any, kind: str, split: str, where: str) -> QuestionRecord:
    text = text_field(entry, "question", where)
    if kind == "fill_in_blank":
        answer = str(field(entry, "answer", (str, int, float), where)).strip()
        if not answer:
            raise BadAnnotation(WRONG_VALUE, f"'answer' of {where} is empty")
        return QuestionRecord(problem, image_id, "vqa", "image", text, (answer,), split=split)
    choices = texts_field(entry, "choices", where)
    correct = field(entry, "answer", int, where)
    if not 0 <= correct < len(choices):
        raise BadAnnotation(WRONG_VALUE, f"{where}: choice {correct} of {len(choices)} choices")
    return QuestionRecord(
        problem, image_id, "vqa_choice", "image", text, (choices[correct],), choices=choices, correct_choice=correct,
        split=split,
    )  # fmt: skip
