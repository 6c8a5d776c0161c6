"""Lazy imports of a package's names: importing one module of the package does not import all the others."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, which imports the module of a name on first use.

    A served model has only a part of the requirements installed. It imports `pipelines.precompute.taggers`; without
    lazy imports, that package would also import the annotation readers and libraries that are not installed there.

    Args:
        package: the package's `__name__`.
        modules: for each public name, the module in the package that defines it.
    """

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return attribute
