"""Command line of all verbs: a typed configuration from YAML and dotted options, exit codes, and a JSON line.

`python -m jobs.VERB [--config FILE.yaml] [--dotted.key value …]`. Progress and logs go to stderr. The last line of
stdout is a JSON object. Exit codes: 0 success, 2 a mistake in the input, 3 too many unusable records
(`max_bad_fraction`), 1 any other error.
"""

import copy
import difflib
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from pipelines.core.config_files import resolved_text
from pipelines.core.errors import DataRefused, Stopped, UserError
from pipelines.core.paths import with_absolute_paths
from pipelines.core.secrets import require_none
from pipelines.core.steps import StepResult

Config = TypeVar("Config")
log = logging.getLogger("lion")
# jsonargparse's messages about an unknown key: on the command line, at the top level of a file, and in a nested group.
_UNKNOWN = (
    re.compile(r"unrecognized arguments: --(?P<key>[\w.\-]+)"),
    re.compile(r"Option '(?P<key>[\w.\-]+)' is not accepted"),
    re.compile(r"Group '(?P<group>[\w.\-]+)' does not accept option '(?P<key>[\w.\-]+)'"),
)


class _Parser(ArgumentParser):
    """jsonargparse's parser, whose message about an unknown key suggests the most similar key."""

    verb = ""
    """The verb, for the hint in error messages."""
    raises = False
    """Whether an error is raised as a UserError. Otherwise the process ends with exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if self.raises:
            raise UserError(f"{message}{self._nearest(message)}")
        sys.stderr.write(
            f"error: {message}{self._nearest(message)}\n(python -m jobs.{self.verb} --help lists every key)\n"
        )
        sys.exit(UserError.exit_code)

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **options: Any) -> Namespace:
        """Parse a configuration file, with the files that it includes; jsonargparse calls this for `--config`."""
        try:
            text = resolved_text(os.fspath(path))
        except UserError as error:
            self.error(str(error))
        if text is None:
            return super().parse_path(path, *args, **options)
        return self.parse_string(text, os.path.basename(path), *args, **options)

    def _nearest(self, message: str) -> str:
        keys = [action.dest for action in self._actions]
        for match in filter(None, (pattern.search(message) for pattern in _UNKNOWN)):
            name = ".".join(match.groupdict()[part] for part in ("group", "key") if part in match.groupdict())
            if close := difflib.get_close_matches(name.replace("-", "_"), keys, n=1, cutoff=0.5):
                return f"\nDid you mean {close[0]}?"
        return ""


def make_parser(verb: str, config_type: type[Config]) -> "_Parser":
    """Return the parser of a verb, with an option for each configuration field, explained by the field's docstring."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True, parse_optionals_as_positionals=False)
    parser = _Parser(prog=f"python -m jobs.{verb}", description=inspect.getdoc(config_type))
    parser.verb = verb
    parser.add_argument(
        "--config", action="config", help="A YAML file with the keys below. Options on the command line override it."
    )
    parser.add_class_arguments(config_type, as_group=False)
    for action in parser._actions:
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.const = "?", True  # `--back` means `--back true`
    return parser


def parse(verb: str, config_type: type[Config], argv: Sequence[str] | None = None, *, absolute: bool = True) -> Config:
    """Return the configuration of a verb from its command line.

    Args:
        verb: the verb's name.
        config_type: the type of its configuration.
        argv: the arguments; None: those of the process.
        absolute: whether relative paths are made absolute, because other processes have other working directories.

    Raises:
        SystemExit: the command line or a file is wrong. The exit code is 2, and stderr has the reason.
    """
    parser = make_parser(verb, config_type)
    return _build(parser, config_type, parser.parse_args(argv), absolute)


def with_default(argv: Sequence[str], default_file: Path | None) -> list[str]:
    """Return the command line with `--config default_file`, unless it has a `--config`."""
    if default_file is None or any(word == "--config" or word.startswith("--config=") for word in argv):
        return list(argv)
    return ["--config", str(default_file), *argv]


def from_values(verb: str, config_type: type[Config], values: Mapping[str, Any], *, absolute: bool = True) -> Config:
    """Return the configuration of a verb from plain values, as in its YAML file; `absolute` as in `parse`.

    Raises:
        UserError: a key is unknown or a value has the wrong type.
    """
    parser = make_parser(verb, config_type)
    parser.raises = True
    # A copy, because parsing changes nested values in place and a pipeline parses the same values twice.
    return _build(parser, config_type, parser.parse_object(copy.deepcopy(dict(values))), absolute)


def _build(parser: "_Parser", config_type: type[Config], namespace: Any, absolute: bool = True) -> Config:
    try:
        # A configuration checks its own values where it is built.
        namespace = parser.instantiate_classes(namespace)
        config = config_type(**{name: namespace[name] for name in inspect.signature(config_type).parameters})
        require_none(config)
    except UserError as error:
        parser.error(str(error))
    return with_absolute_paths(config) if absolute else config


def main(
    verb: str, config_type: type[Config], run: Callable[[Config], StepResult], default_file: Path | None = None
) -> None:
    """Parse the command line, run the verb, print the JSON line, and end the process with its exit code.

    Args:
        verb: the verb's name.
        config_type: the type of its configuration.
        run: the function that runs it.
        default_file: the configuration file if the command line has no `--config`.
    """
    config = parse(verb, config_type, with_default(sys.argv[1:], default_file))
    stdout = _keep_stdout_for_the_result()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    for noisy in ("httpx", "alembic", "mlflow.store", "mlflow.pyfunc", "sqlalchemy", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    code = _run(verb, run, config, stdout)
    stdout.flush()
    sys.exit(code)


def _run(verb: str, run: Callable[[Any], StepResult], config: Any, stdout: Any) -> int:
    try:
        result = run(config)
    except (UserError, DataRefused, Stopped) as error:
        sys.stderr.write(f"{verb}: {error}\n")
        return error.exit_code
    if result.skipped:
        log.info("%s is complete, nothing to do: %s", verb, result.path)
    stdout.write("".join(f"{line}\n" for line in (*result.lines, result.as_json())))
    return result.exit_code


def _keep_stdout_for_the_result() -> Any:
    """Redirect stdout to stderr, because libraries print to it, and return the original stdout for the JSON line."""
    sys.stdout.flush()
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept
