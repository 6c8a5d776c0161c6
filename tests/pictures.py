"""Create the README's pictures from a finished demo: `python -m tests.pictures runs/demo` writes docs/pictures/.

`answers.png` shows the first test scenes (not a selection) with the champion's predictions, `report.png` the top of the
report, `page.png` the demo page after a question. The last two need Debian's chromium.
"""

import argparse
import asyncio
import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pipelines.core import storage
from pipelines.core.parquet import read_parquet
from pipelines.inference.drawing import draw_boxes
from pipelines.instructions.templates import instruction
from pipelines.scoring.predictions import load_instructions
from pipelines.sources.boxes import iou, parse_box
from pipelines.sources.grounding import Span
from pipelines.sources.images import load_image
from tests.browser import open_tab

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
_MOST_BYTES = 300_000
_SIDE, _GAP, _LINE = 300, 20, 22  # pixels
_INK, _DIM, _RIGHT, _WRONG = "#1f2328", "#6e7781", "#1a7f37", "#cf222e"
_PAGE = (1240, 900)
_ALL = "[...document.querySelectorAll"


def results(run: str) -> dict[str, dict[str, Any]]:
    """Return the JSON line of each step of the pipeline, by name."""
    return {step["name"]: step for step in storage.read_json(storage.join(run, "report.json"))["steps"]}


def answers(run: str, count: int = 4) -> Image.Image:
    """Draw the first test images with the champion's caption, answer and box, and the truth where it is wrong.

    Args:
        run: the demo's folder.
        count: the number of images, side by side.
    """
    steps = results(run)
    champion = steps["comparison"]["champion"]
    evaluated = next(
        folder
        for path in sorted(Path(run).glob("evaluate-*"))
        for folder in [str(path)]
        if read_parquet(folder, "predictions", ["model_version"])["model_version"][0].as_py() == champion
    )
    predictions = {row["sample_id"]: row for row in read_parquet(evaluated, "predictions").to_pylist()}
    questions: dict[tuple[str, str], dict[str, Any]] = {}
    for row in load_instructions(steps["test_questions"]["path"]).to_pylist():
        questions.setdefault((row["image_id"], row["task"]), row)
    images = read_parquet(steps["tagged_test"]["path"], "tagged", ["image_id", "uri"]).sort_by("image_id").to_pylist()
    complete = [image for image in images if all((image["image_id"], task) in questions for task in ("vqa", "rec"))]
    cards = []
    for image in complete[:count]:
        rows = {task: questions[image["image_id"], task] for task in ("caption", "vqa", "rec")}
        outputs = {task: predictions[row["sample_id"]] for task, row in rows.items()}
        cards.append(_card(load_image(image["uri"]), rows, outputs))
    sheet = Image.new(
        "RGB", ((_SIDE + _GAP) * len(cards) + _GAP, max(card.height for card in cards) + 2 * _GAP), "white"
    )
    for column, card in enumerate(cards):
        sheet.paste(card, (_GAP + column * (_SIDE + _GAP), _GAP))
    return sheet


