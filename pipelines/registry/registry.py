"""Trainings and models in MLflow: one run per training, found again after a restart, and versions with aliases.

A registered version holds the `from_pretrained` folder itself, inside an MLflow model whose code is a small file of
`pipelines/inference/serving`. `resolve` gives that folder back: an evaluation reads exactly what was saved (P8), and
`mlflow.pyfunc.load_model` and `mlflow models serve` work on the same version.
"""

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pipelines.core import storage
from pipelines.core.copies import cache_folder, local_copy
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.secrets import holds_credentials
from pipelines.registry.signature import Kind, requirements, signature_and_example

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("lion.registry")
# It tells nobody outside; and its thread changes the environment while requests read it, which fails one now and then.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SERVING = os.path.join(_ROOT, "pipelines", "inference", "serving")
_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))$")
_MAX_PARAMETER = 6000  # MLflow's own limit of a parameter's length
_STEP = "lion.step_hash"
PARENT_RUN = "mlflow.parentRunId"
"""MLflow's own tag of a run that lies under another."""


@dataclasses.dataclass(frozen=True)
class RegistryConfig:
    """Which MLflow keeps runs and models."""

    tracking_uri: str | None = None
    """MLflow's address; empty: `MLFLOW_TRACKING_URI` if set, else a SQLite file `mlflow.db` under `out`. SQLite
    serves one machine (or a shared file system); a cluster names a server."""
    artifact_location: str | None = path_field("output", None)
    """Where a new experiment keeps its files; empty: `mlartifacts` under `out` for SQLite, else the server's."""
    experiment: str = "lion"
    """The experiment that the runs belong to."""
    register: bool = True
    """Whether a finished training becomes a version of its model; without, its run and its folder are all."""
    parent_run: str | None = None
    """The MLflow run that a training's run is shown under."""


@dataclasses.dataclass(frozen=True)
class ModelReference:
    """A model that was looked up.

    Attributes:
        folder: the local `from_pretrained` folder.
        name: its name in the registry, or None for a path.
        version: its version in the registry, or None for a path.
        run_id: the MLflow run that trained it, or None for a path.
    """

    folder: str
    name: str | None = None
    version: int | None = None
    run_id: str | None = None

    def __str__(self) -> str:
        return self.folder if self.name is None else f"models:/{self.name}/{self.version}"


