"""What varies in a sweep, and a training's configuration with values for it."""

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.core.errors import UserError

_KINDS = ("choice", "uniform", "log_uniform", "integer")


@dataclasses.dataclass(frozen=True)
class Range:
    """The values of one field.

    Attributes:
        field: dotted, such as optimizer.learning_rate.
        kind: choice, uniform, log_uniform or integer.
        values: the choices, or the two ends.
    """

    field: str
    kind: str
    values: tuple[Any, ...]

    @property
    def logarithmic(self) -> bool:
        """Whether its axis is."""
        return self.kind == "log_uniform"

    def tune(self, grid: bool) -> Any:
        """Ray Tune's own object for it."""
        from ray import tune

        if self.kind == "choice":
            return tune.grid_search(list(self.values)) if grid else tune.choice(list(self.values))
        low, high = self.values
        if self.kind == "integer":
            return tune.randint(low, high + 1)
        return tune.loguniform(low, high) if self.logarithmic else tune.uniform(low, high)


def read_space(space: Mapping[str, Mapping[str, Any]], grid: bool) -> list[Range]:
    """Return the ranges of a configuration's `space`.

    Raises:
        UserError: a range is malformed, or cannot be laid in a grid.
    """
    return [_read(field, found, grid) for field, found in space.items()]


def _read(field: str, found: Mapping[str, Any], grid: bool) -> Range:
    said = f"space.{field} is {dict(found) if isinstance(found, Mapping) else found!r}"
    if not isinstance(found, Mapping) or len(found) != 1 or next(iter(found)) not in _KINDS:
        raise UserError(f"{said}; give one of {', '.join(_KINDS)} with a list of values.")
    ((kind, values),) = found.items()
    if not isinstance(values, list) or not values:
        raise UserError(f"{said}; give a list of values.")
    if kind == "choice":
        if len({repr(value) for value in values}) < len(values):
            raise UserError(f"{said}; each choice may stand there once.")
        return Range(field, kind, tuple(values))
    if grid:
        raise UserError(f"{said}, and a grid is made of choices; name the values, or search by optuna or random.")
    numbers = [_number(value) for value in values]
    if len(numbers) != 2 or None in numbers or not numbers[0] < numbers[1]:  # type: ignore[operator]
        raise UserError(f"{said}; give two numbers, the lower first.")
    if kind == "log_uniform" and numbers[0] <= 0:  # type: ignore[operator]
        raise UserError(f"{said}; on a logarithmic scale both ends must be above 0.")
    if kind == "integer" and any(number != int(number) for number in numbers):  # type: ignore[arg-type]
        raise UserError(f"{said}; give whole numbers.")
    cast = int if kind == "integer" else float
    return Range(field, kind, tuple(cast(number) for number in numbers))  # type: ignore[arg-type]


def _number(value: Any) -> float | None:
    """Return a number, also as YAML 1.1 leaves 1e-4: a text."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def combinations(ranges: list[Range]) -> int:
    """How many trials a grid has."""
    return len(list(itertools.product(*(found.values for found in ranges))))


def corners(ranges: list[Range]) -> Iterator[dict[str, Any]]:
    """Set of values in which each end and each choice occurs at least once."""
    for place in range(max(len(found.values) for found in ranges)):
        yield {found.field: found.values[place % len(found.values)] for found in ranges}


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training's configuration with values by dotted field; the given one stays as it is."""
    changed = copy.deepcopy(dict(config))
    for field, value in values.items():
        *groups, name = field.split(".")
        place = changed
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return changed


def value_of(settings: Any, field: str) -> Any:
    """What a typed configuration has at a dotted field; None where a mapping lacks it."""
    for name in field.split("."):
        settings = settings.get(name) if isinstance(settings, Mapping) else getattr(settings, name)
    return settings
