"""A `from_pretrained` folder as an MLflow model that can be served."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping

from pipelines.core import storage
from pipelines.registry.connection import MlflowConnection, environment
from pipelines.registry.signature import Kind, requirements, signature_and_example

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SERVING = os.path.join(_ROOT, "pipelines", "inference", "serving")
_SERVED_PACKAGES = ("models", "pipelines")


def log_model(
    connection: MlflowConnection, name: str, folder: str, run_id: str, kind: Kind, metrics: Mapping[str, float]
) -> str:
    """Log a folder as a pyfunc model of its run and return the model's URI.

    Args:
        connection: to which MLflow.
        name: the model's name in MLflow.
        folder: the local `from_pretrained` folder.
        run_id: the run that trained the model.
        kind: which file of `pipelines.inference.serving` serves it.
        metrics: logged with the model.
    """
    import mlflow

    signature, example = signature_and_example(kind)
    quiet = environment(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
    with connection.fluent(), quiet, _code_copies() as code, mlflow.start_run(run_id=run_id):
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


@contextlib.contextmanager
def _code_copies() -> Iterator[list[str]]:
    """Copy the packages that a served model needs, without the kept weights, and yield their folders.

    Both packages are copied whole: a process that loads the model imports them in place of the checkout's, and a part
    of a package would hide the rest.
    """
    with tempfile.TemporaryDirectory() as folder:
        copies = [os.path.join(folder, name) for name in _SERVED_PACKAGES]
        for copy in copies:
            source = os.path.join(_ROOT, os.path.basename(copy))
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("weights", "__pycache__"))
        yield copies
