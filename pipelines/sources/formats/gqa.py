"""GQA: one object of questions by id, `{"02930152": {"imageId", "question", "answer", …}}` (Hudson & Manning 2019).

Format: https://cs.stanford.edu/people/dorarad/gqa/download.html. The images are Visual Genome's.
"""

from collections.abc import Iterator

from pipelines.sources.formats.visual_genome import coco_ids, image_id_of
from pipelines.sources.records import BadAnnotation, BadRecord, QuestionRecord, id_field, text_field, unicode_text
from pipelines.sources.streams import object_entries


def read_questions(annotations: str, image_data: str | None = None) -> Iterator[QuestionRecord | BadRecord]:
    """Yield questions in the order of the file, each with its short answer. Test files have no answers.

    Args:
        annotations: a questions file, such as train_balanced_questions.json.
        image_data: Visual Genome's image_data.json with the COCO ids of images that are also COCO's; None: unknown.

    Raises:
        UserError: a file is missing, is not JSON, or has another format.
    """
    in_coco = coco_ids(image_data) if image_data else {}
    for question_id, entry in object_entries(annotations):
        where, image_id = f"question {question_id}", None
        try:
            unicode_text(question_id, "a question's id")
            number = id_field(entry, "imageId", where)
            image_id = image_id_of(number)
            text = text_field(entry, "question", where)
            answers = (text_field(entry, "answer", where),) if "answer" in entry else ()
            yield QuestionRecord(question_id, image_id, "vqa", "image", text, answers, same_as=in_coco.get(number))
        except BadAnnotation as error:
            yield error.record(image_id)
