"""The search space of a sweep: ranges of fields, and configurations with sampled values."""

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.core.errors import UserError

_KINDS = ("choice", "uniform", "log_uniform", "integer")


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that one field may have.

    Attributes:
        field: dotted name, such as optimizer.learning_rate.
        kind: choice, uniform, log_uniform or integer.
        values: the choices, or the two ends.
    """

    field: str
    kind: str
    values: tuple[Any, ...]

    @property
    def logarithmic(self) -> bool:
        """Whether figures show the range on a logarithmic axis."""
        return self.kind == "log_uniform"

    def to_tune(self, grid: bool) -> Any:
        """Return the range as a search-space object of Ray Tune; `grid`: enumerate the choices, do not sample them."""
        from ray import tune

        if self.kind == "choice":
            return tune.grid_search(list(self.values)) if grid else tune.choice(list(self.values))
        low, high = self.values
        if self.kind == "integer":
            return tune.randint(low, high + 1)  # Tune excludes the upper end
        return tune.loguniform(low, high) if self.logarithmic else tune.uniform(low, high)


def read_space(space: Mapping[str, Mapping[str, Any]], grid: bool) -> list[Range]:
    """Return the ranges of a configuration's `space`.

    Raises:
        UserError: a range is malformed, or is not a choice in a grid search.
    """
    return [_read_range(field, entry, grid) for field, entry in space.items()]


def _read_range(field: str, entry: Mapping[str, Any], grid: bool) -> Range:
    subject = f"space.{field} is {dict(entry) if isinstance(entry, Mapping) else entry!r}"
    if not isinstance(entry, Mapping) or len(entry) != 1 or next(iter(entry)) not in _KINDS:
        raise UserError(f"{subject}; give one of {', '.join(_KINDS)} with a list of values.")
    ((kind, values),) = entry.items()
    if not isinstance(values, list) or not values:
        raise UserError(f"{subject}; give a list of values.")
    if kind == "choice":
        # repr, because 1 == True in Python, and the two are different choices.
        if len({repr(value) for value in values}) < len(values):
            raise UserError(f"{subject}; each choice may occur only once.")
        return Range(field, kind, tuple(values))
    if grid:
        raise UserError(
            f"{subject}, but a grid is made of choices; replace it by choice: [VALUES], or set search to optuna or "
            "random."
        )
    numbers = [_number(value) for value in values]
    if len(numbers) != 2 or None in numbers or not numbers[0] < numbers[1]:  # type: ignore[operator]
        raise UserError(f"{subject}; give two numbers, the lower first.")
    if kind == "log_uniform" and numbers[0] <= 0:  # type: ignore[operator]
        raise UserError(f"{subject}; on a logarithmic scale both ends must be above 0.")
    if kind == "integer" and any(number != int(number) for number in numbers):  # type: ignore[arg-type]
        raise UserError(f"{subject}; give whole numbers.")
    cast = int if kind == "integer" else float
    return Range(field, kind, tuple(cast(number) for number in numbers))  # type: ignore[arg-type]


def _number(value: Any) -> float | None:
    """Return a value as a number, or None; YAML 1.1 reads 1e-4 as text, so text is parsed too."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def combinations(ranges: list[Range]) -> int:
    """Return the number of trials of a grid."""
    return len(list(itertools.product(*(item.values for item in ranges))))


def corners(ranges: list[Range]) -> Iterator[dict[str, Any]]:
    """Yield sets of values, by field, in which each end and each choice occurs at least once."""
    for index in range(max(len(item.values) for item in ranges)):
        yield {item.field: item.values[index % len(item.values)] for item in ranges}


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a training's configuration, as plain values, with `values` set by dotted field."""
    changed = copy.deepcopy(dict(config))
    for field, value in values.items():
        *groups, name = field.split(".")
        target = changed
        for group in groups:
            target = target.setdefault(group, {})
        target[name] = value
    return changed


def value_of(settings: Any, field: str) -> Any:
    """Return the value of a dotted field in a typed configuration; None if a mapping has no such key."""
    for name in field.split("."):
        settings = settings.get(name) if isinstance(settings, Mapping) else getattr(settings, name)
    return settings


def format_value(value: Any) -> str:
    """Return a value as text for tables, figures and log lines: floats with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
