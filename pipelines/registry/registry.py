"""Registered models in MLflow: versions with aliases, and the folder behind a reference.

A registered version holds the `from_pretrained` folder itself, inside an MLflow model whose code is a small file of
`pipelines/inference/serving`. `resolve` returns that folder: an evaluation reads exactly what was saved (P8), and
`mlflow.pyfunc.load_model` and `mlflow models serve` work with the same version.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Mapping

from pipelines.core import storage
from pipelines.core.copies import cache_folder, local_copy
from pipelines.core.errors import UserError
from pipelines.registry.config import ModelReference, RegistryConfig
from pipelines.registry.connection import first_line
from pipelines.registry.packaging import log_model
from pipelines.registry.runs import Runs
from pipelines.registry.signature import Kind

_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))$")


class Registry(Runs):
    """One MLflow with its runs and its registered models.

    Args:
        config: which MLflow.
        out: the results' root; the default SQLite file is stored there.

    Raises:
        UserError: `out` is an object store and no tracking address is set, or the address holds credentials.
    """

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
        """Register a model and return its version; a step that registered before a crash gets the version it has.

        Args:
            name: the registered model, for example `lion-stage1`.
            folder: the local `from_pretrained` folder.
            run_id: the run that trained it.
            kind: which file of `pipelines.inference.serving` serves it.
            metrics: logged with the model.
            lineage: tags of the version: digests of the data, versions of the parents.
            alias: moved to this version; None moves none.
        """
        client = self.client
        existing = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        if existing:
            version = int(existing[0].version)
        else:
            model_uri = log_model(self, name, folder, run_id, kind, metrics or {})
            version = self._create_version(name, model_uri, run_id, lineage or {})
        if alias:
            self.set_alias(name, alias, version)
        return version

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
        """Move an alias, for example `champion`, to a version."""
        self.client.set_registered_model_alias(name, alias, str(version))

    def lookup(self, reference: str) -> ModelReference:
        """Return the model behind `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a path.

        Raises:
            UserError: the reference is malformed, no such version is registered, or the path holds no model.
        """
        if not reference.startswith("models:"):
            return ModelReference(_local_folder(reference))
        from mlflow.exceptions import MlflowException

        match = _REFERENCE.match(reference)
        if match is None:
            raise UserError(
                f"{reference!r} is not a model's address; write models:/NAME@ALIAS or models:/NAME/VERSION."
            )
        name, alias, number = match.group("name", "alias", "version")
        try:
            version = (
                self.client.get_model_version_by_alias(name, alias)
                if alias
                else self.client.get_model_version(name, number)
            )
            folder = self._fetch(name, str(version.version))
        except MlflowException as error:
            raise UserError(
                f"{reference} is not in the registry at {self.uri} ({first_line(error)}); "
                "register it by the training step, or give the folder's path."
            ) from error
        return ModelReference(folder, name, int(version.version), version.run_id)

    def _fetch(self, name: str, version: str) -> str:
        """Return a version's local folder: MLflow's own where it is on this machine, else a copy kept in the cache."""
        import mlflow
        from mlflow.models import Model

        source = self.client.get_model_version_download_uri(name, version)
        if not storage.is_remote(source) and not source.startswith("mlflow-artifacts:"):
            root = storage.absolute(source)
        else:
            # Another MLflow may have a version of the same name, so that its address is a part of the folder's name.
            address = uuid.uuid5(uuid.NAMESPACE_URL, self.uri + source).hex[:12]
            root = os.path.join(cache_folder("models"), f"{name}-{version}-{address}")
            if not os.path.isdir(root):
                partial = f"{root}.{uuid.uuid4().hex[:8]}.partial"
                with self.fluent():  # the `tracking_uri` argument alone would look the version up in MLflow's default
                    mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=partial)
                with contextlib.suppress(OSError):  # another process of this machine was faster
                    os.rename(partial, root)
        flavor = Model.load(root).flavors["python_function"]
        return os.path.join(root, flavor["artifacts"]["model"]["path"])


def resolve(reference: str, config: RegistryConfig | None = None, out: str = "runs") -> str:
    """Return the local `from_pretrained` folder of `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a path.

    A path may also be a training step's folder; then its `model` folder is returned.

    Raises:
        UserError: no such version is registered, or the path holds no model.
    """
    if not reference.startswith("models:"):
        return _local_folder(reference)
    return Registry(config or RegistryConfig(), out).lookup(reference).folder


def _local_folder(path: str) -> str:
    folder = storage.absolute(path)
    for candidate in (folder, storage.join(folder, "model")):
        if storage.exists(storage.join(candidate, "config.json")):
            return local_copy(candidate)
    raise UserError(
        f"{path} is not a model's folder (it has no config.json); give a folder that save_pretrained wrote."
    )
