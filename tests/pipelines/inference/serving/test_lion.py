"""A registered LION through MLflow alone: in a process that knows nothing of this checkout, and behind HTTP."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.inference.run import PredictConfig, predict
from tests.pipelines.inference.serving.conftest import Served
from tests.ports import free_port

CLEAN = """
import json, sys
import mlflow, pandas as pd
served = mlflow.pyfunc.load_model("models:/lion@champion")
path = sys.argv[1]
tags = [{"tag": "red", "score": 0.9}]
frame = pd.DataFrame([
    {"image": open(path, "rb").read(), "task": "rec", "text": "the red circle", "tags": tags},
    {"image": path, "task": "rec", "text": "the red circle", "tags": tags},
    {"image": path, "task": "caption", "tags": tags},
])
answers = served.predict(frame)
info = mlflow.models.get_model_info("models:/lion@champion")
print(json.dumps({
    "answers": answers["answer"].tolist(),
    "boxes": answers["box"].tolist(),
    "inputs": info.signature.inputs.input_names(),
    "outputs": info.signature.outputs.input_names(),
    "example": served.predict(served.input_example)["answer"].tolist(),
    "ours": sorted({m.__file__ for n, m in sys.modules.items() if n in ("models", "pipelines")}),
}))
"""


def test_a_clean_process_answers_as_predict_does(served: Served, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLEAN, served.picture]
    done = subprocess.run(command, cwd=tmp_path, env=served.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout.splitlines()[-1])
    ours: list[str] = []
    for task, text in (("rec", "the red circle"), ("caption", "")):
        config = PredictConfig(served.model, served.picture, task, text, tags="red: 0.9", out=str(tmp_path))  # type: ignore[arg-type]
        ours += predict(config).lines
    assert output["answers"] == [ours[0], ours[0], ours[1]]
    assert output["inputs"] == ["image", "task", "text", "prompt", "tags"]
    assert output["outputs"] == ["answer", "box"]
    assert len(output["example"]) == 1
    assert all(Path(file).is_relative_to(served.code) for file in output["ours"])
    assert "type hint" not in done.stderr


def test_the_model_is_code_and_safetensors_without_a_pickle(served: Served) -> None:
    suffixes = {path.suffix for path in served.code.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".pth", ".bin"}
    assert (served.code / "code/pipelines/sources/images.py").exists()
    assert not (served.code / "code/pipelines/sample_world/backbones/weights").exists()


@pytest.fixture
def address(served: Served, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` on a free port of loopback."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/lion@champion", "--env-manager",
               "local", "-h", "127.0.0.1", "-p", str(port), "-w", "1"]  # fmt: skip
    # The server starts uvicorn by its name.
    environment = served.environment()
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with open(tmp_path / "server.log", "wb") as sink:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/ping", server, tmp_path / "server.log")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait(ping: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(ping, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def _ask(address: str, row: dict[str, Any]) -> tuple[int, Any]:
    body = json.dumps({"dataframe_records": [row]}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_a_server_answers_and_opens_no_file_for_a_stranger(address: str, served: Served, tmp_path: Path) -> None:
    row = {
        "image": base64.b64encode(Path(served.picture).read_bytes()).decode(),
        "task": "caption",
        "tags": [{"tag": "red", "score": 0.9}],
    }
    status, answer = _ask(address, row)
    assert status == 200
    config = PredictConfig(served.model, served.picture, tags="red: 0.9", out=str(tmp_path))
    assert answer["predictions"] == [{"answer": predict(config).lines[0], "box": None}]
    status, complaint = _ask(address, row | {"image": served.picture})
    assert status >= 400
    assert served.picture not in complaint or "not_an_image" in complaint
    status, complaint = _ask(address, {key: row[key] for key in ("image", "task")})
    assert status >= 400
    assert "Row 0 has no tags" in complaint
