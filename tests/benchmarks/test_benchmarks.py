"""The runner, its table and its floors, with a tiny benchmark. No test here depends on timing."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.benchmarks import table
from tests.benchmarks.__main__ import BENCHMARKS, main
from tests.benchmarks.figures import Figure, NotMeasured, Settings, in_turns
from tests.benchmarks.runner import ROOT


def measure(settings: Settings) -> Iterator[Figure | NotMeasured]:
    """Yield figures with fixed numbers, like the module of a benchmark."""
    print("a library prints something", flush=True)
    (settings.work / "left").touch()
    rounds = settings.choose(4, 2)
    turns = in_turns(rounds, {"sorted": lambda: 2.0, "bubbles": lambda: 3.0})
    yield Figure("sorting", "sorted", "bubble sort", turns["sorted"], turns["bubbles"], "s", "CPU time", goal=1.2)
    yield Figure("rate", "ours", "theirs", [8.0, 9.0], [10.0, 10.0], "images/s", "wall time", rate=True, note="a note")
    yield NotMeasured("gpu", "there is no GPU")


MODULES = {"tiny": "tests.benchmarks.test_benchmarks", "broken": "tests.benchmarks.no_such_module"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the benchmark above and return the folder of its table."""
    folder = tmp_path_factory.mktemp("bench")
    assert (
        main(["--only", "tiny", "--quick", "--out", str(folder), "--floors", str(floors(folder, 1.4, 0.8))], MODULES)
        == 0
    )
    return folder


def floors(folder: Path, sorting: float, rate: float) -> Path:
    path = folder / f"floors-{sorting}-{rate}.yaml"
    path.write_text(f"tiny:\n  sorting: {sorting}\n  rate: {rate}\n")
    return path


def test_a_ratio_is_above_one_if_ours_is_better() -> None:
    cost = Figure("a", "", "", [1.0, 2.0, 4.0], [2.0, 2.0, 2.0], "s", "CPU time")
    assert (cost.ratios, cost.ratio, cost.best) == ([2.0, 1.0, 0.5], 1.0, 2.0)
    rate = Figure("a", "", "", [1.0, 2.0, 4.0], [2.0, 2.0, 2.0], "1/s", "CPU time", rate=True)
    assert (rate.ratios, rate.ratio, rate.best) == ([0.5, 1.0, 2.0], 1.0, 2.0)
    with pytest.raises(ValueError, match="as many measurements of one variant as of the other"):
        Figure("a", "", "", [1.0], [], "s", "CPU time")


def test_contenders_take_turns_and_none_is_always_first() -> None:
    calls: list[str] = []

    def contender(name: str) -> float:
        calls.append(name)
        return 1.0

    in_turns(3, {name: partial(contender, name) for name in "ab"})
    assert "".join(calls) == "abbaab"


def test_the_table_has_the_figures_and_the_machine(out: Path) -> None:
    text = (out / "table.md").read_text()
    sorting = "sorted: 2 s | bubble sort: 3 | 1.50 (1.50 to 1.50) | 1.50 | 1.2 | 1.4 | CPU time, 2 rounds"
    rate = "ours: 8.5 images/s | theirs: 10 | 0.85 (0.80 to 0.90) | 0.90 |  | 0.8 | wall time, 2 rounds"
    assert f"| `tiny.sorting` | {sorting} |" in text
    assert f"| `tiny.rate` | {rate} |" in text
    assert "`tiny.rate`: a note" in text
    assert "`tiny.gpu` not measured: there is no GPU" in text
    facts = json.loads((out / "table.json").read_text())["facts"]
    assert {"processor", "cores", "gpus", "commit", "versions", "load_average"} <= set(facts)
    assert "a library prints something" in (out / "logs/tiny.log").read_text()


@pytest.mark.parametrize(
    ("sorting", "rate", "message"),
    [
        (1.5, 0.9, ""),  # the best rounds reach 0.9, the median does not
        (1.6, 0.8, "tiny.sorting is 1.50 (best rounds 1.50), below its floor of 1.6"),
        (1.5, 0.95, "tiny.rate is 0.85 (best rounds 0.90), below its floor of 0.95"),
    ],
)
def test_a_figure_below_its_floor_fails_by_name(
    out: Path, sorting: float, rate: float, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = floors(out, sorting, rate)
    assert main(["--check", "--table", str(out / "table.json"), "--floors", str(path)], MODULES) == bool(message)
    assert message in capsys.readouterr().err


def test_a_figure_without_a_floor_fails_by_name(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = out / "empty.yaml"
    path.write_text("tiny:\n  sorting: 1\n")
    assert main(["--check", "--table", str(out / "table.json"), "--floors", str(path)], MODULES) == 1
    assert "tiny.rate has no floor" in capsys.readouterr().err


def test_a_benchmark_that_fails_is_named_and_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modules = {"broken": MODULES["broken"], "tiny": MODULES["tiny"]}
    assert main(["--check", "--out", str(tmp_path), "--floors", str(floors(tmp_path, 1, 0.5))], modules) == 1
    assert "The benchmark broken failed: ModuleNotFoundError" in capsys.readouterr().err
    assert len(table.read(tmp_path / "table.json")[1].figures) == 2


def test_every_benchmark_has_floors_and_a_module() -> None:
    names = {name.partition(".")[0] for name in table.read_floors()}
    assert names == set(BENCHMARKS)
    for module in BENCHMARKS.values():
        assert (ROOT / f"{module.replace('.', '/')}.py").exists()
