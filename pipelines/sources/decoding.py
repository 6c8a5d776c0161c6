"""Bytes of annotation files as text: byte order marks, UTF-16, and what is not Unicode, without losing the rest.

A byte that is not UTF-8, or half of a surrogate pair (the escape \\ud83d alone), becomes a lone surrogate in the text
of its own value. The readers set that value aside (`records.unicode_text`); the rest of the file is read.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

_CHUNK = 1 << 16
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# yajl, ijson's parser in C, writes `?` for a lone high surrogate, joins it with the next escape whatever that is, and
# ends the file at a lone low one. So each is written in noncharacters, which no text may hold, and turned back.
_MARK, _DIGITS = "\ufdef", 0xFDD0
_WRITTEN = re.compile(f"{_MARK}([\ufdd0-\ufddf]{{3}})")
_RAW = re.compile("[\ud800-\udfff]")
_HEX = "[0-9a-fA-F]"
_LOW = rf"[dD][c-fC-F]{_HEX}{{2}}"
# Escapes from the left, so that the second half of an escaped backslash begins none.
_ESCAPES = re.compile(rf"\\(?:\\|u[dD](?:[89abAB]{_HEX}{{2}}\\u{_LOW}|(?P<lone>[89a-fA-F]{_HEX}{{2}})))")
_OPEN = re.compile(rf"\\\\|(?P<open>(?:\\u[dD][89abAB]{_HEX}{{2}})?(?:\\(?:u{_HEX}{{0,3}})?)?\Z)")
_LONGEST_ESCAPE = 12  # characters of a pair


def text_chunks(stream: pa.NativeFile, size: int = _CHUNK) -> Iterator[str]:
    """Return the text of a file piece by piece, as its byte order mark says, else as UTF-8.

    Raises:
        UnicodeDecodeError: UTF-16 or UTF-32 that ends amid a character.
    """
    head = stream.read(size)
    encoding, errors = "utf-8-sig", "surrogateescape"
    for mark, name in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            encoding, errors = name, "surrogatepass"
            break
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    while head:
        if text := decoder.decode(head):
            yield text
        head = stream.read(size)
    if text := decoder.decode(b"", final=True):
        yield text


def decode(content: bytes) -> str:
    """Return a whole file as text; see `text_chunks`."""
    return "".join(text_chunks(pa.BufferReader(content)))


class JsonBytes:
    """A JSON file as the UTF-8 that ijson reads; what is not Unicode is written so that `restored` finds it."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._chunks = text_chunks(stream)
        self._rest = ""
        self._any_marked = False

    def read(self, size: int = -1) -> bytes:
        """Return the next piece, of about 64 KiB whatever `size` is; empty at the end."""
        if size == 0:
            return b""
        for chunk in self._chunks:
            text = self._rest + chunk
            end = _complete(text)
            text, self._rest = text[:end], text[end:]
            if text:
                return self._encoded(text)
        text, self._rest = self._rest, ""
        return self._encoded(text)

    def restored(self, value: Any) -> Any:
        """Return a parsed value with its lone surrogates in place."""
        return _restored(value) if self._any_marked else value

    def _encoded(self, text: str) -> bytes:
        if "\\ud" in text or "\\uD" in text:
            text = _ESCAPES.sub(self._escape, text)
        try:
            return text.encode()
        except UnicodeEncodeError:
            return _RAW.sub(lambda match: self._marked(ord(match[0])), text).encode()

    def _escape(self, match: re.Match[str]) -> str:
        return match[0] if match["lone"] is None else self._marked(0xD000 | int(match["lone"], 16))

    def _marked(self, surrogate: int) -> str:
        self._any_marked = True
        return _MARK + "".join(chr(_DIGITS + (surrogate >> shift & 0xF)) for shift in (8, 4, 0))


def _complete(text: str) -> int:
    """Where the text ends without the escape, or the pair of escapes, that the next piece may go on with."""
    start = max(len(text) - _LONGEST_ESCAPE, 0)
    if "\\" not in text[start:]:
        return len(text)
    while start and text[start - 1] == "\\":
        start -= 1
    return next(match.start() for match in _OPEN.finditer(text, start) if match["open"] is not None)


def _restored(value: Any) -> Any:
    if isinstance(value, str):
        return _WRITTEN.sub(_surrogate, value) if _MARK in value else value
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if isinstance(value, dict):
        return {_restored(key): _restored(item) for key, item in value.items()}
    return value


def _surrogate(match: re.Match[str]) -> str:
    high, middle, low = (ord(digit) - _DIGITS for digit in match[1])
    return chr(0xD000 | high << 8 | middle << 4 | low)
