"""The demo page on loopback, asked by gradio's own client."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.errors import UserError
from pipelines.prediction.page import DemoPageConfig, Oracle, start_page
from pipelines.prediction.run import PredictConfig, predict
from tests.pipelines.prediction.conftest import Lions


@pytest.fixture(scope="module")
def config(lions: Lions, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> DemoPageConfig:
    models = {"static": lions.tagless, "dynamic": lions.dynamic}
    out = str(tmp_path_factory.mktemp("page"))
    return DemoPageConfig(models, lions.tagger, str(pictures / "a"), port=0, out=out)


@pytest.fixture(scope="module")
def address(config: DemoPageConfig) -> Iterator[str]:
    page, address = start_page(config)
    assert page.server_name == "127.0.0.1"
    yield address
    page.close(verbose=False)


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    from gradio_client import Client

    return Client(address, verbose=False)


def test_tags_and_answers_of_both_models(client: Any, config: DemoPageConfig, lions: Lions, pictures: Path) -> None:
    from gradio_client import handle_file

    file = pictures / "a/one.png"
    label, written = client.predict(handle_file(str(file)), api_name="/tags")
    shown = {entry["label"]: entry["confidence"] for entry in label["confidences"]}
    assert list(shown.values()) == sorted(shown.values(), reverse=True)
    tags = "red: 0.9, circle: 0.8"
    static, _, dynamic, drawn = client.predict(handle_file(str(file)), "Object", "the circle", tags, api_name="/ask")
    ours = PredictConfig("", str(file), "rec", "the circle", tags=tags, out=config.out)
    assert [static] == predict(replace(ours, model=lions.tagless)).lines
    assert [dynamic] == predict(replace(ours, model=lions.dynamic)).lines
    assert Image.open(drawn).size == (360, 240)
    assert isinstance(written, str)


def test_mistakes_are_said_on_the_page(client: Any, pictures: Path) -> None:
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    file = handle_file(str(pictures / "a/one.png"))
    with pytest.raises(AppError, match="Choose or upload an image"):
        client.predict(None, "Caption", "", "", api_name="/ask")
    with pytest.raises(AppError, match="Write a question"):
        client.predict(file, "Answer", " ", "", api_name="/ask")
    with pytest.raises(AppError, match="is no tag"):
        client.predict(file, "Caption", "", "red: much", api_name="/ask")


def test_a_file_that_is_no_picture_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(UserError, match="cannot be read: not_an_image"):
        Oracle({}, None).ask(str(tmp_path / "x.png"), "Caption", "", "")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"host": "0.0.0.0"}, "give a --token"),
        ({"models": {}}, "Name the models"),
        ({"models": {"<b>": "x"}}, "is no name for the page"),
        ({"models": {"a": "nowhere"}}, "not a model's folder"),
        ({"examples": "nowhere.png"}, "no file of this machine"),
    ],
)
def test_what_cannot_be_served_is_said_first(config: DemoPageConfig, change: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        start_page(replace(config, **change))  # type: ignore[arg-type]


def test_a_taken_port_is_said(config: DemoPageConfig, lions: Lions) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = replace(config, port=other.getsockname()[1], models={"static": lions.tagless}, tagger=None)
        with pytest.raises(UserError, match="give another --port"):
            start_page(taken)
