"""Read JSON as a stream: one element of an array, or one line, at a time; from local disks or object stores."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import ijson
import pyarrow as pa

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.sources.decoding import JsonBytes, decode, text_chunks
from pipelines.sources.records import BROKEN_LINE, WRONG_TYPE, BadAnnotation, is_unicode

_PIECE = 1 << 20  # bytes per read of a file of lines
_MAX_BROKEN_LINES = 100  # before the first good one; with more the file has another format


@contextlib.contextmanager
def open_stream(uri: str) -> Iterator[pa.NativeFile]:
    """Open a file for reading.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    filesystem, path = storage.resolve(uri)
    try:
        with filesystem.open_input_stream(path) as stream:
            yield stream
    except FileNotFoundError as error:
        raise UserError(f"The annotation file {uri} does not exist; check the path.") from error
    except OSError as error:
        raise UserError(f"The annotation file {uri} cannot be read: {error}.") from error


def array_elements(uri: str, key: str | None) -> Iterator[Any]:
    """Yield the elements of an array in a JSON document.

    Args:
        uri: the file.
        key: the key of the array, with dots for nested keys; None: the document is the array.

    Raises:
        UserError: the file is missing, is not JSON (the message has the position), or has no such array.
    """
    prefix = f"{key}.item" if key else "item"
    is_empty = True
    with _json(uri) as content:
        # use_float: ijson's default is Decimal, which is slower and differs from the numbers of `json`.
        for element in ijson.items(content, prefix, use_float=True):
            is_empty = False
            yield content.restored(element)
    # ijson yields nothing both for an empty array and for a missing one; a second pass tells them apart.
    if is_empty and not _has_array(uri, key or ""):
        missing = f"no array under {key!r}" if key else "no array at its top level"
        raise UserError(f"{uri} has {missing}: it has another format; choose the kind of that format.")


def _has_array(uri: str, prefix: str) -> bool:
    return _has(uri, prefix, "start_array")


def _has(uri: str, prefix: str, opening: str) -> bool:
    with _json(uri) as content:
        return any(event == opening and at == prefix for at, event, _ in ijson.parse(content, use_float=True))


def object_entries(uri: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a JSON document that is one object.

    Raises:
        UserError: the file is missing, is not JSON (the message has the position), or is not an object.
    """
    is_empty = True
    with _json(uri) as content:
        for key, value in ijson.kvitems(content, "", use_float=True):
            is_empty = False
            yield content.restored(key), content.restored(value)
    if is_empty and not _has(uri, "", "start_map"):
        raise UserError(f"{uri} is not one JSON object: it has another format; choose the kind of that format.")


def document_value(uri: str, key: str) -> Any:
    """Return the value of a (dotted) key of a JSON document, or None. The file is read only up to the value.

    Raises:
        UserError: the file is missing or not JSON.
    """
    with _json(uri) as content:
        return content.restored(next(ijson.items(content, key, use_float=True), None))


def text_lines(uri: str) -> Iterator[tuple[int, str | BadAnnotation]]:
    """Yield the lines of a text file that are not blank, with their numbers from 1.

    A line that is not UTF-8 is yielded as a `BadAnnotation`.

    Raises:
        UserError: the file is missing, or is UTF-16 that ends inside a character.
    """
    for number, line in _lines(uri):
        if not (text := line.strip()):
            continue
        yield number, text if is_unicode(text) else BadAnnotation(WRONG_TYPE, f"line {number} is not UTF-8 text")


@contextlib.contextmanager
def _json(uri: str) -> Iterator[JsonBytes]:
    """Open a JSON file for ijson.

    Raises:
        UserError: the file is missing or is not JSON; the message has the position.
    """
    with open_stream(uri) as stream:
        try:
            yield JsonBytes(stream)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise UserError(f"{uri} is not a JSON document: {_position(uri)}.") from error


def _position(uri: str) -> str:
    """Return where a document stops being JSON. ijson gives no position, so the standard library parses it again."""
    with open_stream(uri) as stream:
        content = stream.read()
    try:
        json.loads(decode(content))
    except json.JSONDecodeError as error:
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not {error.encoding}"
    return "a number or name in it is not standard JSON"


def is_array(uri: str) -> bool:
    """Return whether the first character of a file, apart from blanks, opens a JSON array.

    Raises:
        UserError: the file is missing.
    """
    with open_stream(uri) as stream:
        for text in text_chunks(stream):
            if text := text.lstrip():
                return text.startswith("[")
    return False


def objects(uri: str) -> Iterator[tuple[str, dict[str, Any] | BadAnnotation]]:
    """Yield the objects of a file that is one JSON array or JSON lines, each with its name in messages: "line 3".

    Raises:
        UserError: the file is missing, or is neither an array nor JSON lines.
    """
    if not is_array(uri):
        yield from ((f"line {number}", entry) for number, entry in json_lines(uri))
        return
    for number, entry in enumerate(array_elements(uri, None)):
        where = f"row {number}"
        yield where, entry if isinstance(entry, dict) else BadAnnotation(
            WRONG_TYPE, f"{where} is {type(entry).__name__}, not an object"
        )  # fmt: skip


def json_lines(uri: str) -> Iterator[tuple[int, dict[str, Any] | BadAnnotation]]:
    """Yield the objects of a JSON-lines file with their line numbers from 1. A broken line gives a `BadAnnotation`.

    Raises:
        UserError: the file is missing, or none of its lines is a JSON object.
    """
    # Broken lines are held back until the first good one: without any, the whole file has another format.
    good, held = False, []
    for number, line in _lines(uri):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError(f"{type(entry).__name__} where an object was expected")
        except (ValueError, RecursionError) as error:
            held.append((number, BadAnnotation(BROKEN_LINE, f"line {number}: {error}")))
            if not good and len(held) >= _MAX_BROKEN_LINES:
                break
            continue
        good = True
        yield from held
        held = []
        yield number, entry
    if held and not good:
        raise UserError(f"{uri} is not a JSON-lines file: {held[0][1]}.")
    yield from held


def _lines(uri: str) -> Iterator[tuple[int, str]]:
    """Yield every line without its line break, with its number from 1.

    Raises:
        UserError: the file is missing, or is UTF-16 that ends inside a character.
    """
    number, rest = 0, ""
    with open_stream(uri) as stream:
        try:
            for text in text_chunks(stream, _PIECE):
                *whole, rest = (rest + text).split("\n")
                for line in whole:
                    number += 1
                    yield number, line
        except UnicodeDecodeError as error:
            raise UserError(f"{uri} is not {error.encoding} at byte {error.start}: {error.reason}.") from error
    if rest:
        yield number + 1, rest
