"""The whole main job in an object store: weights, images, tables, checkpoints, models and MLflow's files."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.copies import for_workers, on_this_machine
from pipelines.errors import UserError
from pipelines.steps import StepFolder, fingerprint
from tests.object_store import BUCKET, s3_server, settings

TRAININGS = ("tag_encoder", "stage1", "stage2", "stage3")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket, and a cache of copies of its own."""
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("cache"))
        for name, value in {**settings(endpoint), "XDG_CACHE_HOME": cache}.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}"


def command(bucket: str, database: Path) -> list[str]:
    """`make demo`, tiny: one training by Ray, the others in the driver's process."""
    changes = ["world.images=24", "tag_encoder.loop.epochs=1", "evaluated.inference.launcher=local"]
    for name in TRAININGS:
        changes += [f"{name}.registry.tracking_uri=sqlite:///{database}"]
        changes += [f"{name}.registry.artifact_location={bucket}/mlartifacts", f"{name}.loop.batch_size=4"]
        changes += [f"{name}.launch.launcher={'ray' if name == 'stage1' else 'local'}"]
    for name in TRAININGS[1:]:
        changes += [f"{name}.loop.steps=2"]
    changes += [f"evaluated.registry.tracking_uri=sqlite:///{database}", "evaluated.inference.batch_size=4"]
    options = [word for change in changes for word in ("--set+", change)]
    return [
        sys.executable, "-m", "jobs.pipeline", "--ray.address", "local", "--ray.local_cpus", "4",
        "--variables.backbones", f"{bucket}/backbones", "--out", f"{bucket}/runs", *options,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_main_job_needs_no_disk_that_is_shared(bucket: str, root: Path, tmp_path: Path) -> None:
    storage.upload_folder(str(root / "pipelines/pretraining/weights"), f"{bucket}/backbones")
    words = command(bucket, tmp_path / "mlflow.db")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run(words, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=800)
    said = json.loads(first.stdout.splitlines()[-1])
    assert said["steps"] == 12
    assert all(path.startswith(f"{bucket}/runs/") for path in said["results"].values())
    for name in TRAININGS:
        assert storage.exists(storage.join(said["results"][name], "model", "model.safetensors"))
        assert not storage.list_files(storage.join(said["results"][name], "checkpoints"))
    assert any(name.endswith("model.safetensors") for name in storage.list_files(f"{bucket}/mlartifacts"))
    again = subprocess.run(words, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    assert json.loads(again.stdout.splitlines()[-1])["skipped_steps"] == 12


def test_a_folder_is_copied_once_and_again_when_it_changes(bucket: str) -> None:
    for name in ("config.json", "deep/weights.bin"):
        storage.write_atomic(f"{bucket}/model/{name}", b"1")
    first = on_this_machine(f"{bucket}/model")
    assert (Path(first) / "deep/weights.bin").read_bytes() == b"1"
    assert on_this_machine(f"{bucket}/model") == first
    assert fingerprint(first) == fingerprint(f"{bucket}/model")
    storage.write_atomic(f"{bucket}/model/config.json", b"22")
    on_this_machine.__globals__["_copied"].cache_clear()  # another process
    assert on_this_machine(f"{bucket}/model") != first
    with pytest.raises(UserError, match="does not exist"):
        on_this_machine(f"{bucket}/nothing")


def test_a_model_that_only_the_driver_has_is_put_beside_the_results(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert for_workers(str(tmp_path), StepFolder("train", str(tmp_path / "out"), "h"), "lion") == str(tmp_path)
    remote = for_workers(str(tmp_path), StepFolder("train", f"{bucket}/train-1", "h"), "lion")
    assert storage.read_json(storage.join(remote, "config.json")) == {}
    assert fingerprint(on_this_machine(remote)) == fingerprint(str(tmp_path))
