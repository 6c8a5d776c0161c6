"""The connection to one MLflow: its address, its experiment, and its settings in this process."""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.secrets import holds_credentials
from pipelines.registry.config import RegistryConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Runs here are private. Besides, the telemetry thread changes the environment while requests read it, which makes a
# request fail now and then.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


class MlflowConnection:
    """A connection to the MLflow of a configuration.

    Args:
        config: which MLflow.
        out: the results' root; the default SQLite file is stored there.

    Raises:
        UserError: `out` is an object store and no tracking address is set, or the address holds credentials.
    """

    def __init__(self, config: RegistryConfig, out: str) -> None:
        self.config = config
        self.uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
        self.artifact_location = config.artifact_location
        if holds_credentials(self.uri):
            raise UserError(
                "MLflow's address holds credentials, which logs would show; leave them out of it and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )
        if not self.uri:
            if storage.is_remote(out):
                raise UserError(
                    f"MLflow's SQLite file cannot be stored under {out}, an object store; set "
                    "--registry.tracking_uri to the address of an MLflow server."
                )
            root = storage.absolute(out)
            storage.make_folder(root)
            self.uri = f"sqlite:///{root}/mlflow.db"
            self.artifact_location = self.artifact_location or storage.join(root, "mlartifacts")

    @property
    def client(self) -> "MlflowClient":
        """A client of this MLflow, independent of the process's own MLflow settings."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def check(self) -> None:
        """Request the experiment once, with a short timeout, before anything is computed.

        Raises:
            UserError: MLflow does not answer, or its database cannot be opened.
        """
        from mlflow.exceptions import MlflowException

        try:
            with self.short_timeout():
                self.experiment_id()
        except (MlflowException, OSError) as error:
            raise UserError(
                f"MLflow at {self.uri} does not answer ({first_line(error)}); start it, or correct "
                "--registry.tracking_uri or MLFLOW_TRACKING_URI."
            ) from error

    def experiment_id(self) -> str:
        """Return the id of the configured experiment; create the experiment where it does not exist."""
        from mlflow.exceptions import MlflowException

        client = self.client
        experiment = client.get_experiment_by_name(self.config.experiment)
        if experiment is None:
            try:
                return client.create_experiment(self.config.experiment, artifact_location=self.artifact_location)
            except MlflowException:  # another process may have created it in the meantime
                experiment = client.get_experiment_by_name(self.config.experiment)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    @contextlib.contextmanager
    def fluent(self) -> Iterator[None]:
        """Set MLflow's module-level functions to this MLflow while the context lasts."""
        import mlflow

        # Setting an address also sets the environment variable. The previous address is therefore read from the
        # environment: MLflow itself would return its default, a file in the working directory.
        names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
        with environment(**{name: os.environ.get(name) for name in names}):
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            try:
                yield
            finally:
                mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
                mlflow.set_registry_uri(None)  # type: ignore[arg-type]

    @staticmethod
    def short_timeout() -> contextlib.AbstractContextManager[None]:
        """Return a context in which a request is tried twice at most, for ten seconds each.

        MLflow's own setting retries for minutes, which is right while a training runs and wrong for a first check.
        """
        return environment(MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", MLFLOW_HTTP_REQUEST_TIMEOUT="10")


@contextlib.contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Temporarily set environment variables. `None` values are left unchanged; all are restored at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, 300 characters at most; MLflow appends whole responses."""
    return str(error).strip().split("\n", 1)[0][:300]
