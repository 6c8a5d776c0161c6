"""The demo page: an image, its tags with confidences, a question, and the answers of several models side by side."""

import dataclasses
import hashlib
import logging
import os
import re
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from models.tags import ImageTags, threshold_in_words
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.steps import StepResult, runtime_group
from pipelines.inference.answerer import Unanswered
from pipelines.inference.decoding import box_warning
from pipelines.inference.drawing import boxes_of, draw_boxes
from pipelines.inference.pictures import find_pictures
from pipelines.inference.predictor import (
    LocalInference,
    Predictor,
    TagReading,
    find_model,
    load_tagger,
    parse_tags,
    prompt_reads_tags,
    tagger_thresholds,
    tags_of,
)
from pipelines.inference.questions import build_question
from pipelines.precompute.taggers import Tagger
from pipelines.registry import RegistryConfig
from pipelines.sources.images import BadImage, decode_image

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("lion.page")
ASKED = {"Caption": "caption", "Answer": "vqa", "Object": "rec"}
_HINTS = {"Caption": "nothing to write: the model describes the picture", "Answer": "a question about the picture",
          "Object": "what to find, such as: the red circle"}  # fmt: skip
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHOWN_TAGS, _SHOWN_EXAMPLES = 10, 24
_KEPT_TAGS = 64  # pictures whose tags are kept, so that asking tags a picture once
_MOST_UPLOADED = "50mb"


@dataclasses.dataclass(frozen=True)
class DemoPageConfig:
    """Serves a page on this machine: choose an image, see its tags, ask for a caption, an answer or an object.

    It answers until it is ended (Ctrl-C), on loopback unless --host says otherwise."""

    models: dict[str, str] = path_field("model")
    """The models side by side, by the name that the page shows: {static: FOLDER, dynamic: models:/NAME@ALIAS}."""
    tagger: str | None = path_field("input", None)
    """A RAM folder that tags the images; without it, tags are written on the page."""
    examples: list[str] | str = path_field("input", default_factory=list)
    """Images to choose from: files or folders; the first two dozen are shown."""
    threshold: Literal["per_tag"] | float | None = None
    """What a tag's confidence must be above to be read: a number for all, or per_tag, each tag's own threshold; empty:
    as each model was trained, or where no training has decided it, as the tagger has it."""
    tag_order: Literal["list", "confidence"] | None = None
    """Order of the tags: confidence, or list as RAM writes them; empty: as each model was trained."""
    host: str = "127.0.0.1"
    """The address that the page listens on; any other than loopback needs a token."""
    port: int = 7860
    """The port; 0: a free one."""
    token: str | None = None
    """The password that the page asks for (user name: lion)."""
    out: str = path_field("output", "runs")
    """Where the default registry lies."""
    inference: LocalInference = dataclasses.field(default_factory=LocalInference)
    registry: RegistryConfig = runtime_group(RegistryConfig)


def shown_tags(tags: ImageTags) -> str:
    """Return the text of tags for the page, with confidences of two digits."""
    return ", ".join(_shown(tag, score) for tag, score in tags)


def _shown(tag: str, score: float) -> str:
    return f"{tag}: {score:.2f}"


def exact_tags(text: str, tags: ImageTags, shown: ImageTags) -> ImageTags:
    """Return the tags of a text that `shown_tags` made and the user may have changed, by falling confidence.

    A tag that is written as it was shown has the exact confidence. A text without changes, or a blank one, means all
    tags: each model selects those that it reads.

    Args:
        text: the page's field.
        tags: all tags of the image.
        shown: those of them that the page showed.

    Raises:
        UserError: the text cannot be read as tags.
    """
    if text.strip() in ("", shown_tags(shown)):
        return tags
    exact = {_shown(tag, score): score for tag, score in tags}
    read: ImageTags = []
    for piece in text.split(","):
        ((tag, score),) = parse_tags(piece)
        read.append((tag, exact.get(piece.strip(), score)))
    return sorted(read, key=lambda item: -item[1])


