"""All metrics by name."""

from pipelines.core.errors import UserError
from pipelines.scoring.metrics import captions, pope, rec, vqa
from pipelines.scoring.metrics.metric import Metric

_METRICS: dict[str, Metric] = {}


def register_metric(metric: Metric) -> None:
    """Make a metric available to benchmarks, evaluations and comparisons of this process.

    Raises:
        ValueError: another metric has the name.
    """
    if _METRICS.setdefault(metric.name, metric) is not metric:
        raise ValueError(f"There is a metric {metric.name!r} already; give the new one another name.")


def find_metric(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        UserError: there is none.
    """
    if name not in _METRICS:
        raise UserError(f"There is no metric {name!r}; there are {metric_names()}. Register it with register_metric.")
    return _METRICS[name]


def metric_names() -> list[str]:
    """Return the names of all metrics."""
    return list(_METRICS)


for _metric in (captions.METRIC, vqa.VQA, vqa.AOKVQA_DIRECT, vqa.EXACT_MATCH, rec.METRIC, pope.METRIC):
    register_metric(_metric)
