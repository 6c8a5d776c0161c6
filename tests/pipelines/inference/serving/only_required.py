"""Run as a script: load a served model where only the distributions that its requirements cover can be imported.

    python only_required.py FOLDER INPUT

FOLDER is the model as MLflow keeps it, INPUT a JSON list of rows. The last line of the output is the answers in JSON.
What `pip install -r FOLDER/requirements.txt` brings along is computed from the metadata of the distributions that are
installed here, so that no environment has to be built.
"""

import importlib.machinery
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(lines: Iterable[str]) -> set[str]:
    """Return the names of the distributions that requirements install, with all that they depend on."""
    pending = [Requirement(line) for line in lines]
    visited: set[tuple[str, frozenset[str]]] = set()
    while pending:
        requirement = pending.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in visited:
            continue
        try:
            dependencies = importlib.metadata.requires(requirement.name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform, or not needed by anything here
            continue
        visited.add(key)
        for dependency in map(Requirement, dependencies):
            extras = requirement.extras or {""}
            if dependency.marker is None or any(dependency.marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(dependency)
    return {name for name, _ in visited}


class Installed(importlib.machinery.PathFinder):
    """Python's own finder, to which a top-level module of any other distribution does not exist."""

    allowed: set[str] = set()
    owners: dict[str, set[str]] = {}

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        """Return the spec that Python would find, or None for what the requirements do not bring along."""
        owners = cls.owners.get(fullname)
        if owners and not owners & cls.allowed:
            return None
        return super().find_spec(fullname, path, target)


def main(folder: str, rows: str) -> None:
    """Hide all other distributions, load the model and print what it answers."""
    Installed.allowed = closure(Path(folder, "requirements.txt").read_text().split())
    Installed.owners = {
        module: {canonicalize_name(name) for name in names}
        for module, names in importlib.metadata.packages_distributions().items()
    }
    hidden = {module for module, names in Installed.owners.items() if not names & Installed.allowed}
    for module in hidden & sys.modules.keys():
        del sys.modules[module]
    sys.meta_path = [Installed if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]

    import mlflow
    import pandas as pd

    answers = mlflow.pyfunc.load_model(folder).predict(pd.DataFrame(json.loads(rows)))
    if isinstance(answers, pd.DataFrame):
        answers = answers.to_dict("records")
    print(json.dumps({"hidden": sorted(hidden), "answers": answers}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
