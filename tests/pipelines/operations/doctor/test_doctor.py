"""The doctor: one test per problem that it must find, and an environment without problems."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.pipeline import prepare
from pipelines.core.errors import UserError
from pipelines.operations.doctor.config import DoctorConfig
from pipelines.operations.doctor.environment import cpu_finding, driver_findings, package_findings
from pipelines.operations.doctor.findings import Finding
from pipelines.operations.doctor.job import job_findings
from pipelines.operations.doctor.nodes import NodeProbe, node_findings, probe_nodes
from pipelines.operations.doctor.run import examine
from pipelines.registry import RegistryConfig

DRIVER = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0"}
HEALTHY = NodeProbe("worker-1", DRIVER, 0.0, None, True, None, 100 * 2**30, 0.4, None)
NODES = [{"CPU": 8.0}]


def problems(findings: Any) -> dict[str, str]:
    """Return the messages of the problems by subject."""
    return {finding.about: finding.message for finding in findings if finding.state == "problem"}


def job(verb: str, values: dict[str, Any], nodes: Any = NODES) -> dict[str, str]:
    """Return the problems of a job."""
    return problems(job_findings(verb, values, prepare, nodes))


@pytest.mark.usefixtures("ray_cluster")
def test_a_good_environment_has_no_problem(tmp_path: Path) -> None:
    findings = list(examine(DoctorConfig(out=str(tmp_path), free_gib=0.01), prepare))
    assert problems(findings) == {}
    assert {"packages", "results", "MLflow", "CPUs", "nodes", "versions", "shared storage", "disks"} <= {
        finding.about for finding in findings
    }
    assert not list(tmp_path.glob(".doctor*"))


@pytest.mark.usefixtures("ray_cluster")
def test_every_node_is_probed(tmp_path: Path) -> None:
    import ray

    (answer,) = probe_nodes(DoctorConfig(out=str(tmp_path)), ray.nodes())
    assert isinstance(answer, NodeProbe)
    assert (answer.sees_mark, answer.wrote, answer.cuda, answer.mlflow) == (True, None, None, None)
    assert answer.versions["ray"] == ray.__version__
    gone = [{**ray.nodes()[0], "NodeID": "ab" * 28}]
    (message,) = probe_nodes(DoctorConfig(out=str(tmp_path), patience=5), gone)
    assert isinstance(message, str)


@pytest.mark.parametrize(
    "changes, about, message",
    [
        ({"versions": {**DRIVER, "ray": "2.59.0"}}, "versions", "worker-1 has ray 2.59.0, this process 2.60.0"),
        ({"gpus": 8.0, "cuda": False}, "GPUs", "counts 8 GPUs on worker-1, but PyTorch sees none"),
        ({"sees_mark": False}, "shared storage", "worker-1 does not see"),
        ({"wrote": "read-only file system"}, "shared storage", "cannot write under runs (read-only file system)"),
        ({"free": 2**30}, "disks", "1.0 GiB free"),
        ({"disk_used": 0.97}, "disks", "97% full"),
        (
            {"mlflow": "connection refused"},
            "MLflow from the nodes",
            "worker-1 cannot reach MLflow (connection refused)",
        ),
    ],
)
def test_a_problem_of_a_node_names_the_node(changes: dict[str, Any], about: str, message: str) -> None:
    answers = [HEALTHY, dataclasses.replace(HEALTHY, **changes)]
    by_subject = problems(node_findings(DoctorConfig(), answers, DRIVER))
    assert list(by_subject) == [about]
    assert message in by_subject[about]
    assert problems(node_findings(DoctorConfig(), [HEALTHY], DRIVER)) == {}


def test_a_node_that_does_not_answer_is_a_problem() -> None:
    by_subject = problems(node_findings(DoctorConfig(), [HEALTHY, "10.0.0.7 did not answer in 60 s."], DRIVER))
    assert by_subject == {"nodes": "10.0.0.7 did not answer in 60 s."}


def test_too_few_cpus_are_a_problem() -> None:
    assert cpu_finding({"CPU": 8.0}).state == "ok"
    assert "local_cpus 8" in cpu_finding({"CPU": 2.0}).message
    assert cpu_finding({}).state == "problem"


def test_packages_are_compared_with_their_pins() -> None:
    findings = list(package_findings("ray[data]==0.1\nno-such-package==1.0\nrich==0.1\n# a comment\n"))
    assert "needs 0.1" in next(finding.message for finding in findings if "ray" in finding.message)
    assert [finding.state for finding in findings] == ["warning", "problem", "problem"]
    assert any("no-such-package 1.0 is not installed" in finding.message for finding in findings)
    (ok,) = package_findings("")
    assert ok == Finding("packages", "ok", "as pinned in requirements.txt")


def test_an_mlflow_or_a_folder_that_cannot_be_used_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = DoctorConfig(
        out=str(tmp_path / "file"), registry=RegistryConfig(tracking_uri="http://127.0.0.1:9")
    )  # fmt: skip
    by_subject = problems(driver_findings(config))
    assert "cannot be written" in by_subject["results"]
    assert "does not answer" in by_subject["MLflow"]


def test_a_training_that_would_wait_forever_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "tagged").mkdir()
    values = {"data": str(tmp_path / "tagged"), "out": str(tmp_path)}
    assert job("train_tag_encoder", values) == {}
    by_subject = job("train_tag_encoder", {**values, "launch": {"workers": 4, "cpus_per_worker": 4}})
    assert "room for 2" in by_subject["train_tag_encoder: plan"]
    gpus = {**values, "launch": {"workers": 4, "gpus_per_worker": 1}}
    assert "room for 2" in job("train_tag_encoder", gpus, [{"CPU": 16.0, "GPU": 2.0}])["train_tag_encoder: plan"]
    assert job("train_tag_encoder", gpus, [{"CPU": 16.0, "GPU": 2.0}] * 2) == {}


def test_a_training_for_gpus_where_there_are_none_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "tagged").mkdir()
    values = {"data": str(tmp_path / "tagged"), "out": str(tmp_path)}
    for changes, field in (
        ({"loop": {"precision": "fp16"}}, "precision fp16"),
        ({"launch": {"gpu_memory": 80}}, "memory"),
    ):
        by_subject = job("train_tag_encoder", {**values, **changes})
        assert f"{field} is for GPUs" in by_subject["train_tag_encoder: plan"]
        assert job("train_tag_encoder", {**values, **changes}, [{"CPU": 16.0, "GPU": 1.0}]) == {}


def test_an_elastic_training_needs_room_for_the_fewest_workers(tmp_path: Path) -> None:
    (tmp_path / "tagged").mkdir()
    values = {"data": str(tmp_path / "tagged"), "out": str(tmp_path)}
    launch = {"workers": 4, "cpus_per_worker": 4}
    assert job("train_tag_encoder", {**values, "launch": {**launch, "min_workers": 2}}) == {}
    assert job("train_tag_encoder", {**values, "launch": {**launch, "min_workers": 3}})


def test_a_model_without_its_weights_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "tagged").mkdir()
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text("{}")
    values = {"data": str(tmp_path / "tagged"), "base": str(tmp_path / "bert"), "out": str(tmp_path)}
    assert "no weights" in job("train_tag_encoder", values)["train_tag_encoder: inputs"]
    (tmp_path / "bert/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    assert "git LFS" in job("train_tag_encoder", values)["train_tag_encoder: inputs"]
    (tmp_path / "bert/model.safetensors").write_bytes(bytes(4096))
    assert job("train_tag_encoder", values) == {}


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_of_another_version_is_a_problem(root: Path) -> None:
    import ray

    program = (
        "import ray\n"
        "ray.__version__ = '2.59.0'\n"
        "from pipelines.core.runtime import RayConfig, ray_session\n"
        f"with ray_session(RayConfig(address={ray.get_runtime_context().gcs_address!r})): pass\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    assert "UserError" in process.stderr
    assert "have different versions" in process.stderr


def test_each_missing_input_and_wrong_field_is_named(tmp_path: Path) -> None:
    values = {"data": str(tmp_path / "no"), "base": "models:/lion-tag-encoder@champion", "out": str(tmp_path)}
    findings = list(job_findings("train_tag_encoder", values, prepare, NODES))
    messages = [finding.message for finding in findings if finding.about == "train_tag_encoder: inputs"]
    assert [message.split(":")[0] for message in messages] == ["data", "base"]
    assert "does not exist" in messages[0]
    assert "is not in the registry" in messages[1]
    assert "Did you mean data?" in job("train_tag_encoder", {"dta": "x"})["train_tag_encoder: configuration"]
    assert "no verb 'trian'" in job("trian", {})["trian: configuration"]


def test_a_pipeline_is_checked_step_by_step(tmp_path: Path) -> None:
    source = {"kind": "folder", "images": "${images}"}
    steps = {
        "tagged": {"verb": "precompute", "config": {"source": source, "tagger": {"kind": "ram", "path": "/no/ram"}}},
        "encoder": {"verb": "train_tag_encoder", "config": {"data": "${tagged}", "launch": {"workers": 99}}},
    }
    by_subject = job("pipeline", {"variables": {"images": str(tmp_path)}, "steps": steps})
    assert set(by_subject) == {"tagged: inputs", "encoder: plan"}
    assert "/no/ram does not exist" in by_subject["tagged: inputs"]
    assert "no steps" in job("pipeline", {})["pipeline"]


def test_a_configuration_without_a_verb_is_refused() -> None:
    with pytest.raises(UserError, match="name the job by --verb"):
        list(examine(DoctorConfig(settings={"data": "x"}), prepare))
    with pytest.raises(UserError, match="does not exist"):
        list(examine(DoctorConfig(verb="precompute", file="/no/such.yaml"), prepare))


def test_the_verb_ends_with_1_if_there_is_a_problem(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.doctor", "--out", str(tmp_path), "--ray.address", "127.0.0.1:1"]
    process = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 1, process.stderr
    (line,) = process.stdout.splitlines()
    result = json.loads(line)
    assert result["problem"] == len(result["problems"]) == 1
    assert "No Ray cluster answers" in result["problems"][0]
    assert "Preflight" in process.stderr
