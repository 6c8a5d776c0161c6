"""The backbones in the repository, so that laptops, CI and tests do not have to pre-train them first."""

from dataclasses import dataclass
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Backbones:
    """Folders of the tiny backbones.

    Attributes:
        vision: the ViT, `InstructBlipVisionModel`, and its linear readouts.
        language: the T5, `T5ForConditionalGeneration`, and its tokenizer.
        tagger: RAM, `models.ram`.
        tag_encoder: a plain BERT and its tokenizer, which the Q-Former uses, too.
    """

    vision: str
    language: str
    tagger: str
    tag_encoder: str


def kept_backbones(folder: str | Path = WEIGHTS) -> Backbones:
    """Return the backbones of a folder: the one in the repository, or `backbones/` of a `pretrain_tiny` step.

    Raises:
        ValueError: a backbone is missing.
    """
    parts = {name: Path(folder) / name for name in Backbones.__dataclass_fields__}
    if missing := [name for name, path in parts.items() if not (path / "config.json").exists()]:
        raise ValueError(f"{folder} holds no {', '.join(missing)}; make them with python -m jobs.pretrain_tiny.")
    return Backbones(**{name: str(path) for name, path in parts.items()})
