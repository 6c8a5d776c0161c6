"""One benchmark in a process of its own: `python -m tests.benchmarks.worker MODULE WORK [quick]`.

Its standard output is for the runner: a JSON object for each figure, as soon as it is there. Whatever else is printed
goes to standard error.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from tests.benchmarks.figures import Figure, Settings


def main() -> None:
    """Runs the module's `measure`."""
    module, work, *rest = sys.argv[1:]
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print, too
    for figure in importlib.import_module(module).measure(Settings(Path(work), quick="quick" in rest)):
        kind = {"figure": figure.as_dict()} if isinstance(figure, Figure) else {"left_out": vars(figure)}
        print(json.dumps(kind), file=told, flush=True)
    told.flush()
    sys.stdout.flush()
    os._exit(0)  # not one second more for the ends of Ray, gloo and their threads


if __name__ == "__main__":
    main()
