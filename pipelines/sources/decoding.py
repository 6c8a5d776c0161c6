"""Decode annotation files to text, with byte order marks and UTF-16, and keep everything around invalid characters.

A byte that is not UTF-8, or half of a surrogate pair (the escape \\ud83d alone), becomes a lone surrogate in the value
that contains it. The readers quarantine that value (`records.unicode_text`) and read the rest of the file.
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
# yajl, ijson's parser in C, replaces a lone high surrogate by `?`, merges it with any escape that follows, and stops at
# a lone low surrogate. So lone surrogates are encoded in noncharacters, which no text may contain, and decoded again
# after parsing.
_MARK, _DIGITS = "\ufdef", 0xFDD0
_WRITTEN = re.compile(f"{_MARK}([\ufdd0-\ufddf]{{3}})")
_RAW = re.compile("[\ud800-\udfff]")
_HEX = "[0-9a-fA-F]"
_LOW = rf"[dD][c-fC-F]{_HEX}{{2}}"
# Matches escapes from the left, so that the second backslash of `\\\\` does not begin an escape.
_ESCAPES = re.compile(rf"\\(?:\\|u[dD](?:[89abAB]{_HEX}{{2}}\\u{_LOW}|(?P<lone>[89a-fA-F]{_HEX}{{2}})))")
_OPEN = re.compile(rf"\\\\|(?P<open>(?:\\u[dD][89abAB]{_HEX}{{2}})?(?:\\(?:u{_HEX}{{0,3}})?)?\Z)")
_LONGEST_ESCAPE = 12  # characters: two escapes of a surrogate pair


def text_chunks(stream: pa.NativeFile, size: int = _CHUNK) -> Iterator[str]:
    """Yield the text of a file in pieces, decoded by its byte order mark, or as UTF-8 without one.

    Args:
        stream: the file.
        size: bytes per piece.

    Raises:
        UnicodeDecodeError: UTF-16 or UTF-32 that ends inside a character.
    """
    head = stream.read(size)
    # Invalid bytes become lone surrogates instead of an exception, so that only their value is rejected.
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
    """Return the text of a whole file; see `text_chunks`."""
    return "".join(text_chunks(pa.BufferReader(content)))


class JsonBytes:
    """A JSON file as UTF-8 for ijson. Lone surrogates are encoded, and `restored` decodes them in parsed values."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._chunks = text_chunks(stream)
        self._rest = ""
        self._any_marked = False

    def read(self, size: int = -1) -> bytes:
        """Return the next piece of about 64 KiB (`size` is ignored); empty at the end of the file."""
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
        """Return a parsed value with its lone surrogates decoded."""
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
    """Return the length of the text without an escape, or pair of escapes, that may continue in the next piece."""
    start = max(len(text) - _LONGEST_ESCAPE, 0)
    if "\\" not in text[start:]:
        return len(text)
    # Begin before a run of backslashes: only from its first one is it clear which of them are escaped.
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
