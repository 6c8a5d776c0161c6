"""The main job of the sample world with everything in an object store: `python -m tests.object_store_world [DIR]`.

Weights, images, tables, checkpoints, models and MLflow's files lie in a bucket of an S3 server that this starts; only
MLflow's database is a local file (a cluster has a server). One training runs by Ray, the others in the driver.
The second run must find every step done. Ends with a line of JSON; a few minutes on two cores.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipelines import storage
from tests.object_store import BUCKET, s3_server, settings

ROOT = Path(__file__).resolve().parents[1]
TRAININGS = ("tag_encoder", "stage1", "stage2", "stage3")


def command(bucket: str, database: Path) -> list[str]:
    """`make demo`, tiny and in the bucket."""
    mlflow = {"registry.tracking_uri": f"sqlite:///{database}", "registry.artifact_location": f"{bucket}/mlartifacts"}
    changes = {"world.images": 24, "tag_encoder.loop.epochs": 1, "evaluated.inference.launcher": "local"}
    changes |= {"evaluated.inference.batch_size": 8}
    for name in TRAININGS:
        changes |= {f"{name}.loop.batch_size": 4, f"{name}.launch.launcher": "ray" if name == "stage1" else "local"}
    for name in TRAININGS[1:]:
        changes |= {f"{name}.loop.steps": 2}
    for name in (*TRAININGS, "evaluated"):
        changes |= {f"{name}.{field}": value for field, value in mlflow.items()}
    options = [word for name, value in changes.items() for word in ("--set+", f"{name}={value}")]
    return [
        sys.executable, "-m", "jobs.pipeline", "--ray.address", "local", "--ray.local_cpus", "8",
        "--variables.backbones", f"{bucket}/backbones", "--out", f"{bucket}/runs", *options,
    ]  # fmt: skip


def run(words: list[str]) -> dict[str, Any]:
    """The pipeline's JSON line, with the seconds that it took."""
    began = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": round(time.monotonic() - began, 1)}


def main(folder: Path) -> None:
    """Runs it twice and holds what it left against what must be there."""
    with s3_server() as endpoint:
        os.environ.update(settings(endpoint), XDG_CACHE_HOME=str(folder / "cache"))
        bucket = f"s3://{BUCKET}"
        storage.upload_folder(str(ROOT / "pipelines/pretraining/weights"), f"{bucket}/backbones")
        words = command(bucket, folder / "mlflow.db")
        first = run(words)
        results: dict[str, str] = first["results"]
        assert all(path.startswith(f"{bucket}/runs/") for path in results.values())
        for name in TRAININGS:
            assert storage.exists(storage.join(results[name], "model", "model.safetensors")), name
            assert not storage.list_files(storage.join(results[name], "checkpoints")), name
        assert any(name.endswith("model.safetensors") for name in storage.list_files(f"{bucket}/mlartifacts"))
        second = run(words)
        assert second["skipped_steps"] == second["steps"] == len(results)
        left = len(storage.list_files(f"{bucket}/runs"))
    print(json.dumps({"steps": len(results), "files": left, "first": first["seconds"], "second": second["seconds"]}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
