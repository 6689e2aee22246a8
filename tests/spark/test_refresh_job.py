"""A late day merged is a full rebuild, and looks read the days."""

import datetime as dt
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import SparkSession

from causal.core.errors import DataError, SpecError
from jobs import experiment, refresh
from jobs.runtime.progress import Progress
from jobs.runtime.settings import load_settings
from tests import experiment_worlds as worlds
from tests.spark.test_experiment_job import Shared

USERS = worlds.users(500)
LATE = dt.date(2026, 11, 3)


def written(folder: Path, rows: pd.DataFrame, **changes: object) -> Path:
    rows.to_csv(folder / "users.csv", index=False)
    data = {
        **worlds.SPEC,
        "source": {"path": str(folder / "users.csv")},
        "looks": {"day": "entered_on"},
        **changes,
    }
    (folder / "perk.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return folder / "perk.yaml"


def content(context: Shared) -> dict[dt.date, str]:
    """Hash of the rows of each day, to the last digit."""
    rows = context.lakehouse.read("daily_gram").toPandas()
    rows = rows.sort_values(["day_on", "request_hash", "key_json"])
    return {
        day: hashlib.sha256(
            json.dumps(
                [
                    [x.tolist() if isinstance(x, np.ndarray) else str(x) for x in row]
                    for row in part.itertuples(index=False)
                ]
            ).encode()
        ).hexdigest()
        for day, part in rows.groupby("day_on")
    }


def test_a_late_day_merged_is_a_full_rebuild(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged, rebuilt = (
        Shared(spark, load_settings(warehouse=str(tmp_path / name)), Progress())
        for name in ("merged", "rebuilt")
    )
    is_late = (USERS["entered_on"] == LATE) & (USERS["user"] % 7 == 0)
    file = written(tmp_path, USERS[~is_late])
    everything = refresh.RefreshConfig(spec=(file,))
    assert refresh.run(merged, everything) == 0
    before = content(merged)

    written(tmp_path, USERS)
    other = refresh.RefreshConfig(spec=(file,), days=(dt.date(2026, 11, 2),))
    with pytest.raises(DataError, match=r"more days changed .*2026-11-03"):
        refresh.run(merged, other)
    assert content(merged) == before
    assert refresh.run(merged, refresh.RefreshConfig(spec=(file,), days=(LATE,))) == 0
    assert refresh.run(rebuilt, everything) == 0

    after = content(merged)
    assert after == content(rebuilt)
    assert len(after) == 5
    assert {day for day in after if after[day] != before[day]} == {LATE}
    shown = capsys.readouterr().out
    assert "perk: 1 of 5 days written" in shown
    assert refresh.run(merged, everything) == 0
    assert "perk is current" in capsys.readouterr().out

    config = experiment.ExperimentConfig(spec=(file,), as_of=dt.date(2026, 11, 4))
    assert experiment.run(merged, config) == 0
    assert "moments from the stored days up to 2026-11-04" in capsys.readouterr().out
    expected = worlds.looked(worlds.spec(), [USERS[:400]])
    looks = merged.lakehouse.read("looks").toPandas().sort_values(["metric", "scale"])
    wanted = expected.looks.sort_values(["metric", "scale"])
    np.testing.assert_allclose(looks["estimate"], wanted["estimate"], rtol=1e-8)
    np.testing.assert_allclose(looks["std_error"], wanted["std_error"], rtol=1e-8)


def test_days_need_their_column(tmp_path: Path) -> None:
    file = written(tmp_path, USERS, looks={})
    with pytest.raises(SpecError, match=r"looks\.day"):
        refresh.check(refresh.RefreshConfig(spec=(file,)))
