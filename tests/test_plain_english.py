"""Docstrings, messages and pages are in plain English; `python -m tests.plain_english` prints what is not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import plain_english
from tests.plain_english import (
    IMPERATIVE_SHARE,
    Offence,
    functions,
    is_imperative,
    modules,
    name_offences,
    opening_offences,
    pages,
    word_offences,
)


@pytest.mark.parametrize("rule", [name_offences, opening_offences])
def test_code_breaks_no_rule(rule: Callable[[Path], Iterator[Offence]]) -> None:
    offences = [offence for path in modules() for offence in rule(path)]
    assert not offences, "\n".join(map(str, offences))


def test_docstrings_messages_and_pages_have_no_listed_word() -> None:
    offences = [offence for path in (*modules(), *pages()) for offence in word_offences(path)]
    assert not offences, "\n".join(map(str, offences))


def test_docstrings_of_functions_are_imperative() -> None:
    entries = [text for path in modules() for _, _, text in functions(path)]
    share = sum(map(is_imperative, entries)) / len(entries)
    assert share >= IMPERATIVE_SHARE


def test_the_rules_see_what_they_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_english, "ROOT", tmp_path)
    module = tmp_path / "module.py"
    module.write_text(
        '''
class Config:
    """A thing of its own."""
    field: int = 0
    """What nobody sets."""

def read(found: int) -> int:
    """What the file makes of it."""
    raise ValueError(f"{found} lies beside the table")

def write() -> None:
    """Write the table."""
'''
    )
    assert [offence.text for offence in name_offences(module)] == ["found"]
    assert [offence.text for offence in opening_offences(module)] == ["What"]
    words = sorted(offence.text for offence in word_offences(module))
    assert words == ["What the file makes of", "beside", "lies", "nobody", "of its own"]
    assert [is_imperative(text) for _, _, text in functions(module)] == [False, True]
