"""Rebuild ``docs/parity.md``: ``python -m tests.parity_table``."""

import platform
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

# Model, case, attention, quantity, largest difference, tolerance, the tensor that differs most.
Row = tuple[str, str, str, str, float, float, str]


def lion_rows() -> list[Row]:
    """Return the rows of LION, one per quantity of each case and attention implementation."""
    from tests.models.lion.golden import ATTENTION, TOLERANCE, compare, golden_root, lion_cases

    rows: list[Row] = []
    for case in lion_cases():
        for attention in ATTENTION:
            result = compare(case, attention)
            rows += [
                (
                    "LION",
                    str(case.relative_to(golden_root())),
                    attention,
                    quantity,
                    worst,
                    TOLERANCE[quantity],
                    result.where[quantity],
                )
                for quantity, worst in result.worst.items()
            ]
    return rows


def ram_rows() -> list[Row]:
    """Return the rows of RAM, over all cases."""
    from tests.models.ram.parity import ram_rows as rows

    return rows()


# One function per model with reference tensors.
SOURCES: list[Callable[[], list[Row]]] = [lion_rows, ram_rows]


def table(rows: list[Row]) -> str:
    """Return the page in Markdown."""
    lines = [
        "# Parity with the released code",
        "",
        "Largest difference per quantity from tensors of the released code (float32, CPU). Gradients: in units of",
        "max(norm, 1e-4 × the largest norm). Ids: 0 if the generated ids are equal up to the end of the answer, for",
        "beams 1 and 5. Tags: number of images whose tags differ. `python -m tests.parity_table` writes this page; the",
        "same comparisons run as tests (`pytest -k parity`).",
        "",
        f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}.",
        "",
        "| model | case | attention | quantity | worst | tolerance | at |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, case, attention, quantity, worst, tolerance, where in rows:
        difference = "0" if worst == 0 else f"{worst:.1e}"
        lines.append(f"| {model} | {case} | {attention} | {quantity} | {difference} | {tolerance:g} | `{where}` |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare all models and write the page."""
    rows = [row for source in SOURCES for row in source()]
    if not rows:
        raise SystemExit("There are no reference tensors; set LION_GOLDEN to their folder.")
    path = Path(__file__).resolve().parents[1] / "docs" / "parity.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(table(rows), encoding="utf-8")
    print(f"{len(rows)} rows in {path}")


if __name__ == "__main__":
    main()