class Oracle:
    """What the page asks: the models and the tagger, without the page.

    Args:
        models: by name.
        tagger: or None where tags are written by hand.
    """

    def __init__(self, models: Mapping[str, Predictor], tagger: Tagger | None) -> None:
        self.models = dict(models)
        self.tagger = tagger
        self._tags: dict[str, ImageTags] = {}  # of the pictures that were asked about last, by their bytes

    @property
    def rules_in_words(self) -> str:
        """Above which confidence tags are read, each model's way once."""
        rules = [rule for one in self.models.values() for rule in (one.rules.text, one.rules.vector) if rule]
        return " or ".join(dict.fromkeys(f"above {threshold_in_words(rule)}" for rule in rules))

    def tags(self, file: str | None) -> ImageTags:
        """Return the image's tags by falling confidence; none without an image or a tagger.

        Raises:
            UserError: the file is no picture.
        """
        if file is None or self.tagger is None:
            return []
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        tags = self._tags.get(digest)
        if tags is None:
            tags = tags_of(self.tagger, [_open(file)])[0]
            self._tags = {**dict([*self._tags.items()][1 - _KEPT_TAGS :]), digest: tags}
        return list(tags)

    def read_tags(self, tags: ImageTags) -> ImageTags:
        """Return the tags that any of the models reads, in their order."""
        every = [predictor.reads(tags) for predictor in self.models.values()]
        return [tag for tag, reads in zip(tags, zip(*every, strict=True), strict=True) if any(reads)]

    def ask(self, file: str | None, what: str, text: str, tags: str) -> "list[tuple[str, Image]]":
        """Return each model's answer, and the picture with the answer's boxes drawn.

        Args:
            file: the image.
            what: a key of `ASKED`.
            text: the question, or what to find.
            tags: `dog: 0.98, ball: 0.96`; blank: the tagger's. A confidence that stands as the page shows it is the
                tagger's own, whatever digits the page leaves out.

        Raises:
            UserError: there is no image, it is no picture, or the question or the tags cannot be read.
        """
        if file is None:
            raise UserError("Choose or upload an image first.")
        picture = _open(file)
        task = ASKED[what]
        if task != "caption" and not text.strip():
            raise UserError(f"Write {_HINTS[what]}.")
        question = build_question(task, "" if task == "caption" else text)
        tagged = self.tags(file)
        listed = exact_tags(tags, tagged, self.read_tags(tagged))
        found = []
        for predictor in self.models.values():
            (reply,) = predictor.replies([picture], [question], [listed])
            if isinstance(reply, Unanswered):
                raise UserError(f"{reply.reason}: {reply.detail}")
            found.append((reply, draw_boxes(picture, boxes_of(reply, question.text))))
        return found


def _open(file: str) -> "Image":
    try:
        return decode_image(Path(file).read_bytes())
    except BadImage as error:
        raise UserError(f"This image cannot be read: {error}") from error


def build_page(oracle: Oracle, examples: Sequence[str]) -> Any:
    """Return the page as `gradio.Blocks`.

    Args:
        oracle: what answers.
        examples: image files to choose from.
    """
    import gradio as gr

    def tags(file: str | None) -> tuple[dict[str, float], str]:
        listed = _said(gr, lambda: oracle.tags(file))
        return {tag: score for tag, score in listed[:_SHOWN_TAGS]}, shown_tags(oracle.read_tags(listed))

    def ask(file: str | None, what: str, text: str, written: str) -> list[Any]:
        return [part for pair in _said(gr, lambda: oracle.ask(file, what, text, written)) for part in pair]

    def hint(what: str) -> Any:
        return gr.update(placeholder=_HINTS[what], interactive=what != "Caption")

    with gr.Blocks(title="Dynamic LION", analytics_enabled=False) as page:
        gr.Markdown(
            "# Dynamic LION\nAn image, what a tagger saw on it and how sure it was, and what each model makes of both."
        )
        with gr.Row():
            with gr.Column(scale=2):
                image = gr.Image(
                    examples[0] if examples else None,
                    type="filepath",
                    label="Image",
                    sources=["upload", "clipboard"],
                    height=300,
                    elem_classes="chosen",
                )
                if examples:
                    gr.Examples([[file] for file in examples], image, label="Or choose one", examples_per_page=12)
                shown = gr.Label(label="Tags and confidences", num_top_classes=_SHOWN_TAGS, show_heading=False)
            with gr.Column(scale=3):
                what = gr.Radio(list(ASKED), value="Caption", label="Ask for")
                text = gr.Textbox(label="Question or object", placeholder=_HINTS["Caption"], interactive=False)
                written = gr.Textbox(
                    label="Tags that dynamic prompts are made of",
                    info=f"the tagger's that are read ({oracle.rules_in_words}); change them and ask again",
                )
                button = gr.Button("Ask", variant="primary")
                outputs: list[Any] = []
                with gr.Row():
                    for name in oracle.models:
                        with gr.Column(min_width=200):
                            outputs.append(gr.Textbox(label=name, lines=2, interactive=False))
                            outputs.append(
                                gr.Image(
                                    label=f"{name}: picture", interactive=False, format="png", height=280, buttons=[]
                                )
                            )
        image.change(tags, image, [shown, written], api_name="tags")
        page.load(tags, image, [shown, written], api_visibility="private")
        what.change(hint, what, text, api_visibility="private")
        gr.on([button.click, text.submit], ask, [image, what, text, written], outputs, api_name="ask")
    return page


