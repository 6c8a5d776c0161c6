"""The comparison as one HTML page that needs no network: figures and images stand in it."""

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
# Beside numbers of data that nobody published anything on: the published benchmark of the same task, for orientation.
_ORIENTATION = {"caption": "coco_caption", "vqa": "okvqa", "rec": "refcoco_val", "pope": "pope_random"}
WORDS = {"better": "wins", "worse": "loses", "undecided": "no difference shown"}
TITLES = {
    "drawn": "Drawn by lot",
    "worst": "Worst failures of all arms together",
    "gained": "Questions where {arm} scores furthest above {baseline}",
    "lost": "Questions where {arm} scores furthest below {baseline}",
}


def render(
    document: Document,
    gallery: Mapping[str, Mapping[str, Sequence[Document]]],
    histories: Mapping[str, Sequence[Sequence[Document]]],
    tag_encoders: Mapping[str, Sequence[Document]],
    made: Mapping[str, Any],
) -> str:
    """Return the page.

    Args:
        document: the comparison's numbers, as `results.analyze` made them.
        gallery: as `examples.gallery` made it.
        histories: records of the last stage's trainings, by arm and seed.
        tag_encoders: records of the trainings of the tag encoders that the arms read, by what they are called.
        made: how it was made: `config` (text), `trainings`, `code`, `hardware`, `reading` (above which
            confidence a tag is read, in words), `decision`.
    """
    import jinja2

    arms, groups = document["arms"], document["groups"]
    hint = document["evidence"] if len(document["seeds"]) < FEWEST_SEEDS else ""
    spread = "of images alone" if len(document["seeds"]) == 1 else "of images and of two trainings"
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
        titles={why: title(why, document["baseline"]) for shown in gallery.values() for why in shown},
        effects=figures.effects(groups, arms, document["baseline"], heading),
        noise=figures.noise_curves(groups, arms, heading) if len(document["strengths"]) > 1 else "",
        training=figures.training_curves(histories),
        tag_encoders={name: figures.tag_encoder_curves(history) for name, history in tag_encoders.items()},
        decoding=decoded_with(document),
        decodings_differ=decodings_differ(document),
        alpha=ALPHA,
        confidence=f"{CONFIDENCE:.0%}",
        fewest=FEWEST_IMAGES,
        made=made,
    )


def decoded_with(document: Document) -> dict[str, list[str]]:
    """Each arm's settings of decoding in words: one line where its seeds agree; empty where no file says them."""
    return {
        arm: [in_words(settings) for settings in by_seed if settings is not None]
        for arm, by_seed in document["decoding"].items()
    }


def findings(document: Document) -> list[Document]:
    """One sentence for each difference, those that are decided first: which arm, which task, by how much, how sure."""
    words = {**WORDS, "hint": document["evidence"]}
    found = [
        {"group": name, "primary": group["primary"], "arm": arm, "says": words[effect["verdict"]], **effect}
        for name, group in document["groups"].items()
        for arm, effect in group["effects"].items()
    ]
    return sorted(found, key=lambda one: one["verdict"] == "undecided")


def published(document: Document) -> list[Document]:
    """For each group the published numbers of its own benchmark, or of one of the same task; percent as printed."""
    benchmarks = benchmark_table().benchmarks
    rows = []
    for name, group in document["groups"].items():
        task = name.rpartition(":")[2]
        own = set_of(group["example_id"], task)
        same = own in benchmarks and bool(benchmarks[own].published)
        source = benchmarks.get(own if same else _ORIENTATION.get(task, ""))
        numbers = {} if source is None else {
            model: values[group["primary"]] for model, values in source.published.items() if group["primary"] in values
        }  # fmt: skip
        rows.append({"group": name, "primary": group["primary"], "benchmark": source.name if source else None,
                     "same": same, "numbers": numbers})  # fmt: skip
    return rows


def title(why: str, baseline: str) -> str:
    """Return the heading of a part of the gallery."""
    kind, _, arm = why.partition(" ")
    return TITLES[kind].format(arm=arm, baseline=baseline)


def points(value: float, signed: bool = False) -> str:
    """Return a fraction in percent as papers print it."""
    text = f"{100 * value:{'+' if signed else ''}.2f}"
    return text.replace("-", "−")


def p_value(value: float) -> str:
    """Return a p-value to three digits."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _p_in_text(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"
