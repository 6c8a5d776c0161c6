"""Every command that the README, docs/, the YAML files and the cluster files show is one that the verbs accept.

Nothing runs: each command goes through its verb's own parser, and of a pipeline every step is checked as well.
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
    """The files that show commands to people."""
    found = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "jobs").rglob("*.yaml")]
    return sorted([*found, *(ROOT / "cluster").rglob("*.yaml"), *(ROOT / "cluster").rglob("*.md")])


def commands(text: str, is_markdown: bool) -> Iterator[str]:
    """The commands of a document, each on one line: the verb and what follows it.

    A line that ends with a backslash goes on. In Markdown, code between backticks does, too; in the comments of YAML,
    and in a folded entry point, a command goes on while the next line begins with an option.
    """
    text = re.sub(r"\\\n\s*#?\s*", " ", text)
    if is_markdown:
        text = "\n\n".join(map(_joined_code, text.split("\n\n")))
    else:
        text = re.sub(r"\n\s*#?\s*(?=--[a-z])", " ", text)
    for line in text.splitlines():
        for found in _COMMAND.finditer(line):
            yield f"{found['verb']} {found['rest']}"


def _joined_code(paragraph: str) -> str:
    """A paragraph whose code between backticks has no line breaks."""
    parts = paragraph.split("`")
    parts[1::2] = [code.replace("\n", " ") for code in parts[1::2]]
    return "`".join(parts)


def words_of(command: str) -> tuple[str, list[str]]:
    """The verb and its words, without what follows the command: a redirection, a remark behind three spaces, or `…`,
    which stands for what else is to be given."""
    verb, _, rest = command.partition(" ")
    rest = re.split(r"\s(?:>|2>|&|\||#|&&)\s?|[;:.,]?$|\s{3,}", rest, maxsplit=1)[0]
    words = shlex.split(rest)
    return verb, [word for place, word in enumerate(words) if word != "…" or words[place - 1].startswith("--")]


_FOUND = {  # the same command in two places is looked at once
    repr(words_of(command)): pytest.param(*words_of(command), id=f"{path.relative_to(ROOT)}:{number}:{command[:12]}")
    for path in documents()
    for number, command in enumerate(commands(path.read_text(), path.suffix == ".md"))
}
CASES = list(_FOUND.values())


def test_there_are_commands_to_look_at() -> None:
    """So that a change of the documents' form cannot leave nothing to test."""
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
    """Reads a command as its verb does; of a pipeline and a comparison, every step as well."""
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
