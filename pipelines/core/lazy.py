"""Imports at run time: a package's names on first use, and objects that a configuration names by their path."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.core.errors import UserError


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


def import_object(path: str, setting: str) -> Any:
    """Return what `module:attribute` names, such as `my_package.losses:cosine`.

    Args:
        path: the module and the attribute.
        setting: the configuration field that has the path, for messages.

    Raises:
        UserError: the module cannot be imported, or has no such attribute.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{setting} has {path!r}, which cannot be imported ({error}); give it as package.module:name, and put the "
            "package on PYTHONPATH."
        ) from error
