"""KubeRay's files are valid for its CRDs and for the pinned Ray (P10), and follow the rules of the project."""

import copy
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

FILES = {"RayJob": "rayjob", "RayCluster": "raycluster"}


def closed(schema: Any) -> Any:
    """Return a CRD's schema with unknown keys as errors, as in a strict API server."""
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


@pytest.fixture(scope="module", params=sorted(FILES))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def schema(shared: Path, kind: str) -> dict[str, Any]:
    """Return the schema of the kind's spec, in the version that KubeRay stores."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the CRD is 1.4 MB: half a minute without the C loader
    with gzip.open(shared / f"data/kuberay/ray.io_{kind.lower()}s.yaml.gz") as stream:
        crd = yaml.load(stream, loader)
    (version,) = [version for version in crd["spec"]["versions"] if version["storage"]]
    return closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


@pytest.fixture(scope="module")
def document(root: Path, kind: str) -> dict[str, Any]:
    return yaml.safe_load((root / f"cluster/kuberay/{FILES[kind]}.yaml").read_text())


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the Ray cluster's spec of a RayJob or RayCluster."""
    return document["spec"].get("rayClusterSpec", document["spec"])


def containers(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = cluster_of(document)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield from group["template"]["spec"]["containers"]


def errors(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Return the violations of the CRD in a file."""
    violations = Draft202012Validator(schema).iter_errors(document["spec"])
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in violations]


def test_the_file_meets_the_crd(document: dict[str, Any], kind: str, schema: dict[str, Any]) -> None:
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", kind)
    assert errors(document, schema) == []
    broken = copy.deepcopy(document)
    cluster_of(broken)["workerGroupSpecs"][0]["maxReplica"] = 3
    assert "maxReplica" in errors(broken, schema)[0]


def test_it_runs_the_pinned_ray_behind_a_token(document: dict[str, Any], root: Path) -> None:
    pinned = re.search(r"^ray\[.*\]==(\S+)$", (root / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert cluster_of(document)["rayVersion"] == pinned[1]
    assert cluster_of(document)["authOptions"] == {"mode": "token"}


def test_the_head_runs_no_tasks_and_both_groups_scale_from_zero(document: dict[str, Any]) -> None:
    cluster = cluster_of(document)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert all(group["minReplicas"] == 0 < group["maxReplicas"] for group in groups.values())
    limits = {name: group["template"]["spec"]["containers"][0]["resources"]["limits"] for name, group in groups.items()}
    assert "nvidia.com/gpu" in limits["gpu"]
    assert "nvidia.com/gpu" not in limits["decode"]


def test_no_container_runs_as_root_or_holds_a_secret(document: dict[str, Any]) -> None:
    cluster = cluster_of(document)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"]
    for container in containers(document):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        secrets = [item for item in container["env"] if re.search(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY", item["name"])]
        assert secrets
        assert all("secretKeyRef" in item["valueFrom"] and "value" not in item for item in secrets)


def test_the_jobs_entrypoint_is_a_verb_with_known_keys(root: Path) -> None:
    rayjob = yaml.safe_load((root / "cluster/kuberay/rayjob.yaml").read_text())
    words = rayjob["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "jobs.pipeline"]
    config = yaml.safe_load((root / words[words.index("--config") + 1]).read_text())
    variables = {word.removeprefix("--variables.") for word in words if word.startswith("--variables.")}
    assert variables <= set(config["variables"])
    assert rayjob["spec"]["backoffLimit"] > 0 < rayjob["spec"]["activeDeadlineSeconds"]
    assert rayjob["spec"]["shutdownAfterJobFinishes"]
