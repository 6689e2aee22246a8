"""The table `runs`: one row per run of a job that wrote tables."""

from typing import Final

from transforms.schema import Field, Table

RUNS: Final = Table(
    name="runs",
    comment="One row per run of a job that wrote tables; the newest state of a run key",
    fields=(
        Field(name="run_key", type="STRING", comment="SHA-256 over job, options, input versions and code"),
        Field(name="job", type="STRING", comment="Name of the job"),
        Field(name="status", type="STRING", comment="finished, or failed"),
        Field(name="started_at", type="TIMESTAMP", comment="When the run began, UTC"),
        Field(name="finished_at", type="TIMESTAMP", comment="When it ended, UTC"),
        Field(name="config", type="STRING", comment="Resolved options as JSON"),
        Field(name="inputs", type="STRING", comment="Table to pinned version, as JSON"),
        Field(name="outputs", type="STRING", comment="Table to written version, as JSON"),
        Field(name="code_version", type="STRING", comment="SHA-256 over the code of the suite, first 16 digits"),
        Field(name="error", type="STRING", comment="One line that says why it failed", is_nullable=True),
    ),
    key=("run_key",),
    checks={"status_is_known": "status IN ('finished', 'failed')", "time_runs_forward": "finished_at >= started_at"},
)
