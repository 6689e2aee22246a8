# Databricks notebook source
# MAGIC %md
# MAGIC # A rollout, region by region
# MAGIC
# MAGIC Early content started in some regions in weeks 3 to 6 and never in others; its effect grows with time and differs between the waves. Two-way fixed
# MAGIC effects average such effects with wrong weights. Here they stand beside estimators that do not, and beside the truth.
# MAGIC
# MAGIC Runs as it is in a Databricks Repo, and here by `./spark-submit.sh notebook --file notebooks/05_rollout.py`.

# COMMAND ----------

# MAGIC %md
# MAGIC ## What is asked for
# MAGIC Nothing is generated if the tables are there already.

# COMMAND ----------

from jobs.notebook_runner.start import prepared

context = prepared(dbutils, world="subscribers", jobs=("generate", "exposure", "cohorts", "panels"))
lakehouse = context.lakehouse

# COMMAND ----------

# MAGIC %md
# MAGIC ## The panel
# MAGIC One row per subscriber and week; a week without activity is a zero.

# COMMAND ----------

weeks = lakehouse.read("subscriber_weeks")
weeks.createOrReplaceTempView("subscriber_weeks")

# COMMAND ----------

# MAGIC %sql
# MAGIC SELECT first_treated_period, count(DISTINCT unit_id) AS n_subscribers, count(DISTINCT region) AS n_regions,
# MAGIC        round(avg(CASE WHEN week < 3 THEN minutes END), 1) AS minutes_before
# MAGIC FROM subscriber_weeks GROUP BY first_treated_period ORDER BY first_treated_period

# COMMAND ----------

# DBTITLE 1,Mean minutes by cohort
from matplotlib.figure import Figure

paths = weeks.groupBy("first_treated_period", "week").agg({"minutes": "avg"}).withColumnRenamed("avg(minutes)", "minutes").toPandas()
COLOURS = {3.0: "#1f3b5c", 4.0: "#2a7f9e", 5.0: "#c8622d", 6.0: "#8a5a9e"}
figure = Figure(figsize=(11, 3.8), layout="constrained")
axes = figure.subplots()
for start, rows in paths.sort_values("week").groupby("first_treated_period", dropna=False):
    is_never = start != start
    colour = "#7a7a7a" if is_never else COLOURS.get(start)
    axes.plot(rows["week"], rows["minutes"], "-o", markersize=3.5, color=colour, label="never" if is_never else f"from week {start:.0f}")
    if not is_never:
        axes.axvline(start - 0.5, color=colour, linestyle=":", linewidth=0.9)
axes.set(xlabel="week", ylabel="mean minutes", title="Cohorts by the week of their start")
axes.legend(frameon=False, ncols=5, loc="lower right")
axes.spines[["top", "right"]].set_visible(False)
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Two-way fixed effects
# MAGIC One number for all. It compares late cohorts with early ones that are treated already: where effects grow, their growth is taken for a trend.

# COMMAND ----------

import pandas as pd

from causal.core import plan, registry
from causal.core.frames import describe
from causal.core.spec import validate
from jobs.runtime import truths
from transforms.gram import SparkEngine

COLUMNS = {"unit": "unit_id", "period": "week", "outcome": "minutes", "first_treated_period": "first_treated_period", "cluster": "region"}
engine = SparkEngine(weeks)


def run(method_name, **options):
    """Result and spec of a method on the panel."""
    method = registry.method(method_name)
    spec = validate(method.SPEC, {
        "name": f"early_content_{method_name}", "source": {"table": "subscriber_weeks"}, "method": method_name,
        "options": COLUMNS | options, "truth": {"world": "subscribers", "design": "early_content"},
    })
    found = plan.run(method.estimate(spec), engine, on_request=lambda number, asked: print(f"pass {number}: {describe(asked)}"))
    return spec, found, method.figures(spec, found)


_, twfe, _ = run("did", estimator="twfe")
display(twfe.to_frame()[["estimator", "term", "estimate", "std_error", "ci_lower", "ci_upper", "n_clusters"]].round(3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Effects by cohort and week
# MAGIC Each cohort against those that have not started yet (Callaway and Sant'Anna 2021): one pass, and the covariance of all effects.

# COMMAND ----------

spec, staggered, figures = run("staggered", control_group="not_yet_treated")
for picture in figures.values():
    display(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC What the two-way estimate is made of, and what the averages of the group-time effects say:

# COMMAND ----------

display(staggered.tables["twfe_decomposition"].round(3))
summary = staggered.to_frame().query("term in ('simple', 'dynamic', 'group', 'calendar')")
display(summary[["term", "estimate", "std_error", "ci_lower", "ci_upper"]].round(3))

# COMMAND ----------

# DBTITLE 1,Event study beside the truth
known = truths.read_truths(lakehouse)
rows = []
for effect in staggered.effects:
    truth = truths.truth_of(spec, effect, known)
    if truth is not None and effect.term.startswith("event_time="):
        rows.append((int(effect.term.split("=")[1]), effect.estimate, effect.ci_lower, effect.ci_upper, truth))
beside = pd.DataFrame(rows, columns=["week since the start", "estimate", "ci_lower", "ci_upper", "truth"]).sort_values("week since the start")
figure = Figure(figsize=(10, 3.8), layout="constrained")
axes = figure.subplots()
at = beside["week since the start"]
axes.vlines(at, beside["ci_lower"], beside["ci_upper"], color="#2a7f9e", linewidth=2.5)
axes.plot(at, beside["estimate"], "o", color="#1f3b5c", label="estimate, 95 % interval")
axes.plot(at, beside["truth"], "D", color="#c8622d", markersize=5, label="truth")
axes.axhline(0, color="#7a7a7a", linewidth=0.8, linestyle=":")
axes.set(xlabel="weeks since the start", ylabel="minutes a week", title="Group-time effects averaged by time since the start")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
display(figure)
display(beside.round(3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Can it be believed?
# MAGIC The checks: parallel trends before the start, and how many clusters stand behind each cohort. Errors are clustered by region, because regions started.

# COMMAND ----------

display(staggered.diagnostics_frame())
