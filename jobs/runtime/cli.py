"""The command line: `causalake JOB [options]`; everything is validated before Spark starts."""

import argparse
import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from causal.core.errors import CausalError, SpecError
from jobs.runtime.catalogue import find_job, job_lines
from jobs.runtime.logs import configure_logging, redacted
from jobs.runtime.progress import Progress
from jobs.runtime.signals import Interrupted, raise_on_signals

if TYPE_CHECKING:
    from pydantic import BaseModel

    from jobs.runtime.contract import CommandJob, TableJob
    from jobs.runtime.settings import Settings

_EPILOG = """\
exit codes: 0 done, 1 failed, 2 bad spec or arguments, 3 the data failed a quality gate,
4 a health check or guardrail says stop (results are written), 5 gave up on a concurrent writer,
130 / 143 interrupted
"""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """A validated command line.

    Attributes:
        job: The job.
        config: Its options.
        settings: The settings.
        is_debug: Whether tracebacks are wanted.
    """

    job: "TableJob[Any] | CommandJob[Any]"
    config: "BaseModel"
    settings: "Settings"
    is_debug: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in given
    configure_logging(is_debug=is_debug)
    raise_on_signals()
    _say_pid()
    return guarded(lambda: _run(given), is_debug=is_debug)


def guarded(work: Callable[[], int], *, is_debug: bool) -> int:
    """Do the work; a failure becomes one line on standard error and its exit code."""
    try:
        return work()
    except Interrupted as stopped:
        return _failed(stopped, code=stopped.exit_code, is_debug=False)
    except CausalError as error:
        return _failed(error, code=error.exit_code, is_debug=is_debug)
    except Exception as error:  # noqa: BLE001 - the outermost frame: one line and the code
        explained = _explained(error)
        return _failed(explained, code=explained.exit_code, is_debug=is_debug)


