"""`python -m bench`: all questions, or those of `--only`; results are appended to bench/results."""

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import (
    aipw,
    certificate,
    cuped,
    did,
    engine,
    generation,
    iv,
    many_fits,
    memory,
    placebos,
    purchases,
    readout,
    staggered,
    uplift_scoring,
)
from bench.harness import RESULTS, Bench, append, machine_facts, summary
from bench.report import table

MODULES = (
    generation,
    cuped,
    did,
    iv,
    certificate,
    placebos,
    many_fits,
    purchases,
    readout,
    aipw,
    staggered,
    uplift_scoring,
    memory,
)
QUESTIONS = {question.name: question for module in MODULES for question in module.QUESTIONS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the questions one after the other; 0 even where a target is missed."""
    given = _parser().parse_args(arguments)
    if given.table:
        print(table(QUESTIONS, folder=given.results))
        return 0
    given.data.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        data=given.data,
        scale=given.scale,
        n_runs=given.runs,
        memory=given.memory,
        session=functools.cache(lambda: engine.start(given.data, memory=given.memory)),
    )
    for name in given.only or QUESTIONS:
        question = QUESTIONS[name]
        record = question.measure(question, bench)
        append(record, bench=bench, facts=machine_facts(), folder=given.results)
        print(summary(record), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    parser.add_argument(
        "--only", action="append", choices=tuple(QUESTIONS), help="may be given several times"
    )
    parser.add_argument("--runs", type=int, default=3, help="measured runs of each side")
    parser.add_argument("--memory", default="6g", help="driver memory of Spark")
    parser.add_argument(
        "--table", action="store_true", help="only print the newest figures as Markdown"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(tempfile.gettempdir()) / "causalake-bench",
        help="folder of the generated data (about 2 GB), kept between runs",
    )
    return parser


if __name__ == "__main__":
    if "PYTHONHASHSEED" not in os.environ:
        # pyfixest's clustered errors depend on the hash seed, which is read when Python starts.
        os.execve(  # noqa: S606
            sys.executable,
            [sys.executable, "-m", "bench", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
