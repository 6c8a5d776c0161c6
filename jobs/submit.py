"""`python -m jobs.submit [options] -- VERB [its options]`: run a verb as a job on a Ray cluster."""

import importlib
import importlib.util
import json
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.cli import main, parse, with_default
from jobs.pipeline import prepare
from pipelines.core.errors import UserError
from pipelines.core.steps import StepResult
from pipelines.operations.pipeline import PipelineConfig, with_changes
from pipelines.operations.submission.config import SubmitConfig
from pipelines.operations.submission.job import JobRequest


def make_job(command: Sequence[str]) -> JobRequest:
    """Return the job of a command line. The configuration is parsed here, so that mistakes are reported before upload.

    Raises:
        UserError: the verb does not exist.
        SystemExit: the verb's options or files are wrong. The exit code is 2, and stderr has the reason.
    """
    verb, *arguments = command or [""]
    if verb in ("", "submit", "cli") or not verb.isidentifier() or not importlib.util.find_spec(f"jobs.{verb}"):
        verbs = sorted(path.stem for path in Path(__file__).parent.glob("*.yaml") if path.stem != "submit")
        raise UserError(f"There is no verb {verb!r} to submit; write `-- VERB [its options]` with one of {verbs}.")
    module = importlib.import_module(f"jobs.{verb}")
    config_type = typing.get_type_hints(module.run)["config"]
    line = with_default(arguments, getattr(module, "DEMO", None))
    config = parse(verb, config_type, line, absolute=False)  # the job has another working directory
    return JobRequest(verb, arguments, config, _steps(config) if isinstance(config, PipelineConfig) else {})


def _steps(config: PipelineConfig) -> dict[str, Any]:
    """Return the configurations of a pipeline's steps by dotted name."""
    steps = with_changes(config).steps.items()
    return {f"steps.{name}.config": prepare(spec.verb, spec.config, absolute=False)[0] for name, spec in steps}


def run(config: SubmitConfig) -> StepResult:
    """Submit, follow or stop the job."""
    from pipelines.operations.submission.run import submit

    return submit(config, make_job(config.command))


def split(argv: Sequence[str]) -> list[str]:
    """Return the command line with all arguments after `--` as the value of `--command`."""
    if "--" not in argv:
        return list(argv)
    at = list(argv).index("--")
    return [*argv[:at], "--command", json.dumps(list(argv[at + 1 :]))]


if __name__ == "__main__":
    sys.argv[1:] = split(sys.argv[1:])
    main("submit", SubmitConfig, run)
