"""The cluster files are valid for KubeRay's CRDs and for the pinned Ray (P10)."""

import copy
import gzip
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator


def closed(schema: Any) -> Any:
    """A CRD's schema in which an unknown key is an error, as it is for a strict API server."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.fixture(scope="module")
def schema(shared: Path) -> dict[str, Any]:
    """The schema of a RayJob's spec, of the version that KubeRay stores."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the CRD is 1.4 MB: half a minute without the C loader
    with gzip.open(shared / "data/kuberay/ray.io_rayjobs.yaml.gz") as stream:
        crd = yaml.load(stream, loader)
    (version,) = [version for version in crd["spec"]["versions"] if version["storage"]]
    return closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


def errors(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """What a RayJob has that its CRD does not allow."""
    found = Draft202012Validator(schema).iter_errors(document["spec"])
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


@pytest.fixture(scope="module")
def rayjob(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "cluster/kuberay/rayjob.yaml").read_text())


def test_the_rayjob_meets_the_crd(rayjob: dict[str, Any], schema: dict[str, Any]) -> None:
    assert rayjob["apiVersion"] == "ray.io/v1"
    assert errors(rayjob, schema) == []


def test_a_misspelt_key_would_be_found(rayjob: dict[str, Any], schema: dict[str, Any]) -> None:
    broken = copy.deepcopy(rayjob)
    broken["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    assert "maxReplica" in errors(broken, schema)[0]


def test_the_cluster_runs_the_pinned_ray(rayjob: dict[str, Any], root: Path) -> None:
    pinned = re.search(r"^ray\[.*\]==(\S+)$", (root / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_no_secret_stands_in_a_cluster_file(root: Path) -> None:
    for path in (root / "cluster").rglob("*.y*ml"):
        assert not re.search(r"(?i)(secret_access_key|password|token)\s*:\s*\S*[A-Za-z0-9]{16,}", path.read_text())


def test_the_entrypoint_is_a_verb_with_known_keys(rayjob: dict[str, Any], root: Path) -> None:
    words = rayjob["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "jobs.pipeline"]
    config = yaml.safe_load((root / words[words.index("--config") + 1]).read_text())
    given = {word.removeprefix("--variables.") for word in words if word.startswith("--variables.")}
    assert given <= set(config["variables"])
