"""The backbones that are kept in the repository, so that a laptop, CI and tests need not train them first."""

from dataclasses import dataclass
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Backbones:
    """Folders of the tiny backbones.

    Attributes:
        vision: the ViT, `InstructBlipVisionModel`, with linear readouts beside it.
        language: the T5, `T5ForConditionalGeneration`, with its tokenizer.
        tagger: RAM, `models.ram`.
        tag_encoder: a plain BERT with its tokenizer, which the Q-Former reads by, too.
    """

    vision: str
    language: str
    tagger: str
    tag_encoder: str


def kept_backbones(folder: str | Path = WEIGHTS) -> Backbones:
    """Return the backbones of a folder: the repository's own, or `backbones/` of a `pretrain_tiny` step.

    Raises:
        ValueError: one of them is not there.
    """
    parts = {name: Path(folder) / name for name in Backbones.__dataclass_fields__}
    if absent := [name for name, path in parts.items() if not (path / "config.json").exists()]:
        raise ValueError(f"{folder} holds no {', '.join(absent)}; make them with python -m jobs.pretrain_tiny.")
    return Backbones(**{name: str(path) for name, path in parts.items()})
