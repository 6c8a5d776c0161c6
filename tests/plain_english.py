"""The rules of plain English that a test holds, and the counts of where code and pages break them.

`python -m tests.plain_english` prints every place. The rules are few and mechanical: they catch the openings and words
that send a reader back to the start of a sentence. They do not replace reading.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("models", "pipelines", "jobs", "cluster")
PAGES = ("README.md", "docs/*.md", "pipelines/sample_world/backbones/weights/CARD.md")

NAMES = {
    "found": "name what it is: `tags`, `manifest`, `match`, `existing`",
    "one": "name the thing: `row`, `tag`, `trial`",
    "asked": "`requested`, `questions`",
    "given": "`arguments`, `predictions`, `answers`",
    "wanted": "`requested`, `expected`, `columns`",
    "told": "`callbacks`, `messages`",
    "said": "`predictions`, `output`, `messages`",
    "known": "`names`, `registered`, `allowed`",
    "place": "`rank`, `position`, `row`",
    "chance": "`rng`, `probability`",
    "of_image": "`tags_by_image`, `image_rows`",
}
"""Names of variables, arguments and fields that are no nouns of the field, with what to use."""

WORDS = {
    r"\b(?:no|some|any)body\b": "name the subject: the user, the process, the caller",
    r"\bwhat \w+(?: \w+)? makes? of\b": "say what the function returns",
    r"\bmakes? nothing of\b": "say what happens",
    r"\bgoes on\b|\bgo on\b|\bwent on\b|\bgone on\b": "`continues`, `resumes`",
    r"\breckon": "`estimate`",
    r"\bis to be had\b|\bto be had\b": "`is available`",
    r"\bat once\b": "`immediately`, or `at the same time`",
    r"\bof (?:its|their|one's|his) own\b": "filler: leave it out, or say `separate`",
    r"\bbears? the\b|\bbears? (?:its|a)\b": "`has`",
    r"\bhad to say\b|\bhas to say\b": "`message`, `error`",
    r"\bwants? to be\b": "say what is required",
    r"\bbeside\b": "`next to`, `with`, `and`",
    r"\blies\b(?! (?:in|within|outside|inside|between) (?:\[|the (?:image|interval|range)))": "`is`, `is stored`",
    r"\bcomes? to nothing\b": "say what happens",
    r"\bthe house\b": "`the repository`, `the project`",
}
"""Words and turns that public docstrings, field descriptions, messages and pages may not have, with the cure."""

OPENINGS = re.compile(r"(?:What|Whether|How|Who|Where|Which|When|Does|Says|Asks|Puts back)\b")
"""First words that no docstring of a function has; "Whether" may open a property's or a field's."""

_VERBS = """
    abandon accept accumulate add adjust adopt advance align allocate allow analyze announce answer append apply
    approximate arrange ask assemble assert assign attach attend augment average await back balance batch begin bind
    blend block bootstrap bound break bring broadcast buffer build cache calculate call cancel cap cast center change
    check choose clamp clean clear clip close collate collect combine commit compare compile complete compose compress
    compute concatenate configure confirm connect construct consume continue convert copy correct count cover create
    crop cut decide declare decode deduplicate define delay delete deliver describe detach detect determine disable
    discard disconnect display distribute divide download drain draw drop dump embed empty enable encode end enforce
    enter ensure enter enumerate escape estimate evaluate exclude execute exit expand explain export extend extract fail
    fetch fill filter find finish fit flag flatten flip flush fold follow force forget format forward free freeze fuse
    gather generate get give group guard guide halve handle hash hide hold identify ignore implement import include
    increment index infer initialize insert inspect install interpolate intersect invert iterate join keep label launch
    lay leave lengthen let limit link list listen load locate lock log look lower make map mark mask match measure merge
    mix move multiply name narrow normalize note notify number observe offer omit open order overwrite pack pad paint
    parse pass patch pause permute pick place plan plot pool post postpone prefer prefetch prepare preserve pretrain
    prevent print probe process produce project propose protect prove provide publish pull push put quantize
    quarantine query quiet quote raise randomize rank read rebuild record recover redirect reduce refer refuse register
    release remember remove rename render reorder repeat replace report request require rerun rescale reserve reset
    reshape resize resolve respond restart restore restrict result resume retry return reuse reverse rewrite rotate
    round route run sample sanitize save scale scan schedule score search seed select send separate serialize serve set
    share shift shorten show shuffle shut signal silence simulate skip sleep slice smooth snapshot solve sort split
    stack start state stop store stream strip submit substitute subtract suggest sum summarize supply suppress swap
    switch sync synchronize tag take tell temporarily terminate test tile tokenize total touch trace track train
    transfer transform translate transpose treat trim truncate try turn undo unescape unfold unfreeze unload unlock
    unpack unwrap update upload use validate verify view visit wait walk warm warn watch weigh widen wire wrap write
    yield zero
