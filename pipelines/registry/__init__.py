"""Runs and registered models in MLflow, which is the one place that knows which model is which version."""

from typing import TYPE_CHECKING

from pipelines.core.lazy import lazy_names

if TYPE_CHECKING:
    from pipelines.registry.config import ModelReference, RegistryConfig
    from pipelines.registry.registry import Registry, resolve
    from pipelines.registry.runs import PARENT_RUN, flatten
    from pipelines.registry.signature import SERVED_WITH, Kind, requirements

__all__ = [
    "PARENT_RUN", "SERVED_WITH", "Kind", "ModelReference", "Registry", "RegistryConfig", "flatten", "requirements",
    "resolve",
]  # fmt: skip
__getattr__ = lazy_names(
    "pipelines.registry",
    {
        **dict.fromkeys(("ModelReference", "RegistryConfig"), "config"),
        **dict.fromkeys(("Registry", "resolve"), "registry"),
        **dict.fromkeys(("PARENT_RUN", "flatten"), "runs"),
        **dict.fromkeys(("SERVED_WITH", "Kind", "requirements"), "signature"),
    },
)
