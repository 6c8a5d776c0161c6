"""JSON read as a stream: one element of a document's array, or one line, at a time. Local or on an object store."""

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

_PIECE = 1 << 20  # bytes of a file of lines that are read at once
_HOPELESS = 100  # broken lines before the first good one: then the file has another format


@contextlib.contextmanager
def open_stream(uri: str) -> Iterator[pa.NativeFile]:
    """Return a file for reading.

    Raises:
        UserError: it is not there, or cannot be read.
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
    """The elements of the array under a top-level key of a JSON document, or of the document itself (`key` None).

    Raises:
        UserError: the file is missing, is not JSON (with the position of the fault), or has no such array.
    """
    prefix = f"{key}.item" if key else "item"
    any_found = False
    with _json(uri) as content:
        for element in ijson.items(content, prefix, use_float=True):
            any_found = True
            yield content.restored(element)
    if not any_found and not _has_array(uri, key or ""):
        wanted = f"no array under {key!r}" if key else "no array at its top"
        raise UserError(f"{uri} has {wanted}: it is a file of another format; choose the kind that fits it.")


def _has_array(uri: str, prefix: str) -> bool:
    return _has(uri, prefix, "start_array")


def _has(uri: str, prefix: str, opening: str) -> bool:
    with _json(uri) as content:
        return any(event == opening and found == prefix for found, event, _ in ijson.parse(content, use_float=True))


def object_entries(uri: str) -> Iterator[tuple[str, Any]]:
    """Return the keys and values of a JSON document that is one object.

    Raises:
        UserError: the file is missing, is not JSON (with the position of the fault), or is no object.
    """
    any_found = False
    with _json(uri) as content:
        for key, value in ijson.kvitems(content, "", use_float=True):
            any_found = True
            yield content.restored(key), content.restored(value)
    if not any_found and not _has(uri, "", "start_map"):
        raise UserError(f"{uri} is not one JSON object: it is a file of another format; choose the kind that fits it.")


def document_value(uri: str, key: str) -> Any:
    """Return the value under a (dotted) key of a JSON document, None where it is not there; stops reading behind it.

    Raises:
        UserError: the file is missing or not JSON.
    """
    with _json(uri) as content:
        return content.restored(next(ijson.items(content, key, use_float=True), None))


def text_lines(uri: str) -> Iterator[tuple[int, str | BadAnnotation]]:
    """Return the lines of a text file that are not blank, with their numbers from 1; one that is not UTF-8 is an error.

    Raises:
        UserError: the file is missing, or ends amid a character of UTF-16.
    """
    for number, line in _lines(uri):
        if not (text := line.strip()):
            continue
        yield number, text if is_unicode(text) else BadAnnotation(WRONG_TYPE, f"line {number} is not UTF-8 text")


@contextlib.contextmanager
def _json(uri: str) -> Iterator[JsonBytes]:
    """Return a JSON file for ijson.

    Raises:
        UserError: it is missing, or its JSON is wrong, with the position of the fault.
    """
    with open_stream(uri) as stream:
        try:
            yield JsonBytes(stream)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise UserError(f"{uri} is not a JSON document: {_position(uri)}.") from error


def _position(uri: str) -> str:
    """Where the JSON parser of the standard library stops; it alone says so. Called once, before the end."""
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
    """Whether the first character of a file that is not blank opens a JSON array.

    Raises:
        UserError: the file is missing.
    """
    with open_stream(uri) as stream:
        for text in text_chunks(stream):
            if text := text.lstrip():
                return text.startswith("[")
    return False


def objects(uri: str) -> Iterator[tuple[str, dict[str, Any] | BadAnnotation]]:
    """The objects of a file that is one JSON array or JSON lines, each with its place for messages: "line 3", "row 2".

    Raises:
        UserError: the file is missing, or is neither.
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
    """Return the objects of a JSON-lines file with their line numbers from 1; a broken line is an error of its own.

    Raises:
        UserError: the file is missing, or no line of it is a JSON object.
    """
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
            if not good and len(held) >= _HOPELESS:
                break
            continue
        good = True
        yield from held
        held = []
        yield number, entry
    if held and not good:
        raise UserError(f"{uri} is not a file of JSON lines: {held[0][1]}.")
    yield from held


def _lines(uri: str) -> Iterator[tuple[int, str]]:
    """Return every line without its line break, with its number from 1.

    Raises:
        UserError: the file is missing, or ends amid a character of UTF-16.
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
            raise UserError(f"{uri} is not {error.encoding} from byte {error.start} on: {error.reason}.") from error
    if rest:
        yield number + 1, rest
