"""How good the tiny backbones are, measured on held-out scenes from their folders as they are kept."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.lion.generation import cache_for
from models.ram import RamForImageTagging, RamProcessor
from models.tags import THRESHOLD
from pipelines.sample_world.backbones.config import LanguageSettings, VisionSettings
from pipelines.sample_world.backbones.corpus import Question, questions
from pipelines.sample_world.backbones.language import Reader, SceneTexts, load_reader
from pipelines.sample_world.backbones.phrases import Form
from pipelines.sample_world.backbones.tagger import present_tags
from pipelines.sample_world.backbones.vision import SceneImages, load_probed, probe_sums
from pipelines.sample_world.backbones.world import HELD_OUT_SEED, held_out_entries
from pipelines.sample_world.scenes import PresetName
from pipelines.sources.boxes import iou, parse_box

_BATCH = 64
_BINS = 10
_CANDIDATES = tuple(number / 20 for number in range(4, 20))
_TASKS = ("caption", "vqa", "vqa_choice", "pope", "rec", "reg")


def measure_vision(
    folder: str, scenes: int = 256, seed: int = HELD_OUT_SEED, preset: PresetName = "tiny"
) -> dict[str, float]:
    """Linear probes: share of right answers over the patches that show an object, and of boxes at IoU ≥ 0.5."""
    model = load_probed(folder)
    config = model.vision.config
    settings = VisionSettings(image_size=int(config.image_size), patch_size=int(config.patch_size))  # type: ignore[arg-type]
    data = SceneImages(settings, seed)
    entries = list(held_out_entries(seed, scenes, preset))
    total: dict[str, Tensor] = {}
    for start in range(0, len(entries), _BATCH):
        batch = data.collate(entries[start : start + _BATCH]).tensors
        with torch.no_grad():
            answers = model(batch["pixel_values"])
        for name, value in probe_sums(answers, batch["patches"], batch["boxes"]).items():
            total[name] = total.get(name, torch.zeros(())) + value
    return {name: float(value / total["patches"]) for name, value in total.items() if name != "patches"}


def measure_language(
    folder: str, per_task: int = 64, seed: int = HELD_OUT_SEED, preset: PresetName = "tiny"
) -> dict[str, float]:
    """Right answers by task, where each scene is given as a list and as a grid of phrases, and perplexity.

    Captions count as right where they are one of the scene's five; boxes at IoU ≥ 0.5.
    """
    reader, tokens = load_reader(folder)
    width = reader.t5.config.d_model
    texts = SceneTexts(LanguageSettings(width=width), seed, tokens)
    rng = random.Random(f"quality/{seed}")
    asked: dict[str, list[Question]] = {task: [] for task in _TASKS}
    for entry in held_out_entries(seed, 4 * per_task, preset):
        for question in questions(entry, rng):
            if question.task in asked and len(asked[question.task]) < per_task:
                asked[question.task].append(question)
    found: dict[str, float] = {}
    forms: tuple[Form, ...] = ("list", "grid")
    for form in forms:
        nats, count = 0.0, 0
        for task, some in asked.items():
            batch = texts.tensors(some, form, rng, noisy=False)
            with torch.no_grad():
                nats += float(reader(**batch)[0].sum())
            count += int((batch["labels"] != -100).sum())
            right = [_right(*pair) for pair in zip(some, answer(reader, tokens, batch), strict=True)]
            found[f"{form}/{task}"] = sum(right) / len(right)
        found[f"{form}/perplexity"] = float(torch.tensor(nats / count).exp())
    return found


@torch.no_grad()
def answer(reader: Reader, tokens: Any, batch: dict[str, Tensor]) -> list[str]:
    """Return the T5's greedy answers to a bundle."""
    embeddings, mask = reader.inputs(batch)
    encoded = reader.t5.encoder(inputs_embeds=embeddings, attention_mask=mask)
    options = {"max_new_tokens": 40, "num_beams": 1, "do_sample": False, **cache_for()}
    ids = reader.t5.generate(encoder_outputs=encoded, attention_mask=mask, **options)  # type: ignore[misc]
    return [text.strip() for text in tokens.batch_decode(ids, skip_special_tokens=True)]


def _right(question: Question, said: str) -> bool:
    if question.task == "rec":
        box, wanted = parse_box(said), parse_box(question.answer)
        return box is not None and wanted is not None and iou(box.box, wanted.box) >= 0.5
    if question.task == "caption":
        return said in question.entry.captions
    if question.task == "reg":
        return any(said in texts and question.answer in texts for _, texts in question.entry.expressions)
    return said == question.answer