class Registry:
    """One MLflow, for runs and for models.

    Args:
        config: which MLflow.
        out: the results' root; the embedded default lies there.

    Raises:
        UserError: `out` is an object store and no tracking address is given, or the address holds credentials.
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
                raise UserError(f"SQLite cannot lie under {out}; name an MLflow server: --registry.tracking_uri.")
            root = storage.absolute(out)
            storage.make_folder(root)
            self.uri = f"sqlite:///{root}/mlflow.db"
            self.artifact_location = self.artifact_location or storage.join(root, "mlartifacts")

    @property
    def client(self) -> "MlflowClient":
        """A client of this MLflow, whatever the process's own settings say."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def check(self) -> None:
        """Ask MLflow for its experiments, once and briefly, before anything is computed.

        Raises:
            UserError: it does not answer, or its database cannot be opened.
        """
        from mlflow.exceptions import MlflowException

        try:
            with _environment(MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", MLFLOW_HTTP_REQUEST_TIMEOUT="10"):
                self._experiment()
        except (MlflowException, OSError) as error:
            raise UserError(
                f"MLflow at {self.uri} does not answer ({_first_line(error)}); start it, or correct "
                "--registry.tracking_uri or MLFLOW_TRACKING_URI."
            ) from error

    def _experiment(self) -> str:
        """Return the experiment's id; it is created where it is new."""
        from mlflow.exceptions import MlflowException

        client = self.client
        found = client.get_experiment_by_name(self.config.experiment)
        if found is None:
            try:
                return client.create_experiment(self.config.experiment, artifact_location=self.artifact_location)
            except MlflowException:  # another process was faster
                found = client.get_experiment_by_name(self.config.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def open_run(
        self,
        name: str,
        step_hash: str,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Return the id of the run of a step: the one it began before a restart, else a new one.

        Args:
            name: the run's name.
            step_hash: the step's identity (`StepFolder.hash`), by which the run is found again.
            parameters: nested configuration; logged flat, with dotted names.
            tags: e.g. the commit and the digests of the inputs.
        """
        client, experiment = self.client, self._experiment()
        found = client.search_runs(
            [experiment], f"tags.`{_STEP}` = '{step_hash}'", max_results=1, order_by=["attributes.start_time ASC"]
        )
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        own = {_STEP: step_hash} | ({PARENT_RUN: self.config.parent_run} if self.config.parent_run else {})
        run_id = client.create_run(experiment, run_name=name, tags={**own, **(tags or {})}).info.run_id
        for key, value in flatten(parameters or {}).items():
            client.log_param(run_id, key, str(value)[:_MAX_PARAMETER])
        return run_id

    def close_run(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """End a run."""
        self.client.set_terminated(run_id, status)

    def abandon_run(self, run_id: str, status: Literal["FAILED", "KILLED"]) -> None:
        """End the run of a training that ended badly; an MLflow that does not answer is a warning then."""
        from mlflow.exceptions import MlflowException

        try:
            with _environment(MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", MLFLOW_HTTP_REQUEST_TIMEOUT="10"):
                self.close_run(run_id, status)
        except (MlflowException, OSError) as error:
            log.warning("MLflow at %s was not told that run %s is %s (%s)", self.uri, run_id, status,
                        _first_line(error))  # fmt: skip

    def register(
        self,
        name: str,
        folder: str,
        run_id: str,
        kind: Kind,
        metrics: Mapping[str, float] | None = None,
        lineage: Mapping[str, str] | None = None,
        alias: str | None = "candidate",
    ) -> int:
        """Return a new version of a model; a step that registered before a crash gets the version it has.

        Args:
            name: the registered model, e.g. `lion-stage1`.
            folder: the local `from_pretrained` folder.
            run_id: the run that trained it.
            kind: which file of `pipelines.inference.serving` serves it.
            metrics: logged with the model.
            lineage: tags of the version: digests of the data, parents' versions.
            alias: moved to this version.
        """
        client = self.client
        existing = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        if existing:
            version = int(existing[0].version)
        else:
            model_uri = self._log_model(name, folder, run_id, kind, metrics or {})
            version = self._create_version(name, model_uri, run_id, lineage or {})
        if alias:
            client.set_registered_model_alias(name, alias, str(version))
        return version

    def _log_model(self, name: str, folder: str, run_id: str, kind: Kind, metrics: Mapping[str, float]) -> str:
        """Log the folder as a pyfunc model of its run and return the model's URI."""
        import mlflow

        signature, example = signature_and_example(kind)
        quiet = _environment(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
        with self._fluent(), quiet, _code() as code, mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name=name,
                python_model=os.path.join(_SERVING, f"{kind}.py"),
                artifacts={"model": storage.absolute(folder)},
                code_paths=code,
                signature=signature,
                input_example=example,
                pip_requirements=requirements(kind),
                metadata={"kind": kind},
            )
            if metrics:
                mlflow.log_metrics(dict(metrics), model_id=info.model_id)
        return info.model_uri

    def _create_version(self, name: str, model_uri: str, run_id: str, lineage: Mapping[str, str]) -> int:
        from mlflow.exceptions import MlflowException

        client = self.client
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        model_id = model_uri.removeprefix("models:/")
        source = client.get_logged_model(model_id).artifact_location
        created = client.create_model_version(name, source, run_id, tags=dict(lineage), model_id=model_id)
        return int(created.version)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Move an alias, e.g. `champion`, to a version."""
        self.client.set_registered_model_alias(name, alias, str(version))

    def lookup(self, reference: str) -> ModelReference:
        """Return the model behind `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a path.

        Raises:
            UserError: the reference is malformed, or nothing is registered or lies there.
        """
        if not reference.startswith("models:"):
            return ModelReference(_local_folder(reference))
        from mlflow.exceptions import MlflowException

        match = _REFERENCE.match(reference)
        if match is None:
            raise UserError(
                f"{reference!r} is not a model's address; write models:/NAME@ALIAS or models:/NAME/VERSION."
            )
        name, alias, version = match.group("name", "alias", "version")
        try:
            found = (
                self.client.get_model_version_by_alias(name, alias)
                if alias
                else self.client.get_model_version(name, version)
            )
            folder = self._fetch(name, str(found.version))
        except MlflowException as error:
            raise UserError(
                f"{reference} is not in the registry at {self.uri} ({_first_line(error)}); "
                "register it by the training step, or give the folder's path."
            ) from error
        return ModelReference(folder, name, int(found.version), found.run_id)

    def _fetch(self, name: str, version: str) -> str:
        """Return the local folder of a version: MLflow's own where it is on this machine, else a copy that is kept."""
        import mlflow
        from mlflow.models import Model

        source = self.client.get_model_version_download_uri(name, version)
        if not storage.is_remote(source) and not source.startswith("mlflow-artifacts:"):
            root = storage.absolute(source)
        else:
            root = os.path.join(
                cache_folder("models"), f"{name}-{version}-{uuid.uuid5(uuid.NAMESPACE_URL, self.uri + source).hex[:12]}"
            )
            if not os.path.isdir(root):
                partial = f"{root}.{uuid.uuid4().hex[:8]}.partial"
                with self._fluent():  # given MLflow's address as an argument, it asks its own default for a version
                    mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=partial)
                with contextlib.suppress(OSError):  # another process of this machine was faster
                    os.rename(partial, root)
        flavor = Model.load(root).flavors["python_function"]
        return os.path.join(root, flavor["artifacts"]["model"]["path"])

    @contextlib.contextmanager
    def _fluent(self) -> Iterator[None]:
        """MLflow's module-level functions, pointed at this MLflow for a moment."""
        import mlflow

        # Setting an address also sets the environment, so that the old one is read from there, not from MLflow, which
        # would answer with its default: a file in the working directory.
        names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
        with _environment(**{name: os.environ.get(name) for name in names}):
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            try:
                yield
            finally:
                mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
                mlflow.set_registry_uri(None)  # type: ignore[arg-type]


def resolve(reference: str, config: RegistryConfig | None = None, out: str = "runs") -> str:
    """Return the local `from_pretrained` folder of `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a path.

    A path may also be a training step's folder; then its `model` folder is meant.

    Raises:
        UserError: nothing is registered or lies there.
    """
    if not reference.startswith("models:"):
        return _local_folder(reference)
    return Registry(config or RegistryConfig(), out).lookup(reference).folder


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names; empty mappings and None are left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def _local_folder(path: str) -> str:
    folder = storage.absolute(path)
    for candidate in (folder, storage.join(folder, "model")):
        if storage.exists(storage.join(candidate, "config.json")):
            return local_copy(candidate)
    raise UserError(
        f"{path} is not a model's folder (it has no config.json); give a folder that save_pretrained wrote."
    )


@contextlib.contextmanager
def _code() -> Iterator[list[str]]:
    """The packages that a served model brings along: all of both, so that they stand in for the checkout's wherever a
    process has loaded the model, but without the kept weights."""
    with tempfile.TemporaryDirectory() as folder:
        copies = [os.path.join(folder, name) for name in ("models", "pipelines")]
        for copy in copies:
            source = os.path.join(_ROOT, os.path.basename(copy))
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("weights", "__pycache__"))
        yield copies


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:300]


@contextlib.contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    """Set variables for a moment; None leaves one as it is."""
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
