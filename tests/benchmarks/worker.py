"""One benchmark in a separate process: `python -m tests.benchmarks.worker MODULE WORK [quick]`.

Standard output has one JSON object per figure, as soon as it is measured. All other output goes to standard error.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from tests.benchmarks.figures import Figure, Settings


def main() -> None:
    """Run `measure` of the module."""
    module, work, *rest = sys.argv[1:]
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to descriptor 1, too
    for figure in importlib.import_module(module).measure(Settings(Path(work), quick="quick" in rest)):
        kind = {"figure": figure.as_dict()} if isinstance(figure, Figure) else {"left_out": vars(figure)}
        print(json.dumps(kind), file=output, flush=True)
    output.flush()
    sys.stdout.flush()
    os._exit(0)  # do not wait for Ray, gloo and their threads to end


if __name__ == "__main__":
    main()