def _card(picture: Image.Image, rows: Mapping[str, Any], outputs: Mapping[str, Any]) -> Image.Image:
    """Draw an image with the predicted box, and the answers below it."""
    located, true = parse_box(outputs["rec"]["prediction"]), outputs["rec"]["box"]
    overlap = iou(located.box, true) if located else 0.0
    spans = [Span("", located.box), Span("", tuple(true))] if located else []
    drawn = draw_boxes(picture, spans, least=_SIDE)
    drawn = drawn.resize((_SIDE, round(_SIDE * drawn.height / drawn.width)), Image.Resampling.LANCZOS)
    answer, truths = outputs["vqa"]["prediction"], outputs["vqa"]["references"]
    right = answer.strip().lower() in {truth.lower() for truth in truths}
    lines = [
        (outputs["caption"]["prediction"], _INK),
        ("", _INK),
        (_question_text(rows["vqa"]), _DIM),
        (answer if right else f"{answer} (true: {max(set(truths), key=truths.count)})", _RIGHT if right else _WRONG),
        ("", _INK),
        (f"{_question_text(rows['rec'])}:", _DIM),
        (f"the red box; IoU {overlap:.2f} with the blue, true one" if located else "no box",
         _RIGHT if overlap >= 0.5 else _WRONG),
    ]  # fmt: skip
    wrapped = [(line, color) for text, color in lines for line in (wrap(text, 38) or [""])]
    card = Image.new("RGB", (_SIDE, _SIDE + 14 + _LINE * len(wrapped)), "white")
    card.paste(drawn, (0, (_SIDE - drawn.height) // 2))
    pen, font = ImageDraw.Draw(card), ImageFont.load_default(16)
    for number, (line, color) in enumerate(wrapped):
        pen.text((0, _SIDE + 14 + number * _LINE), line, fill=color, font=font)
    return card


def _question_text(row: Mapping[str, Any]) -> str:
    """Return the text of a question without its template."""
    before, after = instruction(row["task"], "evaluate", {"text": "\0"}, "", None).split("\0")
    return str(row["instruction"]).removeprefix(before).removesuffix(after)


def compressed(picture: Image.Image) -> bytes:
    """Encode an image as PNG with at most 256 colors."""
    sink = io.BytesIO()
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(sink, "PNG", optimize=True)
    return sink.getvalue()


async def report(run: str, file: Path) -> None:
    """Write a screenshot of the top of the comparison's report."""
    async with open_tab(Path(results(run)["comparison"]["report"]).as_uri(), 1100, 1000) as tab:
        await tab.screenshot(file, 1250)


async def page(run: str, file: Path) -> None:
    """Write a screenshot of the demo page after a question about an example."""
    models = "{static: models:/lion@static, dynamic: models:/lion@dynamic}"
    images = storage.join(results(run)["world"]["path"], "images")
    command = [sys.executable, "-m", "jobs.demo_page", "--models", models, "--examples", images, "--port", "0",
               "--tagger", "pipelines/sample_world/backbones/weights/tagger", "--out", run]  # fmt: skip
    server = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        assert server.stderr is not None
        address = None
        while address is None:
            line = (await server.stderr.readline()).decode()
            assert line, "the page did not start"
            address = next(iter(re.findall(r"http://127\.0\.0\.1:\d+", line)), None)
        async with open_tab(address, *_PAGE) as tab:
            await ask_on_the_page(tab, "Object", "the largest shape")
            await tab.screenshot(file)
    finally:
        server.terminate()
        await server.wait()


async def ask_on_the_page(tab: Any, what: str, text: str) -> None:
    """Wait for the first example's tags, ask a question, and wait for the answers."""
    await tab.until(r"/\d+%/.test(document.body.innerText)")
    await tab.run(f"{_ALL}('input[type=radio]')].find(one => one.parentElement.innerText.trim() === '{what}').click()")
    box = f"{_ALL}('textarea')].find(one => one.closest('label')?.innerText.startsWith('Question or object'))"
    await tab.until(f"!{box}.disabled")
    setter = "Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set"
    await tab.run(f"{setter}.call({box}, '{text}'); {box}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    await tab.run(f"{_ALL}('button')].find(one => one.innerText.trim() === 'Ask').click()")
    answers = f"{_ALL}('textarea')].filter(one => /^(static|dynamic)$/.test(one.closest('label')?.innerText.trim()))"
    await tab.until(f"({answers}).length === 2 && ({answers}).every(one => one.value)")
    await tab.until(f"{_ALL}('img')].every(one => one.complete) && {_ALL}('.image-frame img')].length >= 3")


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="runs/demo", help="the demo's folder (%(default)s)")
    run = storage.absolute(parser.parse_args().run)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "answers.png").write_bytes(compressed(answers(run)))
    for name, make in (("report", report), ("page", page)):
        file = FOLDER / f"{name}.png"
        asyncio.run(make(run, file))
        file.write_bytes(compressed(Image.open(file)))
    for file in sorted(FOLDER.glob("*.png")):
        assert file.stat().st_size < _MOST_BYTES, f"{file} is too large"
        sys.stdout.write(f"{file.name}: {file.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
