"""Packages whose names are imported when they are first used, so that one module does not bring its neighbors along."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that imports each name's module on first use.

    A served model installs only what it needs; it reads `pipelines.precompute.taggers`, whose package would otherwise
    import the readers of annotation files and their libraries.

    Args:
        package: the package's `__name__`.
        modules: name → the module inside the package that defines it.
    """

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return attribute
