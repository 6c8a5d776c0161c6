"""Every fault against a real job on three Ray nodes of this machine, and what it cost.

    python -m tests.faults.matrix --out DIR [--seed N] [--only NAME …] [--list]

Each fault strikes a real `python -m jobs.precompute` or `jobs.train_tag_encoder` at a point that the seed decides; its
result is compared with an undisturbed run's. `DIR/faults.md` and `DIR/faults.json` have a row for each fault as soon as
it is over. Exit code 1 where something was lost, is there twice, or a promise of the design is broken.
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
    """What it ran on, and which code."""
    import platform

    import psutil

    from pipelines.core.steps import git_commit, versions

    return {
        "machine": platform.machine(), "cores": os.cpu_count(), "memory GiB": psutil.virtual_memory().total >> 30,
        "commit": git_commit(), "versions": versions(),
    }  # fmt: skip


def write(out: Path, about: dict[str, Any], outcomes: list[Outcome], others: dict[str, str]) -> None:
    """Both files, as far as it has come."""
    rows = [{**dataclasses.asdict(one), "good": one.good} for one in outcomes]
    (out / "faults.json").write_text(json.dumps({**about, "outcomes": rows, "without result": others}, indent=2) + "\n")
    said = ", ".join(f"{name} {value}" for name, value in about.items() if name != "versions")
    rest = "".join(f"- {name}: {why}\n" for name, why in others.items())
    (out / "faults.md").write_text(f"{said}\n\n{table(outcomes)}\n{rest}")


def run(names: list[str], out: Path, seed: int, sizes: Any) -> bool:
    """Tries faults one after another; whether all of them did no harm."""
    from tests.faults.place import BUCKET, Place
    from tests.faults.services import ObjectStore
    from tests.faults.strikes import FAULTS, NotHere

    store = ObjectStore(BUCKET)
    about = {"seed": seed, **dataclasses.asdict(sizes), **hardware()}
    outcomes: list[Outcome] = []
    others: dict[str, str] = {}
    broken = False
    place = Place(Path(tempfile.mkdtemp(prefix="faults-")), seed, sizes, store)
    log.info("seed %d; everything is written under %s", seed, place.folder)
    try:
        for name in names:
            begun = time.monotonic()
            try:
                outcomes.append(FAULTS[name](place))
                log.info("%s: %.0f s, %s", name, time.monotonic() - begun, outcomes[-1])
            except NotHere as error:
                others[name] = f"not tried: {error}"
            except Exception:  # the faults after it are tried all the same
                others[name] = f"**failed**: {traceback.format_exc().strip().splitlines()[-1][:300]}"
                log.exception("%s", name)
                broken = True
            write(out, about, outcomes, others)
    finally:
        place.close()
        store.close()
    return not broken and all(one.good for one in outcomes)


def main() -> None:
    """Prints the table at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these faults")
    parser.add_argument("--list", action="store_true", help="prints the faults' names")
    parser.add_argument("--images", type=int, default=60, help="drawn")
    parser.add_argument("--steps", type=int, default=40, help="of a training")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds that MLflow or storage are gone")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    from tests.faults.place import Sizes
    from tests.faults.strikes import FAULTS

    if arguments.list:
        for name, function in FAULTS.items():
            print(f"{name:20} {function.__doc__}")
        return
    if unknown := set(arguments.only) - set(FAULTS):
        parser.error(f"there is no fault {sorted(unknown)}; choose of {', '.join(FAULTS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"seed {arguments.seed}")
    sizes = Sizes(images=arguments.images, steps=arguments.steps, outage=arguments.outage)
    good = run(arguments.only or list(FAULTS), arguments.out, arguments.seed, sizes)
    print((arguments.out / "faults.md").read_text())
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