"""
IMPERATIVES = frozenset(_VERBS.split())
"""First words of an imperative docstring."""
IMPERATIVE_SHARE = 0.98


@dataclass(frozen=True)
class Offence:
    """A place that breaks a rule.

    Attributes:
        path: the file, relative to the repository.
        line: the line number, from 1.
        text: the words that break the rule.
        cure: what to write instead.
    """

    path: str
    line: int
    text: str
    cure: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}: {self.cure}"


def modules(rooms: tuple[str, ...] = ROOMS) -> list[Path]:
    """Return the source files of the rooms, sorted."""
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def name_offences(path: Path) -> Iterator[Offence]:
    """Yield each name that a module binds and `NAMES` lists."""
    for node in ast.walk(ast.parse(path.read_text())):
        name = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        if name in NAMES:
            yield _offence(path, getattr(node, "lineno", 0), name, NAMES[name])


def docstrings(path: Path) -> Iterator[tuple[ast.AST, int, str]]:
    """Yield (node, line, text) of a module's docstrings, those of fields included."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield node, node.body[0].lineno, text
        if isinstance(node, ast.Module | ast.ClassDef):
            for before, after in zip(node.body, node.body[1:], strict=False):
                if isinstance(before, ast.AnnAssign | ast.Assign) and _is_text(after):
                    yield before, after.lineno, after.value.value  # type: ignore[attr-defined]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the string parts of raised exceptions and of log calls."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from _texts(node.exc)
        elif isinstance(node, ast.Call) and _is_log_call(node.func):
            yield from _texts(node)


def _is_log_call(function: ast.AST) -> bool:
    owner = getattr(function, "value", None)
    return isinstance(function, ast.Attribute) and isinstance(owner, ast.Name) and owner.id in ("log", "logger")


def _texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.lineno, inner.value


def word_offences(path: Path) -> Iterator[Offence]:
    """Yield each listed word in a module's docstrings and messages, or in a page."""
    if path.suffix == ".md":
        pieces = list(enumerate(path.read_text().split("\n"), 1))
    else:
        pieces = [(line, text) for _, line, text in docstrings(path)] + list(messages(path))
    for line, text in pieces:
        for pattern, cure in WORDS.items():
            for match in re.finditer(pattern, text, re.IGNORECASE):
                yield _offence(path, line + text[: match.start()].count("\n"), match[0], cure)


def opening_offences(path: Path) -> Iterator[Offence]:
    """Yield each docstring of a function that opens with a word of `OPENINGS`."""
    for node, line, text in docstrings(path):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        allowed = not is_function or (_is_property(node) and text.startswith("Whether"))
        if is_function and not allowed and (match := OPENINGS.match(text)):
            yield _offence(path, line, match[0], "begin with a verb: Return, Write, Load")


def functions(path: Path) -> Iterator[tuple[ast.AST, int, str]]:
    """Yield (node, line, docstring) of the functions whose docstring says what they do; properties are nouns."""
    for node, line, text in docstrings(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_property(node):
            yield node, line, text


def is_imperative(text: str) -> bool:
    """Return whether a docstring begins with a verb in the imperative."""
    match = re.match(r"[A-Za-z]+", text)
    return match is not None and match[0].lower() in IMPERATIVES


def _is_property(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    names = {getattr(item, "id", getattr(item, "attr", "")) for item in decorators}
    return bool(names & {"property", "cached_property", "setter"})


def _offence(path: Path, line: int, text: str, cure: str) -> Offence:
    return Offence(str(path.relative_to(ROOT)), line, text, cure)


def pages() -> list[Path]:
    """Return the Markdown pages that a reader meets."""
    return sorted(path for pattern in PAGES for path in ROOT.glob(pattern))


def main(prefixes: list[str]) -> int:
    """Print the offences of the files whose path begins with a prefix, then the counts."""
    chosen = [p for p in (*modules(), *pages()) if not prefixes or str(p.relative_to(ROOT)).startswith(tuple(prefixes))]
    code = [path for path in chosen if path.suffix == ".py"]
    rows = {
        "names": [offence for path in code for offence in name_offences(path)],
        "openings": [offence for path in code for offence in opening_offences(path)],
        "words": [offence for path in chosen for offence in word_offences(path)],
    }
    entries = [(path, line, text) for path in code for _, line, text in functions(path)]
    declarative = [(path, line, text) for path, line, text in entries if not is_imperative(text)]
    for offences in rows.values():
        print(*offences, sep="\n")
    for path, line, text in declarative:
        print(f"{path.relative_to(ROOT)}:{line}: {text.split(chr(10))[0]!r}: begin with a verb in the imperative")
    print({name: len(offences) for name, offences in rows.items()})
    print(f"imperative docstrings: {len(entries) - len(declarative)} of {len(entries)} functions")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
