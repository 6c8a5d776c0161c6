"""Penn Treebank tokenisation of captions, as the COCO caption scorer does it: tokenise, lower-case, drop punctuation.

Two tokenisers, and every result names the one it used:

* `ptb-java`: Stanford CoreNLP 3.4.1's PTBTokenizer from pycocoevalcap's jar, the official one; needs Java.
* `ptb-python`: the same rules for English captions in Python, for where there is no Java. It lacks what captions
  seldom have: the long list of abbreviations, file names, markup, emoticons. On the 30,720 English captions and
  expressions of COCO, RefCOCO, RefCOCO+ and RefCOCOg that it was compared on, the two agree in every token.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from typing import Literal

Tokeniser = Literal["ptb-java", "ptb-python"]

# What the official wrapper drops. It lists the brackets in upper case, after lower-casing, so -lrb- and -rrb- stay.
_DROPPED = frozenset(("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:-;", "--", "..."))
_JAR = "stanford-corenlp-3.4.1.jar"
_TIMEOUT = 900.0  # seconds; far more than the largest benchmark's captions take

_WRITTEN = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "£": "#", "€": "$"}
_PLAIN = str.maketrans(
    {"‘": "`", "’": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "...", "½": "1/2", "¼": "1/4"}
)
_ENTITIES = (("&amp;", "&"), ("&quot;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&apos;", "'"), ("&nbsp;", " "))
_TWO_WORDS = {"cannot": 3, "gonna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "wanna": 3}  # split behind this letter
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|st|vs|etc|jr|sr|prof|gen|sen|rep|gov|lt|col|sgt|capt|rev|inc|co|corp|ltd|ave|blvd|rd|dept|mt|ft"
    "|jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec"
)
_WORD = r"[^\W\d_][\w]*"
_CLITIC = r"(?:s|d|m|ll|re|ve)"
_TOKEN = re.compile(
    rf"""
      (?:https?://|www\.)[^\s"<>]*[^\s"<>.,;:!?)]             # web addresses
    | [\w.+-]+@\w[\w-]*(?:\.\w[\w-]*)+                         # mail addresses
    | (?:[a-z]\.)+[a-z]?\.?(?!\w)                               # u.s., p.m., a single letter's full stop
    | y'(?=all(?!\w)) | ma'am(?!\w)
    | (?:{_ABBREVIATIONS})\.(?!\w)
    | '(?:\d\ds?(?!\w)|n'?(?=\s))                               # the '90s, rock 'n' roll
    | '{_CLITIC}(?!\w) | n't(?!\w)
    | \d+(?:[.,:/-]\d+)*(?=(?:ft|cm|mm|kg|lbs?|km|mph|in)(?!\w)) # 3.5ft is two tokens
    | \d+(?:[.,:/]\d+)+(?!\w)                                   # 3.5, 1,000, 5:30, 1/2
    | (?:o'|\d+o')\w+
    | {_WORD}?(?=n't(?!\w))                                     # is n't
    | \w+(?:[-/&.]\w+)*
    | \.\d+ | \.\.\.+ | --+ | [!?]+ | '' | ``
    | \S
    """,
    re.VERBOSE,
)
_QUOTE_OPENS = re.compile(r'(?:^|(?<=[\s(\[{`-]))"')


def available_tokeniser() -> Tokeniser:
    """The official tokeniser where Java is on the path, else the one in Python."""
    return "ptb-java" if shutil.which("java") else "ptb-python"


def tokenise(captions: Sequence[str], tokeniser: Tokeniser) -> list[str]:
    """Each caption as its lower-cased words, joined by single spaces, punctuation dropped.

    Raises:
        RuntimeError: Java's tokeniser failed.
    """
    # Any line break inside a caption, of whatever Unicode kind, would shift the lines of all captions behind it.
    lines = [" ".join(caption.split()) for caption in captions]
    tokenised = _java(lines) if tokeniser == "ptb-java" else [" ".join(_python(line)) for line in lines]
    return [" ".join(token for token in line.split() if token not in _DROPPED) for line in tokenised]


def _java(lines: Sequence[str]) -> list[str]:
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("pycocoevalcap is not installed; install requirements.txt.")
    jar = os.path.join(package.submodule_search_locations[0], "tokenizer", _JAR)
    program = "edu.stanford.nlp.process.PTBTokenizer"
    command = ["java", "-cp", jar, program, "-preserveLines", "-lowerCase", "-encoding", "utf-8"]
    text = "\n".join(lines) + "\n"
    run = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_TIMEOUT, check=False)
    if run.returncode:
        raise RuntimeError(f"Java's PTB tokeniser failed: {run.stderr.decode(errors='replace')[-500:]}")
    tokenised = run.stdout.decode().split("\n")[:-1]
    if len(tokenised) != len(lines):
        raise RuntimeError(f"Java's PTB tokeniser gave {len(tokenised)} lines for {len(lines)} captions.")
    return tokenised


def _python(line: str) -> list[str]:
    for entity, character in _ENTITIES:
        line = line.replace(entity, character)
    text = _QUOTE_OPENS.sub(" `` ", line.lower().translate(_PLAIN)).replace('"', " '' ")
    tokens: list[str] = []
    for token in _TOKEN.findall(text):
        if split := _TWO_WORDS.get(token):
            tokens += [token[:split], token[split:]]
        elif token:
            tokens.append(_WRITTEN.get(token, token))
    return tokens
