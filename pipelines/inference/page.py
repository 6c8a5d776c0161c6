"""The demo page: an image, its tags with confidences, a question, and the answers of several models side by side."""

import dataclasses
import logging
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.steps import StepResult, runtime_group
from pipelines.inference.decoding import box_warning
from pipelines.inference.demo import HINTS, REQUESTS, DemoModels, shown_tags
from pipelines.inference.pictures import find_pictures
from pipelines.inference.predictor import (
    LocalInference,
    Predictor,
    TagReading,
    find_model,
    load_tagger,
    prompt_reads_tags,
    tagger_thresholds,
)
from pipelines.registry import RegistryConfig

log = logging.getLogger("lion.page")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHOWN_TAGS, _SHOWN_EXAMPLES = 10, 24
_MOST_UPLOADED = "50mb"


@dataclasses.dataclass(frozen=True)
class DemoPageConfig:
    """Serve a page on this machine: choose an image, see its tags, request a caption, an answer or an object.

    The page runs until Ctrl-C. It listens on loopback unless --host names another address."""

    models: dict[str, str] = path_field("model")
    """The models, by the name that the page shows, for example {static: FOLDER, dynamic: models:/NAME@ALIAS}."""
    tagger: str | None = path_field("input", None)
    """Folder of a tagger, for example RAM, that tags the images. Without it, the user writes tags on the page."""
    examples: list[str] | str = path_field("input", default_factory=list)
    """Images to choose from: files or folders. The page shows the first 24."""
    threshold: Literal["per_tag"] | float | None = None
    """A model reads a tag if its confidence is above this: a number for all tags, or `per_tag`, each tag's own
    threshold. Empty: as each model was trained; if its training has not decided it, the tagger's thresholds."""
    tag_order: Literal["list", "confidence"] | None = None
    """Order of the tags in the prompt: `confidence` (falling), or `list`, the order of RAM's list. Empty: as each model
    was trained."""
    host: str = "127.0.0.1"
    """Address that the page listens on. Any address other than loopback needs a token."""
    port: int = 7860
    """Port that the page listens on; 0: a free port."""
    token: str | None = None
    """Password of the page (user name: lion). Empty: no password."""
    out: str = path_field("output", "runs")
    """Folder or URI of the default registry."""
    inference: LocalInference = dataclasses.field(default_factory=LocalInference)
    registry: RegistryConfig = runtime_group(RegistryConfig)


def build_page(models: DemoModels, examples: Sequence[str]) -> Any:
    """Return the page as `gradio.Blocks`.

    Args:
        models: answer the questions.
        examples: image files to choose from.
    """
    import gradio as gr

    def tags(file: str | None) -> tuple[dict[str, float], str]:
        image_tags = _with_page_errors(gr, lambda: models.tags(file))
        return {tag: score for tag, score in image_tags[:_SHOWN_TAGS]}, shown_tags(models.read_tags(image_tags))

    # The names of these arguments are the parameters of the page's web API.
    def ask(file: str | None, what: str, text: str, written: str) -> list[Any]:
        answers = _with_page_errors(gr, lambda: models.ask(file, what, text, written))
        return [part for answer in answers for part in answer]

    def hint(request: str) -> Any:
        return gr.update(placeholder=HINTS[request], interactive=request != "Caption")

    with gr.Blocks(title="Dynamic LION", analytics_enabled=False) as page:
        gr.Markdown("# Dynamic LION\nAn image, its tags with the tagger's confidences, and the answer of each model.")
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
                request = gr.Radio(list(REQUESTS), value="Caption", label="Ask for")
                text = gr.Textbox(label="Question or object", placeholder=HINTS["Caption"], interactive=False)
                written = gr.Textbox(
                    label="Tags in dynamic prompts",
                    info=f"the tagger's tags that are read ({models.rules_in_words}); change them and ask again",
                )
                button = gr.Button("Ask", variant="primary")
                outputs: list[Any] = []
                with gr.Row():
                    for name in models.models:
                        with gr.Column(min_width=200):
                            outputs.append(gr.Textbox(label=name, lines=2, interactive=False))
                            outputs.append(
                                gr.Image(
                                    label=f"{name}: picture", interactive=False, format="png", height=280, buttons=[]
                                )
                            )
        image.change(tags, image, [shown, written], api_name="tags")
        page.load(tags, image, [shown, written], api_visibility="private")
        request.change(hint, request, text, api_visibility="private")
        gr.on([button.click, text.submit], ask, [image, request, text, written], outputs, api_name="ask")
    return page


