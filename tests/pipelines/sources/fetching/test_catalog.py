"""The catalog of the project is valid, and wrong entries are reported."""

import pytest

from pipelines.core.errors import UserError
from pipelines.scoring.benchmarks import benchmark_table
from pipelines.sources.fetching.catalog import catalog, choose, parse

GOOD = "a: {path: x/a.txt, urls: ['https://h/a'], license: MIT, groups: [g]}\n"


def test_the_projects_own_catalog_reads() -> None:
    entries = catalog()
    assert {"ram", "lion-xl", "eva-vit-g"} <= set(entries)
    weights = {entry.name for entry in choose(["weights"], entries)}
    assert {"ram", "ram-tags", "lion-xl", "eva-vit-g", "flan-t5-xl-config", "bert-vocab"} <= weights
    assert {"lion-xxl", "flan-t5-xxl-model-00005-of-00005"} <= {e.name for e in choose(["weights-xxl"], entries)}
    assert all(entry.page.startswith("https://") for entry in entries.values())
    assert all(entry.urls for entry in choose(["all"], entries))
    assert not {entry.name for entry in choose(["all"], entries)} & {"flickr30k-images", "ocrvqa"}


@pytest.mark.parametrize("benchmark", ["coco_caption", "nocaps", "textcaps", "pope_random", "pope_popular"])
def test_the_files_of_benchmarks_are_in_it(benchmark: str) -> None:
    names = {entry.path.rpartition("/")[2] for entry in catalog().values()}
    assert set(benchmark_table().find(benchmark).files) <= names


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD.replace("x/a.txt", "../a.txt"), "is outside the folder"),
        (GOOD.replace("x/a.txt", "/a.txt"), "is outside the folder"),
        (GOOD.replace("license", "terms"), "terms"),
        (GOOD.replace("https://h/a", "ftp://h/a"), "must all begin with http"),
        (GOOD.replace("license: MIT", "license: MIT, sha256: abc"), "64 hexadecimal"),
        (GOOD.replace("license: MIT", "license: MIT, size: -1"), "not a number of bytes"),
        (GOOD.replace("'https://h/a'", ""), "write a note"),
        (GOOD.replace("[g]", "[a]"), "names of files and of groups"),
        (GOOD + GOOD.replace("a:", "b:", 1), "Two files have the path"),
    ],
)
def test_a_wrong_entry_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'weights'"):
        choose(["weigths"], catalog())
