"""The configuration of the model registry, and the reference to a model that was looked up in it."""

import dataclasses

from pipelines.core.paths import path_field


@dataclasses.dataclass(frozen=True)
class RegistryConfig:
    """The MLflow instance that keeps runs and models."""

    tracking_uri: str | None = None
    """Address of MLflow, for example `http://mlflow:5000`. Empty: `MLFLOW_TRACKING_URI` if it is set, else a SQLite
    file `mlflow.db` under `out`. SQLite serves one machine (or a shared file system); a cluster needs a server."""
    artifact_location: str | None = path_field("output", None)
    """Folder or URI where a new experiment stores its files. Empty: `mlartifacts` under `out` with SQLite, else the
    server's default."""
    experiment: str = "lion"
    """Name of the MLflow experiment that the runs belong to."""
    register: bool = True
    """Whether a finished training becomes a new version of its registered model. `false` keeps only the run and the
    result's folder."""
    parent_run: str | None = None
    """Id of an MLflow run. The training's run is shown under it."""


@dataclasses.dataclass(frozen=True)
class ModelReference:
    """A model that was looked up.

    Attributes:
        folder: the local `from_pretrained` folder.
        name: its name in the registry; None for a path.
        version: its version in the registry; None for a path.
        run_id: the MLflow run that trained it; None for a path.
    """

    folder: str
    name: str | None = None
    version: int | None = None
    run_id: str | None = None

    def __str__(self) -> str:
        return self.folder if self.name is None else f"models:/{self.name}/{self.version}"
