#!/usr/bin/env bash
# Runs a job:  ./spark-submit.sh [spark-submit options] JOB [options]      (--help lists the jobs)
#
# Honours SPARK_HOME, SPARK_MASTER, JAVA_HOME, PYSPARK_PYTHON and CAUSALAKE_PYTHON (the Python of the driver;
# by default that of .venv, else python3).
set -euo pipefail

here="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"
python="${CAUSALAKE_PYTHON:-}"
if [ -z "$python" ]; then
  if [ -x "$here/.venv/bin/python" ]; then python="$here/.venv/bin/python"; else python="$(command -v python3)"; fi
fi
export CAUSALAKE_ROOT="$here"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m jobs.runtime.launch "$@"