def _with_page_errors(gr: Any, function: Callable[[], Any]) -> Any:
    """Call a function and return its result; a `UserError` becomes an error message of the page."""
    try:
        return function()
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error


def start_page(config: DemoPageConfig) -> tuple[Any, str]:
    """Load the models and open the page.

    Returns:
        The running page (`close()` ends it), and its address.

    Raises:
        UserError: a model, the tagger or an example does not exist, an address other than loopback has no token, or the
            port is in use.
    """
    models, examples = _prepare(config)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_TEMP_DIR", tempfile.mkdtemp(prefix="lion-page-"))
    import gradio as gr
    from PIL import Image

    Image.init()
    if "EPS" in Image.ID:
        Image.ID.remove("EPS")  # gradio opens uploads first, and Pillow's EPS reader runs an external program
    page = build_page(models, examples)
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
            css=".chosen img {width: 100%; height: 100%; object-fit: contain}",  # enlarges a small picture, too
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
    except OSError as error:
        raise UserError(
            f"The page cannot listen on {config.host}:{config.port} ({error}); give another --port."
        ) from error
    return page, str(address)


def demo_page(config: DemoPageConfig) -> StepResult:
    """Serve until SIGINT or SIGTERM.

    Raises:
        UserError: see `start_page`.
    """
    page, address = start_page(config)
    log.info("The page is at %s; Ctrl-C ends it", address)
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        page.close(verbose=False)
    return StepResult("demo_page", storage.absolute(config.out), False, {"rows": None, "address": address})


def _prepare(config: DemoPageConfig) -> tuple[DemoModels, list[str]]:
    """Check the configuration, load the models and return them with the example images."""
    config.inference.check()
    if not config.models:
        raise UserError("Name the models to show: --models '{static: FOLDER, dynamic: FOLDER}'.")
    if wrong := [name for name in config.models if not re.fullmatch(r"[\w .@:/+-]{1,60}", name)]:
        raise UserError(f"--models has the name {wrong[0]!r}; use letters, digits and spaces, 60 characters at most.")
    if config.host not in _LOOPBACK and not config.token:
        raise UserError(f"On {config.host} others can reach the page; set a password with --token.")
    names = [config.examples] if isinstance(config.examples, str) else config.examples
    examples = find_pictures(names)[:_SHOWN_EXAMPLES] if names else []
    if absent := [file for file in examples if not os.path.isfile(file)]:
        raise UserError(f"The example {absent[0]} is not a file on this machine; give a path.")
    references = {name: find_model(reference, config.registry, config.out) for name, reference in config.models.items()}
    if config.tagger is None and any(prompt_reads_tags(model.folder) for model in references.values()):
        log.warning("No --tagger: the user must write the tags of the prompts on the page")
    thresholds = None if config.tagger is None else tagger_thresholds(config.tagger)
    reading = TagReading(config.threshold, config.tag_order)
    models = {name: Predictor(model, None, config.inference, reading, thresholds) for name, model in references.items()}
    for name, predictor in models.items():
        if warning := box_warning(predictor.answerer.settings.decoding.settings, REQUESTS.values()):
            log.warning("%s: %s", name, warning)
        log.info("%s reads %s", name, predictor.rules.in_words())
    first = next(iter(models.values())).answerer.settings
    size = config.inference.batch_size
    tagger = None if config.tagger is None else load_tagger(config.tagger, first.on_gpu, first.precision, size)
    return DemoModels(models, tagger), examples


def _free_port(host: str) -> int:
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])
