"""Files of the launcher, the container and MLflow: valid by their schemas, and consistent with each other."""

import copy
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

LAUNCHER = ("aws", "gcp")


def errors(document: dict[str, Any]) -> list[str]:
    """Return the violations of the pinned Ray's schema."""
    schema = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text())
    violations = Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in violations]


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_the_launchers_file_is_valid_for_the_pinned_ray(root: Path, cloud: str) -> None:
    from ray.autoscaler._private.util import validate_config

    document = yaml.safe_load((root / f"cluster/launcher/{cloud}.yaml").read_text())
    assert errors(document) == []
    validate_config(copy.deepcopy(document))  # the check of `ray up`
    assert errors({**document, "max_worker": 3})
    types = document["available_node_types"]
    assert types[document["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert sum(kind["max_workers"] for name, kind in types.items() if name != "head") <= document["max_workers"]
    assert "RAY_AUTH_MODE=token" in " ".join(document["docker"]["run_options"])
    assert "--dashboard-host=127.0.0.1" in " ".join(document["head_start_ray_commands"])


def test_no_secret_stands_in_a_cluster_file(root: Path) -> None:
    paths = [path for path in (root / "cluster").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(paths) > 8
    for path in paths:
        text = path.read_text()
        assert not re.search(r"(?i)(secret_access_key|password|token)\s*[:=]\s*[A-Za-z0-9+/]{16,}", text), path
        assert not re.search(r"://[^/\s\"']+:[^/\s\"']+@", text), path


def test_the_image_is_pinned_and_does_not_run_as_root(root: Path) -> None:
    lines = (root / "cluster/Containerfile").read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("FROM")]
    assert re.search(r"python:3\.11\.\d+-", base)
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users[-1:] == ["1000:1000"]
    for line in (line for line in lines if line.startswith("COPY")):
        *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
        assert all((root / source).exists() for source in sources), line
    pins = (root / "cluster/mlflow/requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins if not pin.startswith("#"))


def test_mlflow_requires_a_password_and_reads_its_secrets_by_reference(root: Path) -> None:
    manifests = list(yaml.safe_load_all((root / "cluster/mlflow/kubernetes.yaml").read_text()))
    (server,) = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    (container,) = server["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((root / "cluster/mlflow/compose.yaml").read_text())
    for arguments in (container["args"], compose["services"]["mlflow"]["command"]):
        assert "--app-name=basic-auth" in arguments
        assert "--backend-store-uri=postgresql+psycopg2:///mlflow" in arguments
        assert any(re.match(r"--artifacts-destination=(s3://|\$\{MLFLOW_BUCKET)", word) for word in arguments)
    values = {variable["name"]: variable for variable in container["env"]}
    for name in ("PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"):
        assert values[name]["valueFrom"]["secretKeyRef"]["name"] == "lion-mlflow"
        assert compose["services"]["mlflow"]["environment"][name].startswith("${")
    assert compose["services"]["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]


def test_every_selector_matches_its_pods(root: Path) -> None:
    manifests = list(yaml.safe_load_all((root / "cluster/mlflow/kubernetes.yaml").read_text()))
    specs = [(manifest["kind"], manifest["metadata"]["name"], manifest["spec"]) for manifest in manifests]
    pods = {name: spec["template"] for _, name, spec in specs if "template" in spec}
    labels = [template["metadata"]["labels"] for template in pods.values()]
    for kind, name, spec in specs:
        if kind == "Service":
            assert spec["selector"] in labels
        elif name in pods and "selector" in spec:
            assert spec["selector"]["matchLabels"] == pods[name]["metadata"]["labels"]
    for template in pods.values():
        assert template["spec"]["securityContext"]["runAsNonRoot"]