def measure_tag_text(folder: str, scenes: int = 256, seed: int = HELD_OUT_SEED) -> dict[str, float]:
    """What the vectors of a BERT without any training as a tag encoder are worth: cosines of an image's tag string to
    its own and to another image's listing caption, both as means over the token states."""
    from torch.nn.functional import cosine_similarity

    from models.tag_encoder import TagEncoder, TagEncoderProcessor

    encoder = TagEncoder.from_bert(folder, pooling="mean")
    processor = TagEncoderProcessor.from_pretrained(folder)
    entries = list(held_out_entries(seed, scenes))
    with torch.no_grad():
        tags = encoder(**processor([entry.tags for entry in entries]).as_dict())
        captions = encoder(**processor.captions([max(entry.captions, key=len) for entry in entries]).as_dict())
    return {
        "cosine_positive_untrained": float(cosine_similarity(tags, captions).mean()),
        "cosine_negative_untrained": float(cosine_similarity(tags, captions.roll(1, 0)).mean()),
    }


@dataclass(frozen=True)
class Tagging:
    """A tagger's confidences (images, tags) and the truth (0 or 1) of held-out scenes."""

    confidences: Tensor
    present: Tensor


def tag_held_out(folder: str, scenes: int = 512, seed: int = HELD_OUT_SEED, preset: PresetName = "tiny") -> Tagging:
    """Run the tagger over held-out scenes."""
    model = RamForImageTagging.from_pretrained(folder, dtype=torch.float32).eval()
    processor = RamProcessor.from_pretrained(folder)
    entries = list(held_out_entries(seed, scenes, preset))
    confidences = [
        model.confidences(processor([entry.draw() for entry in entries[start : start + _BATCH]])["pixel_values"])
        for start in range(0, len(entries), _BATCH)
    ]
    return Tagging(torch.cat(confidences), torch.stack([present_tags(entry.scene) for entry in entries]))


def measure_tagger(tagging: Tagging, threshold: float = THRESHOLD) -> dict[str, float]:
    """mAP over the tags that occur, precision and recall at a threshold, and expected calibration error (10 bins)."""
    from sklearn.metrics import average_precision_score

    occurs = tagging.present.sum(0) > 0
    said, present = tagging.confidences > threshold, tagging.present > 0
    right = float((said & present).sum())
    precision = average_precision_score(present[:, occurs].numpy(), tagging.confidences[:, occurs].numpy())
    counts, sure, there = _reliability(tagging)
    return {
        "mean_average_precision": float(precision),
        "precision": right / max(float(said.sum()), 1),
        "recall": right / float(present.sum()),
        "tags_per_image": float(said.sum(1).double().mean()),
        "calibration_error": float((sure - there).abs().sum() / counts.sum()),
    }


def _reliability(tagging: Tagging) -> tuple[Tensor, Tensor, Tensor]:
    """By bin of confidence: how many tags, the sum of their confidences, and how many of them are there."""
    scores, truth = tagging.confidences.flatten(), tagging.present.flatten()
    bins = (scores * _BINS).long().clamp_max(_BINS - 1)
    counts = torch.bincount(bins, minlength=_BINS)
    sure = torch.bincount(bins, weights=scores.double(), minlength=_BINS)
    return counts, sure, torch.bincount(bins, weights=truth.double(), minlength=_BINS)


def best_thresholds(tagging: Tagging, candidates: Sequence[float] = _CANDIDATES) -> list[float]:
    """For each tag the threshold of best F1; `models.tags.THRESHOLD` for a tag that never occurs."""
    found = []
    for scores, present in zip(tagging.confidences.T, tagging.present.T, strict=True):
        if not present.any():
            found.append(THRESHOLD)
            continue
        f1 = [float(2 * (present * (scores > t)).sum() / (present.sum() + (scores > t).sum())) for t in candidates]
        best = [t for t, value in zip(candidates, f1, strict=True) if value == max(f1)]
        found.append(best[len(best) // 2])
    return found


def draw_reliability(tagging: Tagging, path: str) -> None:
    """Reliability curve as PNG: how often a tag is there, by how sure the tagger was of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 5.2), layout="constrained")
    top, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    counts, sure, there = _reliability(tagging)
    used = counts > 0
    top.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated")
    top.plot((sure / counts)[used], (there / counts)[used], marker="o", label="tagger")
    top.set(ylabel="share of tags that are there", ylim=(0, 1), title="Reliability on held-out scenes")
    top.legend(frameon=False)
    below.bar((torch.arange(_BINS) + 0.5) / _BINS, counts.double(), width=0.9 / _BINS, color="0.6")
    below.set(xlabel="confidence", ylabel="tags", yscale="log", xlim=(0, 1))
    figure.savefig(path, dpi=110)
