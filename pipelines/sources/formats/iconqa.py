"""IconQA: problems.json by problem id, and pid_splits.json with the ids of each split (Lu et al. 2021).

Format: https://iconqa.github.io; images are iconqa/SPLIT/TYPE/ID/image.png. Two of the three types of problems are
read: choose_txt and fill_in_blank. The choices of the third, choose_img, are images, and LION reads only one image.
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
    """Return the id of a file: "…/train/choose_txt/3/image.png" → "iconqa/train/choose_txt/3"; None for a choice."""
    parts = path.split("/")
    return f"iconqa/{'/'.join(parts[-4:-1])}" if len(parts) >= 4 and parts[-1] == "image.png" else None


def read_questions(annotations: str, split: str | None, pid_splits: str) -> Iterator[QuestionRecord | BadRecord]:
    """Yield problems in the order of the file: choices with the correct one, or the answer for the blank.

    Args:
        annotations: problems.json.
        split: a split of pid_splits.json, such as choose_txt_train or fill_in_blank_val; or train, val or test for both
            types; None: all problems of the two types.
        pid_splits: pid_splits.json.

    Raises:
        UserError: a file is missing or has another format, or the split does not exist or is of choose_img.
    """
    splits = _splits(pid_splits, split)
    for problem, entry in object_entries(annotations):
        if problem not in splits:
            continue
        own_split, kind = splits[problem]
        image_id, where = f"iconqa/{own_split}/{kind}/{problem}", f"problem {problem}"
        try:
            unicode_text(problem, "a problem's id")
            yield _problem(problem, image_id, entry, kind, own_split, where)
        except BadAnnotation as error:
            yield error.record(image_id)


def _splits(pid_splits: str, split: str | None) -> Mapping[str, tuple[str, str]]:
    """Return the split and the type of each problem to read."""
    lists: dict[str, list[Any]] = {}
    for name, ids in object_entries(pid_splits):
        lists[name] = ids if isinstance(ids, list) else []
    if split is None or split in _SPLITS:
        requested = [f"{kind}_{name}" for kind in _TYPES for name in ([split] if split else _SPLITS)]
    else:
        requested = [split]
    readable = [name for name in lists if name.startswith(_TYPES)]
    if missing := [name for name in requested if name not in readable]:
        raise UserError(
            f"{pid_splits} has no readable split {' or '.join(missing)}; it has {', '.join(sorted(readable)) or 'none'}"
            " (the choices of choose_img are images, which cannot be used)."
        )
    # Images are in folders of the splits below. A split with another name consists of problems of these splits.
    folders = {f"{kind}_{name}": (name, kind) for kind in _TYPES for name in _SPLITS}
    by_problem = {str(problem): folder for name, folder in folders.items() for problem in lists.get(name, [])}
    problems = [str(problem) for name in requested for problem in lists[name]]
    return {problem: by_problem[problem] for problem in problems if problem in by_problem}


def _problem(problem: str, image_id: str, entry: Any, kind: str, split: str, where: str) -> QuestionRecord:
    text = text_field(entry, "question", where)
    if kind == "fill_in_blank":
        # The answer for a blank may be stored as a number.
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
