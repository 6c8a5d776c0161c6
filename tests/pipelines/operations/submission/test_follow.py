"""A job's log, in pieces as they come, and over a connection that breaks."""

import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipelines.operations.submission import follow as module
from pipelines.operations.submission.follow import Log, follow

LINE = '{"step": "precompute", "path": "s3://b/precompute-1", "skipped": false, "rows": 3}'


def test_the_json_line_is_kept_and_the_rest_is_passed_on() -> None:
    sink = io.StringIO()
    log = Log(sink)
    text = f'10:00 one\n{{"a": 1}}\n{{not json}}\n{LINE}\nRay says something after it\n'
    for start in range(0, len(text), 7):
        log.add(text[start : start + 7])
    assert log.result is not None
    assert log.result["rows"] == 3
    assert sink.getvalue() == text.replace(f"{LINE}\n", "")
    assert log.length == len(text)


class Breaking:
    """A dashboard whose connection breaks after two pieces, and that sends the log from its start each time."""

    pieces = ("one\n", "two\n", "three\n", f"{LINE}\n")
    calls = 0

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        self.calls += 1
        for number, piece in enumerate(self.pieces):
            if number == 2 and self.calls == 1:
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield piece

    def get_job_status(self, name: str) -> Any:
        class Ended:
            def is_terminal(self) -> bool:
                return True

        return Ended()


def test_a_lost_connection_is_taken_up_where_it_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    dashboard, sink = Breaking(), io.StringIO()
    log = Log(sink)
    follow(dashboard, "job", log)  # type: ignore[arg-type]  # all that it asks of Ray's client
    assert dashboard.calls == 2
    assert sink.getvalue() == "one\ntwo\nthree\n"
    assert log.result is not None
