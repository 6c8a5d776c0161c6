"""The verbs accept every command in the README, docs/, the YAML files and the cluster files.

No command runs: its verb's parser parses it, and the steps of pipelines are checked as well.
"""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from jobs.cli import _build, make_parser
from jobs.pipeline import DEMO, prepare
from jobs.submit import split
from pipelines.comparison.plan import plan_comparison
from pipelines.operations import conversion
from pipelines.operations.conversion import ConvertConfig
from pipelines.operations.pipeline import PipelineConfig, check, with_changes

ROOT = Path(__file__).resolve().parents[2]
_COMMAND = re.compile(r"python -m jobs\.(?P<verb>[a-z]\w*)(?P<rest>[^`]*)")


def documents() -> list[Path]:
    """Return the files with documented commands."""
    paths = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "jobs").rglob("*.yaml")]
    return sorted([*paths, *(ROOT / "cluster").rglob("*.yaml"), *(ROOT / "cluster").rglob("*.md")])


def commands(text: str, is_markdown: bool) -> Iterator[str]:
    """Yield the commands of a document, each as one line that begins with the verb.

    A line that ends with a backslash continues on the next line. So does code between backticks in Markdown. In YAML's
    comments and folded entry points, a command continues if the next line begins with an option.
    """
    text = re.sub(r"\\\n\s*#?\s*", " ", text)
    if is_markdown:
        text = "\n\n".join(map(_joined_code, text.split("\n\n")))
    else:
        text = re.sub(r"\n\s*#?\s*(?=--[a-z])", " ", text)
    for line in text.splitlines():
        for match in _COMMAND.finditer(line):
            yield f"{match['verb']} {match['rest']}"


def _joined_code(paragraph: str) -> str:
    """Remove line breaks from code between backticks."""
    parts = paragraph.split("`")
    parts[1::2] = [code.replace("\n", " ") for code in parts[1::2]]
    return "`".join(parts)


def words_of(command: str) -> tuple[str, list[str]]:
    """Return the verb and the arguments of a command.

    Text after the command is removed: a redirection, a remark after three spaces, or `…` for further arguments.
    """
    verb, _, rest = command.partition(" ")
    rest = re.split(r"\s(?:>|2>|&|\||#|&&)\s?|[;:.,]?$|\s{3,}", rest, maxsplit=1)[0]
    words = shlex.split(rest)
    return verb, [word for at, word in enumerate(words) if word != "…" or words[at - 1].startswith("--")]


_COMMANDS = {  # each command once, although documents repeat some
    repr(words_of(command)): pytest.param(*words_of(command), id=f"{path.relative_to(ROOT)}:{number}:{command[:12]}")
    for path in documents()
    for number, command in enumerate(commands(path.read_text(), path.suffix == ".md"))
}
CASES = list(_COMMANDS.values())


def test_commands_are_recognized() -> None:
    """Ensure that a change in the documents' format cannot leave the next test without cases."""
    assert len(CASES) > 50


@pytest.mark.parametrize("verb, words", CASES)
def test_a_documented_command_is_accepted(verb: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert all(Path(word).exists() for word in words if word.startswith("jobs/"))
    if "--help" in words:
        return
    if verb == "submit":
        submitted = words[words.index("--") + 1 :]
        if submitted[0] != "VERB":
            accept(submitted[0], submitted[1:])
        words = split(words)
    accept(verb, words)


def accept(verb: str, words: list[str]) -> None:
    """Parse a command as its verb does. Check every step of pipelines and comparisons as well."""
    config_type = get_type_hints(importlib.import_module(f"jobs.{verb}").run)["config"]
    parser = make_parser(verb, config_type)
    parser.raises = True
    if verb == "pipeline" and "--config" not in words:
        words = ["--config", str(DEMO), *words]
    config = _build(parser, config_type, parser.parse_args([word for word in words if word != "--print_config"]))
    if isinstance(config, ConvertConfig):
        conversion._check(config)
    if isinstance(config, PipelineConfig):
        changed = with_changes(config)
        check(changed, prepare)
        for spec in changed.steps.values():
            if spec.verb == "compare":
                plan_comparison(prepare(spec.verb, spec.config)[0], prepare)
