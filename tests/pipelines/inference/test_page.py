"""The demo page on loopback, called by gradio's client."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.inference.demo import DemoModels, exact_tags, shown_tags
from pipelines.inference.page import DemoPageConfig, start_page
from pipelines.inference.predictor import LocalInference, Predictor, TagReading, load_tagger
from pipelines.inference.run import PredictConfig, predict
from pipelines.registry import ModelReference
from tests.pipelines.inference.conftest import Lions


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


def test_the_page_shows_the_tags_that_a_model_reads(lions: Lions) -> None:
    """Each model applies its rule to the exact confidences."""
    thresholds = {"red": 0.9, "circle": 0.2, "blue": 0.5}
    tags = [("red", 0.9), ("square", float(np.float32(0.504))), ("circle", float(np.float32(0.21)))]
    model = ModelReference(f"{lions.dynamic}/model")
    own = Predictor(model, None, LocalInference(), thresholds=thresholds)
    assert DemoModels({"dynamic": own}, None).read_tags(tags) == tags[1:]
    number = Predictor(model, None, LocalInference(), TagReading(threshold=0.5))
    models = DemoModels({"own": own, "number": number}, None)
    assert models.read_tags(tags) == tags
    assert models.rules_in_words == "above its own threshold or above 0.5"
    assert own.reads(exact_tags(shown_tags(tags), tags, tags)) == [False, True, True]


def test_mistakes_are_shown_on_the_page(client: Any, pictures: Path) -> None:
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    file = handle_file(str(pictures / "a/one.png"))
    with pytest.raises(AppError, match="Choose or upload an image"):
        client.predict(None, "Caption", "", "", api_name="/ask")
    with pytest.raises(AppError, match="Write a question"):
        client.predict(file, "Answer", " ", "", api_name="/ask")
    with pytest.raises(AppError, match="is no tag"):
        client.predict(file, "Caption", "", "red: much", api_name="/ask")


EXACT = [("dog", 0.9976), ("ball", 0.504), ("grass", 0.496), ("sky", 0.31)]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("dog: 1.00, ball: 0.50", EXACT),  # as the page shows them, unchanged
        ("  ", EXACT),
        ("ball: 0.50", [("ball", 0.504)]),
        ("ball: 0.5, dog: 1.00", [("dog", 0.9976), ("ball", 0.5)]),  # the user wrote 0.5
        ("dog: 0.90, ball: 0.50, cat", [("cat", 1.0), ("dog", 0.9), ("ball", 0.504)]),
    ],
)
def test_what_is_rounded_on_the_page_is_exact_in_the_prompt(text: str, tags: list[tuple[str, float]]) -> None:
    assert shown_tags(EXACT[:2]) == "dog: 1.00, ball: 0.50"
    assert exact_tags(text, EXACT, EXACT[:2]) == tags


def test_models_get_the_taggers_own_numbers(lions: Lions, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inference = LocalInference()
    predictor = Predictor(ModelReference(lions.tagless), None, inference)
    models = DemoModels({"static": predictor}, load_tagger(lions.tagger, False, "fp32", 1))
    file = str(pictures / "a/one.png")
    exact = [(tag, 0.5 + score / 1000) for tag, score in models.tags(file)][:3]  # all of them shown as 0.50
    assert len(exact) == 3
    monkeypatch.setattr("pipelines.inference.demo.tags_of", lambda *_: [exact])
    requests: list[Any] = []
    replies = predictor.replies

    def recorded(images: Any, questions: Any, tags: Any) -> Any:
        requests.append(tags)
        return replies(images, questions, tags)

    monkeypatch.setattr(predictor, "replies", recorded)
    DemoModels(models.models, models.tagger).ask(file, "Caption", "", f"{exact[1][0]}: 0.50, {exact[2][0]}: 0.7")
    assert requests == [[[(exact[2][0], 0.7), exact[1]]]]


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(UserError, match="cannot be read: not_an_image"):
        DemoModels({}, None).ask(str(tmp_path / "x.png"), "Caption", "", "")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"host": "0.0.0.0"}, "a password with --token"),
        ({"models": {}}, "Name the models"),
        ({"models": {"<b>": "x"}}, "has the name '<b>'"),
        ({"models": {"a": "nowhere"}}, "not a model's folder"),
        ({"examples": "nowhere.png"}, "not a file on this machine"),
    ],
)
def test_wrong_configurations_are_refused_first(
    config: DemoPageConfig, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        start_page(replace(config, **change))  # type: ignore[arg-type]


def test_a_taken_port_is_refused(config: DemoPageConfig, lions: Lions) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = replace(config, port=other.getsockname()[1], models={"static": lions.tagless}, tagger=None)
        with pytest.raises(UserError, match="give another --port"):
            start_page(taken)
