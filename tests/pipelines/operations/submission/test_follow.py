"""A job's log: received in parts, and over a connection that breaks."""

import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipelines.operations.submission import follow as module
from pipelines.operations.submission.follow import JobLog, follow

LINE = '{"step": "precompute", "path": "s3://b/precompute-1", "skipped": false, "rows": 3}'


def test_the_json_line_is_kept_and_the_rest_is_forwarded() -> None:
    sink = io.StringIO()
    log = JobLog(sink)
    text = f'10:00 one\n{{"a": 1}}\n{{not json}}\n{LINE}\nRay says something after it\n'
    for start in range(0, len(text), 7):
        log.add(text[start : start + 7])
    assert log.result is not None
    assert log.result["rows"] == 3
    assert sink.getvalue() == text.replace(f"{LINE}\n", "")
    assert log.length == len(text)


class BreakingDashboard:
    """A dashboard that sends the log from its start each time, and whose first connection breaks after two parts."""

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


def test_after_a_lost_connection_the_log_continues_where_it_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    dashboard, sink = BreakingDashboard(), io.StringIO()
    log = JobLog(sink)
    follow(dashboard, "job", log)  # type: ignore[arg-type]  # has the two methods of Ray's client that it calls
    assert dashboard.calls == 2
    assert sink.getvalue() == "one\ntwo\nthree\n"
    assert log.result is not None
