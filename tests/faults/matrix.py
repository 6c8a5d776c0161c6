"""Fault injection: every fault against a real job on three Ray nodes of this machine, and its cost.

    python -m tests.faults.matrix --out DIR [--seed N] [--only NAME …] [--list]

Each fault is injected into a real `python -m jobs.precompute` or `jobs.train_tag_encoder`, at a point that the seed
decides. The result is compared with the result of an undisturbed run. `DIR/faults.md` and `DIR/faults.json` get a row
as soon as a fault is over. The exit code is 1 where rows are lost or doubled, or a promise of the design is broken.
"""

import argparse
import dataclasses
import json
import logging
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.faults.outcomes import Outcome, table

log = logging.getLogger("lion.faults")


def hardware() -> dict[str, Any]:
    """Return the machine and the version of the code."""
    import platform

    import psutil

    from pipelines.core.steps import git_commit, versions

    return {
        "machine": platform.machine(), "cores": os.cpu_count(), "memory GiB": psutil.virtual_memory().total >> 30,
        "commit": git_commit(), "versions": versions(),
    }  # fmt: skip


def write(out: Path, about: dict[str, Any], outcomes: list[Outcome], others: dict[str, str]) -> None:
    """Write `faults.json` and `faults.md` with the outcomes so far."""
    rows = [{**dataclasses.asdict(outcome), "good": outcome.good} for outcome in outcomes]
    (out / "faults.json").write_text(json.dumps({**about, "outcomes": rows, "without result": others}, indent=2) + "\n")
    heading = ", ".join(f"{name} {value}" for name, value in about.items() if name != "versions")
    rest = "".join(f"- {name}: {why}\n" for name, why in others.items())
    (out / "faults.md").write_text(f"{heading}\n\n{table(outcomes)}\n{rest}")


def run(names: list[str], out: Path, seed: int, sizes: Any) -> bool:
    """Inject faults one after another; return whether none did harm."""
    from tests.faults.faults import FAULTS, NotPossible
    from tests.faults.services import ObjectStore
    from tests.faults.testbed import BUCKET, Testbed

    store = ObjectStore(BUCKET)
    about = {"seed": seed, **dataclasses.asdict(sizes), **hardware()}
    outcomes: list[Outcome] = []
    others: dict[str, str] = {}
    broken = False
    testbed = Testbed(Path(tempfile.mkdtemp(prefix="faults-")), seed, sizes, store)
    log.info("seed %d; everything is written under %s", seed, testbed.folder)
    try:
        for name in names:
            begun = time.monotonic()
            try:
                outcomes.append(FAULTS[name](testbed))
                log.info("%s: %.0f s, %s", name, time.monotonic() - begun, outcomes[-1])
            except NotPossible as error:
                others[name] = f"not tried: {error}"
            except Exception:  # so that the remaining faults are still injected
                others[name] = f"**failed**: {traceback.format_exc().strip().splitlines()[-1][:300]}"
                log.exception("%s", name)
                broken = True
            write(out, about, outcomes, others)
    finally:
        testbed.close()
        store.close()
    return not broken and all(outcome.good for outcome in outcomes)


def main() -> None:
    """Run the command line; print the table at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these faults")
    parser.add_argument("--list", action="store_true", help="print the names of the faults")
    parser.add_argument("--images", type=int, default=60, help="number of drawn images")
    parser.add_argument("--steps", type=int, default=40, help="steps of a training")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds for which MLflow or storage is down")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    from tests.faults.faults import FAULTS
    from tests.faults.testbed import Sizes

    if arguments.list:
        for name, function in FAULTS.items():
            print(f"{name:20} {function.__doc__}")
        return
    if unknown := set(arguments.only) - set(FAULTS):
        parser.error(f"there is no fault {sorted(unknown)}; give one or more of {', '.join(FAULTS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"seed {arguments.seed}")
    sizes = Sizes(images=arguments.images, steps=arguments.steps, outage=arguments.outage)
    good = run(arguments.only or list(FAULTS), arguments.out, arguments.seed, sizes)
    print((arguments.out / "faults.md").read_text())
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
