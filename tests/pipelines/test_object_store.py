"""Models and local files in an object store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core import storage
from pipelines.core.copies import local_copy, share_model
from pipelines.core.errors import UserError
from pipelines.core.steps import StepFolder, fingerprint
from tests.object_store import BUCKET, s3_server, settings


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket, and a cache of copies of its own."""
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("cache"))
        for name, value in {**settings(endpoint), "XDG_CACHE_HOME": cache}.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}"


def test_a_step_that_writes_local_files_leaves_them_in_the_bucket(bucket: str, root: Path) -> None:
    """Backbones from the bucket, a LION to it: what a pipeline's next step opens by its URI alone."""
    from models.lion import LionForConditionalGeneration
    from pipelines.registry import Registry, RegistryConfig
    from pipelines.sample_world.backbones.compose import TinyLionConfig, tiny_lion

    storage.upload_folder(str(root / "pipelines/sample_world/backbones/weights"), f"{bucket}/backbones")
    config = TinyLionConfig(backbones=f"{bucket}/backbones", visual_input="qformer", out=f"{bucket}/runs")
    made = tiny_lion(config)
    assert made.path.startswith(f"{bucket}/runs/tiny_lion-")
    folder = Registry(RegistryConfig("sqlite://"), "runs").lookup(made.path).folder
    assert not storage.is_remote(folder)
    assert LionForConditionalGeneration.from_pretrained(folder).config.visual_input == "qformer"
    assert tiny_lion(config).skipped


def test_a_folder_is_copied_once_and_again_when_it_changes(bucket: str) -> None:
    for name in ("config.json", "deep/weights.bin"):
        storage.write_atomic(f"{bucket}/model/{name}", b"1")
    first = local_copy(f"{bucket}/model")
    assert (Path(first) / "deep/weights.bin").read_bytes() == b"1"
    assert local_copy(f"{bucket}/model") == first
    assert fingerprint(first) == fingerprint(f"{bucket}/model")
    storage.write_atomic(f"{bucket}/model/config.json", b"22")
    local_copy.__globals__["_copied"].cache_clear()  # another process
    assert local_copy(f"{bucket}/model") != first
    with pytest.raises(UserError, match="does not exist"):
        local_copy(f"{bucket}/nothing")


def test_a_model_that_only_the_driver_has_is_put_beside_the_results(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert share_model(str(tmp_path), StepFolder("train", str(tmp_path / "out"), "h"), "lion") == str(tmp_path)
    remote = share_model(str(tmp_path), StepFolder("train", f"{bucket}/train-1", "h"), "lion")
    assert storage.read_json(storage.join(remote, "config.json")) == {}
    assert fingerprint(local_copy(remote)) == fingerprint(str(tmp_path))
