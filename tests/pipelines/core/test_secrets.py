"""Credentials in a configuration are refused before they are written anywhere (P12)."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.secrets import holds_credentials
from pipelines.registry import Registry, RegistryConfig


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:secret@bucket/images",
        "https://lion:hunter2@mlflow.example",
        "https://ghp_abc@github.example/weights.bin",
        "postgresql://mlflow:hunter2@db/mlflow",
        "https://bucket.example/a.jpg?X-Amz-Credential=A&X-Amz-Signature=b",
        "s3://bucket/a?secret_key=b",
    ],
)
def test_an_address_with_credentials_is_recognized(uri: str) -> None:
    assert holds_credentials(uri)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b/c", "gs://anonymous@bucket/a", "models:/lion@champion", "sqlite:////runs/mlflow.db",
        "https://mlflow.example:5000", "s3://bucket/a?region=us-east-1", "a token: see https://example.org/x", "",
    ],
)  # fmt: skip
def test_an_address_without_them_passes(text: str) -> None:
    assert not holds_credentials(text)


def test_a_verb_refuses_them_and_does_not_repeat_them(root: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "jobs.precompute", "--source.images", "s3://AKIA:hunter2@bucket/images", "--source.kind",
        "folder", "--tagger.kind", "table", "--tagger.path", "tags.parquet", "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert "source.images holds credentials" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())


def test_mlflows_address_in_the_environment_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://lion:hunter2@mlflow.example")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        Registry(RegistryConfig(), "s3://lion/runs")
    assert "hunter2" not in str(refused.value)
