"""All benchmarks of speed and memory, as ratios of two variants: `python -m tests.benchmarks`.

    python -m tests.benchmarks [--only NAME …] [--out DIR] [--quick]           make bench
    python -m tests.benchmarks --check [--table DIR/table.json]                make bench-check

It writes `table.md`, `table.json` and the benchmarks' logs to DIR. With `--check`, the exit code is 1 if a ratio is
below its floor (floors.yaml), and a message names the figure.
"""

import argparse
import signal
import sys
from pathlib import Path

from tests.benchmarks import table
from tests.benchmarks.runner import chosen, facts, run

BENCHMARKS = {
    name: f"tests.benchmarks.{name}"
    for name in (
        "decoding",
        "precompute_rate",
        "ram_speed",
        "training_overhead",
        "training_data",
        "zero_stages",
        "checkpointing",
        "lion_speed",
        "evaluation_batches",
        "growth",
        "instructions_growth",
        "convert_memory",
    )
}


def main(arguments: list[str] | None = None, modules: dict[str, str] = BENCHMARKS) -> int:
    """Run the selected benchmarks; return 1 if one failed or, with --check, a figure is below its floor."""
    parser = argparse.ArgumentParser(
        "tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(modules)}")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the table (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="run fewer and smaller rounds")
    parser.add_argument("--check", action="store_true", help="fail if a ratio is below its floor")
    parser.add_argument("--table", type=Path, help="check this table.json instead of measuring")
    parser.add_argument("--floors", type=Path, default=table.FLOORS, help="the floors (%(default)s)")
    options = parser.parse_args(arguments)
    floors = table.read_floors(options.floors)
    if options.table:
        outcomes = table.read(options.table)
    else:
        where = facts()
        outcomes = run(
            chosen(options.only, modules),
            options.out / "logs",
            options.quick,
            lambda line: print(line, file=sys.stderr, flush=True),
            lambda so_far: table.write(options.out, where, so_far, floors),
        )
        print((options.out / "table.md").read_text(encoding="utf-8"))
    messages = table.failures(outcomes, floors) if options.check else []
    print("\n".join(messages), file=sys.stderr)
    if options.check and not messages:
        print(f"All {sum(len(outcome.figures) for outcome in outcomes)} figures reach their floors.")
    return 1 if messages or any(outcome.failure for outcome in outcomes) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the running benchmark
    raise SystemExit(main())
