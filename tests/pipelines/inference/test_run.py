"""`predict` on a tiny model: every kind of address, tags from both sources, drawn pictures, refused mistakes."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.inference.answerer import Answerer, AnswererSettings
from pipelines.inference.decoding import DecodingConfig, resolve_decoding
from pipelines.inference.pictures import find_pictures, open_picture
from pipelines.inference.predictor import parse_tags
from pipelines.inference.run import ANSWERS, PredictConfig, predict
from pipelines.registry import Registry, RegistryConfig
from tests.pipelines.inference.conftest import Lions


@pytest.fixture
def address(pictures: Path) -> Iterator[str]:
    """Serve the pictures over HTTP and return the address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(pictures))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def config(lions: Lions, image: str | list[str], out: Path) -> PredictConfig:
    return PredictConfig(lions.dynamic, image, tags="red: 0.9, circle: 0.8", out=str(out))


def test_an_answer_is_the_evaluations(lions: Lions, pictures: Path, tmp_path: Path) -> None:
    picture = str(pictures / "a/one.png")
    result = predict(replace(config(lions, picture, tmp_path), task="rec", text="the red circle"))
    (row,) = (json.loads(line) for line in Path(result.path, ANSWERS).read_text().splitlines())
    tags = [{"tag": "red", "score": 0.9}, {"tag": "circle", "score": 0.8}]
    assert row["tags"] == tags
    model = f"{lions.dynamic}/model"
    decoding = resolve_decoding(model, DecodingConfig(), None)
    settings = AnswererSettings(model, "v", {"rec": 48}, decoding, 4, "fp32", on_gpu=False, threads=1)
    question = {"sample_id": "0", "image_id": "0", "uri": picture, "answers": None, "box": None, "tags": tags}
    (evaluated,), bad = Answerer(settings).answer([question | {key: row[key] for key in ("task", "instruction")}
                                                 | {"level": "region"}])  # fmt: skip
    assert not bad
    assert result.lines == [row["answer"]] == [evaluated["prediction"]]


def test_a_folder_an_address_and_a_torn_file_at_once(
    lions: Lions, pictures: Path, address: str, tmp_path: Path
) -> None:
    named = [str(pictures), f"{address}/a/one.png", f"{address}/nothing.png"]
    tagged = replace(config(lions, named, tmp_path), tags=None, tagger=lions.tagger, format="json")
    result = predict(tagged)
    rows = [json.loads(line) for line in result.lines]
    assert [row["image"].rpartition("/")[2] for row in rows] == ["one.png", "one.png", "torn.png", "one.png",
                                                                 "nothing.png"]  # fmt: skip
    assert [(row["problem"] or "").partition(":")[0] for row in rows] == ["", "", "truncated", "", "missing"]
    assert rows[0]["answer"] == rows[3]["answer"]
    first, other, again = [{tag["tag"]: tag["score"] for tag in rows[number]["tags"]} for number in (0, 1, 3)]
    assert first == pytest.approx(again, abs=1e-6) != other  # a batch of another size: equal but for rounding
    assert (result.summary["rows"], result.summary["unanswered"]) == (5, 2)


def test_boxes_are_drawn_on_copies(
    lions: Lions, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Untrained weights write no box, so the answer is replaced: this test is about drawing it.
    monkeypatch.setattr(
        Answerer, "replies", lambda self, rows, limits: ["Answer: [0.100,0.100,0.900,0.900]"] * len(rows)
    )
    named = [str(pictures / "a"), str(pictures / "b/one.png")]
    result = predict(replace(config(lions, named, tmp_path), task="rec", text="it", draw=True, format="json"))
    rows = [json.loads(line) for line in result.lines]
    assert rows[0]["box"] == [0.1, 0.1, 0.9, 0.9]
    assert rows[0]["boxes"] == [{"phrase": "it", "box": [0.1, 0.1, 0.9, 0.9]}]
    drawn = [Path(row["picture"]) for row in rows]
    assert len(set(drawn)) == 2
    assert Image.open(drawn[0]).size == (360, 240)  # enlarged, so that labels can be read


def test_a_registered_model(lions: Lions, pictures: Path, tmp_path: Path) -> None:
    registry = Registry(RegistryConfig(), str(tmp_path))
    run = registry.open_run("lion", "0" * 64)
    version = registry.register("lion", f"{lions.dynamic}/model", run, "lion", alias="champion")
    base = config(lions, str(pictures / "a/one.png"), tmp_path)
    result = predict(replace(base, model="models:/lion@champion"))
    assert result.summary["model"] == f"models:/lion/{version}"
    assert result.lines == predict(base).lines


def test_tags_are_read_above_the_taggers_own_thresholds_or_one_number(
    lions: Lions, pictures: Path, tmp_path: Path
) -> None:
    """The model's training has not decided which tags it reads; page, evaluation and training have the same rule."""
    base = replace(config(lions, str(pictures / "a/one.png"), tmp_path), tags=None, tagger=lions.tagger)
    text = predict(base).summary["tags_read"]["text"]
    assert (text["threshold"], text["tag_order"], text["thresholds"]["tags"]) == ("per_tag", "confidence", 80)
    listed = predict(replace(base, tag_order="list")).summary["tags_read"]
    assert listed["text"]["tag_order"] == listed["vector"]["tag_order"] == "list"
    number = predict(replace(base, threshold=0.3)).summary["tags_read"]
    assert number["text"] == number["vector"] == {"top_k": 40, "threshold": 0.3, "tag_order": "confidence"}
    with pytest.raises(UserError, match="tagger of these tags has no thresholds"):
        predict(replace(base, tags="red: 0.9", tagger=None, threshold="per_tag"))


def test_a_written_tag_that_is_not_read_is_said(
    lions: Lions, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = replace(config(lions, str(pictures / "a/one.png"), tmp_path), tags="red: 0.9, circle: 0.5, blue: 0.4")
    predict(base)
    assert "the model does not read them: circle, blue" in caplog.text


def test_a_prompt_without_tags_needs_none(lions: Lions, pictures: Path, tmp_path: Path) -> None:
    base = PredictConfig(lions.tagless, str(pictures / "a/one.png"), out=str(tmp_path))
    assert predict(base).lines == predict(replace(base, tags="red: 0.9")).lines


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tags": None}, "--tagger FOLDER .* or --tags"),
        ({"tagger": "somewhere"}, "not both"),
        ({"tags": "red: much"}, "'red: much' is no tag"),
        ({"tags": None, "tagger": "nowhere"}, "no RAM"),
        ({"image": "nowhere.png"}, "no answer for any of 1 images; the first: missing"),
        ({"image": []}, "No image is named"),
        ({"model": "nowhere"}, "not a model's folder"),
        ({"task": "vqa"}, "needs --text"),
    ],
)
def test_mistakes_are_said(
    lions: Lions, pictures: Path, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        predict(replace(config(lions, str(pictures / "a/one.png"), tmp_path), **change))  # type: ignore[arg-type]


def test_another_kind_of_model_is_named(lions: Lions, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no LION, its model_type is 'lion_ram'"):
        predict(replace(config(lions, str(pictures / "a"), tmp_path), model=lions.tagger))


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image file"):
        find_pictures([str(tmp_path)])


def test_an_address_that_nobody_answers_is_a_reason() -> None:
    assert "unreadable" in str(open_picture("http://127.0.0.1:9/x.png"))


def test_tags_of_the_command_line() -> None:
    assert parse_tags("ball, dog: 0.98 ,hot dog: .5") == [("ball", 1.0), ("dog", 0.98), ("hot dog", 0.5)]
