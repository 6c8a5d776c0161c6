"""The report of a comparison: one HTML page that contains its figures and images and needs no network."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.comparison import figures
from pipelines.comparison.config import FEWEST_SEEDS
from pipelines.comparison.results import ALPHA, Document, decodings_differ
from pipelines.comparison.statistics import CONFIDENCE, FEWEST_IMAGES, POWER
from pipelines.inference.decoding import in_words
from pipelines.scoring.benchmarks import benchmark_table
from pipelines.scoring.scorer import set_of

_TEMPLATE = "report.html.j2"
# Data without published numbers: the report shows those of this benchmark, which has the same task.
_ORIENTATION = {"caption": "coco_caption", "vqa": "okvqa", "rec": "refcoco_val", "pope": "pope_random"}
WORDS = {"better": "wins", "worse": "loses", "undecided": "no difference shown"}
TITLES = {
    "drawn": "Random sample",
    "worst": "Lowest mean score of all arms",
    "gained": "Questions where {arm} scores furthest above {baseline}",
    "lost": "Questions where {arm} scores furthest below {baseline}",
}


def render(
    document: Document,
    gallery: Mapping[str, Mapping[str, Sequence[Document]]],
    histories: Mapping[str, Sequence[Sequence[Document]]],
    tag_encoders: Mapping[str, Sequence[Document]],
    provenance: Mapping[str, Any],
) -> str:
    """Return the report as HTML.

    Args:
        document: the comparison's numbers, from `results.analyze`.
        gallery: the examples by group and section, from `examples.gallery`.
        histories: training records of the last stage, by arm and then by seed.
        tag_encoders: training records of the arms' tag encoders, by reference.
        provenance: `config` (YAML text), `trainings`, `code`, `hardware`, `reading` (the confidence above which a tag
            is read, in words), `resamples` (bootstrap draws), `errors` (the settings of tag noise), `decision` (of the
            champion rule, or None).
    """
    import jinja2

    arms, groups = document["arms"], document["groups"]
    hint = document["evidence"] if len(document["seeds"]) < FEWEST_SEEDS else ""
    spread = "for images only" if len(document["seeds"]) == 1 else "for images and two trainings"
    heading = f"{hint}; intervals {spread}" if hint else ""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "points": points,
        "p": p_value,
        "p_in_text": _p_in_text,
        "count": lambda value: f"{value:,}",
    }
    return environment.get_template(_TEMPLATE).render(
        document=document,
        arms=arms,
        baseline=document["baseline"],
        challengers=[arm for arm in arms if arm != document["baseline"]],
        colors=dict(zip(arms, figures.COLORS * len(arms), strict=False)),
        groups=groups,
        findings=findings(document),
        words=WORDS,
        hint=hint,
        spread=spread,
        fewest_seeds=FEWEST_SEEDS,
        power=f"{POWER:.0%}",
        published=published(document),
        gallery=gallery,
        titles={why: title(why, document["baseline"]) for sections in gallery.values() for why in sections},
        effects=figures.effects(groups, arms, document["baseline"], heading),
        noise=figures.noise_curves(groups, arms, heading) if len(document["strengths"]) > 1 else "",
        training=figures.training_curves(histories),
        tag_encoders={name: figures.tag_encoder_curves(history) for name, history in tag_encoders.items()},
        decoding=decoded_with(document),
        decodings_differ=decodings_differ(document),
        alpha=ALPHA,
        confidence=f"{CONFIDENCE:.0%}",
        fewest=FEWEST_IMAGES,
        provenance=provenance,
    )


def decoded_with(document: Document) -> dict[str, list[str]]:
    """Return the decoding settings of each arm in words: one entry if its seeds agree, else one per seed.

    Arms whose predictions came from a file without decoding settings get an empty list.
    """
    return {
        arm: [in_words(settings) for settings in by_seed if settings is not None]
        for arm, by_seed in document["decoding"].items()
    }


def findings(document: Document) -> list[Document]:
    """Return one finding per arm and group, the difference from the baseline with its verdict; decided ones first."""
    words = {**WORDS, "hint": document["evidence"]}
    rows = [
        {"group": name, "primary": group["primary"], "arm": arm, "words": words[effect["verdict"]], **effect}
        for name, group in document["groups"].items()
        for arm, effect in group["effects"].items()
    ]
    return sorted(rows, key=lambda row: row["verdict"] == "undecided")


def published(document: Document) -> list[Document]:
    """Return the published numbers for each group: those of its benchmark, or else of one with the same task.

    The numbers are percentages, as printed in their papers.
    """
    benchmarks = benchmark_table().benchmarks
    rows = []
    for name, group in document["groups"].items():
        task = name.rpartition(":")[2]
        benchmark_name = set_of(group["example_id"], task)
        same = benchmark_name in benchmarks and bool(benchmarks[benchmark_name].published)
        source = benchmarks.get(benchmark_name if same else _ORIENTATION.get(task, ""))
        numbers = {} if source is None else {
            model: values[group["primary"]] for model, values in source.published.items() if group["primary"] in values
        }  # fmt: skip
        rows.append({"group": name, "primary": group["primary"], "benchmark": source.name if source else None,
                     "same": same, "numbers": numbers})  # fmt: skip
    return rows


def title(why: str, baseline: str) -> str:
    """Return the heading of a section of the gallery."""
    kind, _, arm = why.partition(" ")
    return TITLES[kind].format(arm=arm, baseline=baseline)


def points(value: float, signed: bool = False) -> str:
    """Return a fraction in percent with two decimals, for example 51.24 or −1.00."""
    text = f"{100 * value:{'+' if signed else ''}.2f}"
    return text.replace("-", "−")


def p_value(value: float) -> str:
    """Return a p-value with three decimals, or "< 0.001"."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _p_in_text(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"
