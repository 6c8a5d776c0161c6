"""The files that a sweep writes for people: the ranking as Markdown, the best configuration as YAML, the numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipelines.sweeps.config import SweepConfig
from pipelines.sweeps.outcomes import TrialOutcome
from pipelines.sweeps.space import Range, format_value, with_values


def ranking_text(document: Mapping[str, Any], order: Sequence[TrialOutcome], ranges: Sequence[Range]) -> str:
    """Return the ranking as a Markdown table.

    Args:
        document: the content of `sweep.json`.
        order: the outcomes by rank, with `default` for the unchanged configuration.
        ranges: the search space.
    """
    metric, better = document["metric"], "highest" if document["mode"] == "max" else "lowest"
    head = ["rank", "trial", *(item.field for item in ranges), metric, "percent trained", "seconds", "state"]
    lines = [
        f"# Sweep of {document['verb']}", "",
        f"{len(order) - 1} trials with {document['trial_seconds']:.0f} s in total on {document['cpu_cores']} CPU "
        f"cores, commit {document['git_commit']}. Early stopping saved {document['saved_by_early_stopping']:.0%} of "
        f"the steps. The best has the {better} {metric} of all finished trainings, including the unchanged "
        f"configuration (default). Registered as {document['registered']}.", "",
        " | ".join(head), " | ".join("---" for _ in head),
    ]  # fmt: skip
    lines += [" | ".join(_cells(rank, outcome, ranges)) for rank, outcome in enumerate(order, 1)]
    if any(outcome.collapsed for outcome in order):
        lines += ["", "collapsed: the cosine to an image's own caption and the cosine to another image's caption "
                  "differ by less than 0.02. All vectors are alike, and the loss equals the margin."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cells(rank: int, outcome: TrialOutcome, ranges: Sequence[Range]) -> list[str]:
    value = "" if outcome.value is None else f"{outcome.value:.4f}"
    seconds = "" if math.isnan(outcome.seconds) else f"{outcome.seconds:.0f}"
    state = outcome.label + (f": {outcome.error}" if outcome.error else "")
    settings = [format_value(outcome.values[item.field]) for item in ranges]
    # A bar in an error message would start a new cell.
    return [str(rank), outcome.name, *settings, value, f"{outcome.progress:.0f}", seconds, state.replace("|", "/")]


def best_yaml(config: SweepConfig, base: Mapping[str, Any], best: TrialOutcome, default: TrialOutcome) -> str:
    """Return the best configuration as a YAML file for `jobs.VERB --config`.

    With the same `out`, the verb finds the training of the best trial and skips.

    Args:
        config: the sweep's configuration.
        base: the unchanged configuration of the training.
        best: the best outcome.
        default: the outcome of the unchanged configuration.
    """
    unchanged = "" if default.value is None else f"; unchanged configuration: {default.value:.4f}"
    head = (
        f"# Best of a sweep over {', '.join(config.space)}: {config.metric} {best.value:.4f}{unchanged}.\n"
        f"# python -m jobs.{config.verb} --config THIS_FILE\n"
    )
    return head + yaml.safe_dump(with_values(base, best.values), sort_keys=False, allow_unicode=True)


def json_values(value: Any) -> Any:
    """Return a copy of a nested value with None in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