def parse(arguments: Sequence[str]) -> Invocation | None:
    """Validate a command line without starting Spark.

    Returns:
        The invocation; `None` when help was asked for (and shown).

    Raises:
        SpecError: Anything about it is wrong.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        Progress().text(overview())
        return None
    name, rest = arguments[0], list(arguments[1:])
    if name.startswith("-"):
        raise SpecError("the job's name comes first", given=name, allowed=list(job_lines()))
    job = find_job(name)
    parser = _parser(job)
    if "-h" in rest or "--help" in rest:
        Progress().text(parser.format_help())
        return None
    return _validated(job, parser, rest)


def overview() -> str:
    """The help that lists the jobs."""
    lines = job_lines()
    width = max(len(name) for name in lines)
    listed = "\n".join(f"  {name.ljust(width)}  {line}" for name, line in lines.items())
    return (
        "usage: spark-submit.sh [spark-submit options] JOB [options]\n\n"
        f"jobs:\n{listed}\n\nJOB --help shows a job's options.\n{_EPILOG}"
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SpecError(message[:1].lower() + message[1:])


def _parser(job: "TableJob[Any] | CommandJob[Any]") -> _Parser:
    parser = _Parser(
        prog=f"spark-submit.sh {job.name}",
        description=job_lines()[job.name],
        epilog=_EPILOG,
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options = parser.add_argument_group("options of this job")
    for name, field in job.config.model_fields.items():
        _add_option(options, name, field)
    general = parser.add_argument_group("options of every job")
    general.add_argument("--env", default="local", help="local (default), cluster or databricks")
    general.add_argument("--warehouse", help="folder or URI of the tables")
    general.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file with options of this job"
    )
    general.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting (limits.lock_seconds=5) or an option of the job by path; may be repeated",
    )
    general.add_argument("--debug", action="store_true", help="show tracebacks and Spark's log")
    general.add_argument("-h", "--help", action="store_true", help="show this help")
    return parser


def _add_option(group: argparse._ArgumentGroup, name: str, field: Any) -> None:
    """A flag for a field with a scalar type (or a list of scalars); others have none."""
    from jobs.runtime.flags import flag_kind, shown_default

    kind = flag_kind(field.annotation)
    if kind is None:
        return
    text = (field.description or "").replace("%", "%%") + shown_default(field)
    flag = "--" + name.replace("_", "-")
    extra: dict[str, Any] = {"dest": f"option_{name}", "default": argparse.SUPPRESS}
    if kind.is_switch:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text, **extra)
    elif kind.is_list:
        group.add_argument(flag, nargs="+", metavar=kind.metavar, help=text, **extra)
    else:
        group.add_argument(flag, metavar=kind.metavar, help=text, **extra)


def _validated(
    job: "TableJob[Any] | CommandJob[Any]", parser: _Parser, arguments: list[str]
) -> Invocation:
    from jobs.runtime.settings import Settings, assignments, load_settings, merged
    from jobs.runtime.yaml_file import read_yaml

    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise _unknown_option(unknown[0], parser)
    to_settings = [
        text
        for text in known.set
        if re.split(r"[.=]", text, maxsplit=1)[0] in Settings.model_fields
    ]
    settings = load_settings(env=known.env, overrides=to_settings, warehouse=known.warehouse)
    jobs = list(job_lines())
    for name in settings.jobs:
        if name not in jobs:
            raise SpecError("unknown job", given=name, allowed=jobs, key="jobs")
    flags = {
        key.removeprefix("option_"): value
        for key, value in vars(known).items()
        if key.startswith("option_")
    }
    given: Mapping[str, Any] = settings.jobs.get(job.name, {})
    if known.config is not None:
        given = merged(given, read_yaml(known.config).data)
    given = merged(given, assignments(text for text in known.set if text not in to_settings))
    config = configured(job, merged(given, flags), file=known.config)
    return Invocation(job=job, config=config, settings=settings, is_debug=known.debug)


def configured(
    job: "TableJob[Any] | CommandJob[Any]", given: Mapping[str, Any], *, file: Path | None = None
) -> "BaseModel":
    """The options of a job: those given, over those it computes from them, over its defaults.

    Raises:
        SpecError: They do not fit the job's config.
    """
    from causal.core.spec import validate
    from jobs.runtime.contract import CommandJob
    from jobs.runtime.settings import merged

    values = merged(job.defaults(given), given) if job.defaults is not None else dict(given)
    config: BaseModel = validate(job.config, values, file=file if file is not None else job.name)
    if isinstance(job, CommandJob) and job.check is not None:
        job.check(config)
    return config


def _unknown_option(text: str, parser: _Parser) -> SpecError:
    flags = [flag for action in parser._actions for flag in action.option_strings]  # noqa: SLF001
    close = difflib.get_close_matches(text.partition("=")[0], flags, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return SpecError(f"unknown option{hint}", given=text, allowed=flags)


def _run(arguments: Sequence[str]) -> int:
    invocation = parse(arguments)
    return 0 if invocation is None else _execute(invocation)


def _say_pid() -> None:
    """Tell the launcher which process to signal."""
    if pid_file := os.environ.get("CAUSALAKE_DRIVER_PID_FILE"):
        Path(pid_file).write_text(str(os.getpid()), encoding="utf-8")


def _execute(invocation: Invocation) -> int:
    from jobs.runtime.context import Context
    from jobs.runtime.runner import run_job

    context = Context(
        settings=invocation.settings, progress=Progress(), is_debug=invocation.is_debug
    )
    return run_job(context, invocation.job, invocation.config)


def _explained(error: Exception) -> CausalError:
    """Spark's exceptions as ours; anything else as an internal error."""
    if isinstance(error, ModuleNotFoundError) and error.name not in (
        "jobs",
        "transforms",
        "causal",
    ):
        return CausalError(
            f"this Python has no module {error.name}: run make setup, or set CAUSALAKE_PYTHON",
            given=sys.executable,
        )
    from jobs.runtime.spark_errors import SPARK_EXCEPTIONS, translate

    if isinstance(error, SPARK_EXCEPTIONS):
        return translate(error)
    if isinstance(error, OSError):
        return CausalError(f"{error.strerror or error}", file=error.filename)
    return CausalError(f"internal error, {type(error).__name__}: {error} (--debug shows where)")


def _failed(error: BaseException, *, code: int, is_debug: bool) -> int:
    if is_debug:
        sys.stderr.write(redacted(traceback.format_exc()))
    sys.stderr.write(redacted(f"causalake: {error}") + os.linesep)
    sys.stderr.flush()
    return code