def _said(gr: Any, work: Any) -> Any:
    """What `work` gives; a user's mistake becomes the page's own message."""
    try:
        return work()
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error


def start_page(config: DemoPageConfig) -> tuple[Any, str]:
    """Load the models and opens the page.

    Returns:
        The running page (`close()` ends it), and its address.

    Raises:
        UserError: a model, the tagger or an example is not there, the address is open to others without a token, or the
            port is taken.
    """
    oracle, examples = _prepare(config)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_TEMP_DIR", tempfile.mkdtemp(prefix="lion-page-"))
    import gradio as gr
    from PIL import Image

    Image.init()
    if "EPS" in Image.ID:
        Image.ID.remove("EPS")  # gradio opens uploads before we do, and Pillow's EPS runs a program
    page = build_page(oracle, examples)
    try:
        _, address, _ = page.launch(
            server_name=config.host,
            server_port=config.port or _free_port(config.host),
            auth=("lion", config.token) if config.token else None,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            allowed_paths=examples,
            max_file_size=_MOST_UPLOADED,
            footer_links=["api"],
            css=".chosen img {width: 100%; height: 100%; object-fit: contain}",  # a small picture is enlarged, too
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
    except OSError as error:
        raise UserError(f"Nothing can listen on {config.host}:{config.port} ({error}); give another --port.") from error
    return page, str(address)


def demo_page(config: DemoPageConfig) -> StepResult:
    """Serve until SIGINT or SIGTERM.

    Raises:
        UserError: see `start_page`.
    """
    page, address = start_page(config)
    log.info("The page is at %s; Ctrl-C ends it.", address)
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        page.close(verbose=False)
    return StepResult("demo_page", storage.absolute(config.out), False, {"rows": None, "address": address})


def _prepare(config: DemoPageConfig) -> tuple[Oracle, list[str]]:
    config.inference.check()
    if not config.models:
        raise UserError("Name the models to show: --models '{static: FOLDER, dynamic: FOLDER}'.")
    if odd := [name for name in config.models if not re.fullmatch(r"[\w .@:/+-]{1,60}", name)]:
        raise UserError(f"{odd[0]!r} is no name for the page; use letters, digits and spaces.")
    if config.host not in _LOOPBACK and not config.token:
        raise UserError(f"On {config.host} others can reach the page; give a --token that it asks for.")
    named = [config.examples] if isinstance(config.examples, str) else config.examples
    examples = find_pictures(named)[:_SHOWN_EXAMPLES] if named else []
    if lost := [file for file in examples if not os.path.isfile(file)]:
        raise UserError(f"The example {lost[0]} is no file of this machine.")
    found = {name: find_model(reference, config.registry, config.out) for name, reference in config.models.items()}
    if config.tagger is None and any(prompt_reads_tags(model.folder) for model in found.values()):
        log.warning("No --tagger: the tags that these prompts are made of must be written on the page.")
    thresholds = None if config.tagger is None else tagger_thresholds(config.tagger)
    reading = TagReading(config.threshold, config.tag_order)
    models = {name: Predictor(model, None, config.inference, reading, thresholds) for name, model in found.items()}
    for name, predictor in models.items():
        if warning := box_warning(predictor.answerer.settings.decoding.settings, ASKED.values()):
            log.warning("%s: %s", name, warning)
        log.info("Tags that %s reads: %s", name, predictor.rules.in_words())
    first = next(iter(models.values())).answerer.settings
    size = config.inference.batch_size
    tagger = None if config.tagger is None else load_tagger(config.tagger, first.on_gpu, first.precision, size)
    return Oracle(models, tagger), examples


def _free_port(host: str) -> int:
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])
