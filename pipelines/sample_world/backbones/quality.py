"""Measure the tiny backbones on held-out scenes, from the weights in their folders."""

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
from pipelines.sample_world.backbones.corpus import CorpusQuestion, questions
from pipelines.sample_world.backbones.language import SceneReader, SceneTexts, load_reader
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
    """Return the accuracy of the ViT's linear probes over the patches that show an object.

    A box is correct if its IoU is at least 0.5.
    """
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
    """Return the T5's accuracy by task and its perplexity, with scenes described as a list and as a grid of phrases.

    A caption is correct if it is one of the scene's five, a box if its IoU is at least 0.5.
    """
    reader, tokens = load_reader(folder)
    width = reader.t5.config.d_model
    texts = SceneTexts(LanguageSettings(width=width), seed, tokens)
    rng = random.Random(f"quality/{seed}")
    by_task: dict[str, list[CorpusQuestion]] = {task: [] for task in _TASKS}
    for entry in held_out_entries(seed, 4 * per_task, preset):
        for question in questions(entry, rng):
            if question.task in by_task and len(by_task[question.task]) < per_task:
                by_task[question.task].append(question)
    measures: dict[str, float] = {}
    forms: tuple[Form, ...] = ("list", "grid")
    for form in forms:
        nats, count = 0.0, 0
        for task, task_questions in by_task.items():
            batch = texts.tensors(task_questions, form, rng, noisy=False)
            with torch.no_grad():
                nats += float(reader(**batch)[0].sum())
            count += int((batch["labels"] != -100).sum())
            predictions = answer(reader, tokens, batch)
            correct = [_is_correct(*pair) for pair in zip(task_questions, predictions, strict=True)]
            measures[f"{form}/{task}"] = sum(correct) / len(correct)
        measures[f"{form}/perplexity"] = float(torch.tensor(nats / count).exp())
    return measures


@torch.no_grad()
def answer(reader: SceneReader, tokens: Any, batch: dict[str, Tensor]) -> list[str]:
    """Return the T5's greedy answers to a bundle."""
    embeddings, mask = reader.inputs(batch)
    encoded = reader.t5.encoder(inputs_embeds=embeddings, attention_mask=mask)
    options = {"max_new_tokens": 40, "num_beams": 1, "do_sample": False, **cache_for()}
    ids = reader.t5.generate(encoder_outputs=encoded, attention_mask=mask, **options)  # type: ignore[misc]
    return [text.strip() for text in tokens.batch_decode(ids, skip_special_tokens=True)]


def _is_correct(question: CorpusQuestion, prediction: str) -> bool:
    if question.task == "rec":
        box, true_box = parse_box(prediction), parse_box(question.answer)
        return box is not None and true_box is not None and iou(box.box, true_box.box) >= 0.5
    if question.task == "caption":
        return prediction in question.entry.captions
    if question.task == "reg":  # any expression of the same object is correct
        return any(prediction in texts and question.answer in texts for _, texts in question.entry.expressions)
    return prediction == question.answer


def measure_tag_text(folder: str, scenes: int = 256, seed: int = HELD_OUT_SEED) -> dict[str, float]:
    """Return the mean cosine similarities of an image's tag string to its own and to another image's longest caption.

    The BERT is not yet trained as a tag encoder; vectors are means over the token states.
    """
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
class TaggerOutput:
    """A tagger's output on held-out scenes.

    Attributes:
        confidences: (images, tags) in [0, 1].
        present: (images, tags) 1 if the tag is true of the image, else 0.
    """

    confidences: Tensor
    present: Tensor


def tag_held_out(
    folder: str, scenes: int = 512, seed: int = HELD_OUT_SEED, preset: PresetName = "tiny"
) -> TaggerOutput:
    """Run the tagger over held-out scenes."""
    model = RamForImageTagging.from_pretrained(folder, dtype=torch.float32).eval()
    processor = RamProcessor.from_pretrained(folder)
    entries = list(held_out_entries(seed, scenes, preset))
    confidences = [
        model.confidences(processor([entry.draw() for entry in entries[start : start + _BATCH]])["pixel_values"])
        for start in range(0, len(entries), _BATCH)
    ]
    return TaggerOutput(torch.cat(confidences), torch.stack([present_tags(entry.scene) for entry in entries]))


def measure_tagger(output: TaggerOutput, threshold: float = THRESHOLD) -> dict[str, float]:
    """Return mAP over the tags that occur, precision and recall at a threshold, and expected calibration error."""
    from sklearn.metrics import average_precision_score

    occurs = output.present.sum(0) > 0
    predicted, present = output.confidences > threshold, output.present > 0
    correct = float((predicted & present).sum())
    precision = average_precision_score(present[:, occurs].numpy(), output.confidences[:, occurs].numpy())
    counts, confidence_sums, present_counts = _reliability(output)
    return {
        "mean_average_precision": float(precision),
        "precision": correct / max(float(predicted.sum()), 1),
        "recall": correct / float(present.sum()),
        "tags_per_image": float(predicted.sum(1).double().mean()),
        "calibration_error": float((confidence_sums - present_counts).abs().sum() / counts.sum()),
    }


def _reliability(output: TaggerOutput) -> tuple[Tensor, Tensor, Tensor]:
    """Return by bin of confidence: the number of tags, the sum of their confidences, and the number of present tags."""
    scores, truth = output.confidences.flatten(), output.present.flatten()
    bins = (scores * _BINS).long().clamp_max(_BINS - 1)
    counts = torch.bincount(bins, minlength=_BINS)
    confidence_sums = torch.bincount(bins, weights=scores.double(), minlength=_BINS)
    return counts, confidence_sums, torch.bincount(bins, weights=truth.double(), minlength=_BINS)


def best_thresholds(output: TaggerOutput, candidates: Sequence[float] = _CANDIDATES) -> list[float]:
    """Return for each tag the threshold with the best F1; `models.tags.THRESHOLD` for a tag that never occurs."""
    thresholds = []
    for scores, present in zip(output.confidences.T, output.present.T, strict=True):
        if not present.any():
            thresholds.append(THRESHOLD)
            continue
        f1 = [float(2 * (present * (scores > t)).sum() / (present.sum() + (scores > t).sum())) for t in candidates]
        best = [t for t, value in zip(candidates, f1, strict=True) if value == max(f1)]
        thresholds.append(best[len(best) // 2])  # of several best ones, the middle
    return thresholds


def draw_reliability(output: TaggerOutput, path: str) -> None:
    """Write the reliability curve as PNG: the share of present tags over the tagger's confidence."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 5.2), layout="constrained")
    top, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    counts, confidence_sums, present_counts = _reliability(output)
    used = counts > 0
    top.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated")
    top.plot((confidence_sums / counts)[used], (present_counts / counts)[used], marker="o", label="tagger")
    top.set(ylabel="share of present tags", ylim=(0, 1), title="Reliability on held-out scenes")
    top.legend(frameon=False)
    below.bar((torch.arange(_BINS) + 0.5) / _BINS, counts.double(), width=0.9 / _BINS, color="0.6")
    below.set(xlabel="confidence", ylabel="tags", yscale="log", xlim=(0, 1))
    figure.savefig(path, dpi=110)
