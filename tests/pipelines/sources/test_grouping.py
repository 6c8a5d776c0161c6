"""Rows by key have the same texts as a plain dictionary."""

import random

import pytest

from pipelines.sources import grouping
from pipelines.sources.grouping import RowsByKey


def test_it_answers_like_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_CHUNK", 64)
    rng = random.Random(0)
    plain: dict[str, list[str]] = {}
    rows = RowsByKey()
    for number in range(1000):
        key = str(rng.randrange(300))
        plain.setdefault(key, []).append(f"text {number}")
        rows.add(key, f"text {number}")
    assert len(rows) == 1000
    assert {str(key): rows.get(str(key)) for key in range(400)} == {
        str(key): plain.get(str(key), []) for key in range(400)
    }
    assert [text for _, text in rows.items()] == [f"text {number}" for number in range(1000)]


def test_keys_of_the_same_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "hash64", lambda key: 1)
    rows = RowsByKey()
    for key in "abab":
        rows.add(key, f"of {key}")
    assert rows.get("a") == ["of a", "of a"]
    assert rows.get("c") == []
