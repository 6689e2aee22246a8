"""The file given to spark-submit: runs the job named first among the arguments."""

import sys
from pathlib import Path

# spark-submit puts this file's folder first on the path; the packages are one folder up, or zipped.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs.runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
