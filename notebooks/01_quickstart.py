# Databricks notebook source
# MAGIC %md
# MAGIC # From unit rows to effects
# MAGIC
# MAGIC A small world of subscribers is generated into Delta tables, so every true effect is known. Then an A/B test
# MAGIC is read with CUPED and a staggered rollout with difference in differences, and both are put beside the truth.
# MAGIC
# MAGIC Runs as it is in a Databricks Repo, and here by
# MAGIC `./spark-submit.sh notebook --file notebooks/01_quickstart.py`.

# COMMAND ----------

# MAGIC %md
# MAGIC ## What is asked for
# MAGIC Nothing is generated if the tables are there already: after `make demo` this notebook shows the demo's world.

# COMMAND ----------

from jobs.notebook_runner.start import prepared

dbutils.widgets.dropdown("scale", "absolute", ["absolute", "relative"], "Scale of the effects shown")
context = prepared(dbutils, world="subscribers", jobs=("generate", "exposure", "cohorts", "covariates", "panels"))
lakehouse = context.lakehouse
print("tables:", lakehouse.path("subscribers"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The data
# MAGIC One row per subscriber, one per active day; the definitions of the trials say who was randomised how.

# COMMAND ----------

for name in ("subscribers", "subscriber_days", "subscriber_weeks", "subscriber_experiment_units"):
    lakehouse.read(name).createOrReplaceTempView(name)
display(lakehouse.read("subscriber_trials").select("experiment", "design", "unit", "starts_on", "ends_on", "variants", "shares"))

# COMMAND ----------

# DBTITLE 1,Subscribers by tier
# MAGIC %sql
# MAGIC SELECT tier, count(*) AS n_subscribers, round(avg(price), 2) AS mean_price,
# MAGIC        round(avg(CAST(churned_on IS NOT NULL AS INT)), 3) AS share_churned
# MAGIC FROM subscribers GROUP BY tier ORDER BY mean_price

# COMMAND ----------

# DBTITLE 1,Activity by week and its distribution
from matplotlib.figure import Figure

by_week = spark.sql("""
    SELECT week, first_treated_period, avg(minutes) AS minutes
    FROM subscriber_weeks GROUP BY week, first_treated_period ORDER BY week
""").toPandas()
minutes = spark.sql("""
    SELECT floor(minutes / 60) AS hours, count(*) AS n
    FROM subscriber_weeks WHERE week = 0 AND minutes > 0 GROUP BY hours ORDER BY hours
""").toPandas()

figure = Figure(figsize=(11, 3.8), layout="constrained")
left, right = figure.subplots(1, 2)
for start, rows in by_week.groupby("first_treated_period", dropna=False):
    is_never = start != start
    left.plot(
        rows["week"], rows["minutes"], "-o", markersize=3.5,
        color="#7a7a7a" if is_never else None,
        label="never treated" if is_never else f"early content from week {start:.0f}",
    )
left.set(xlabel="week", ylabel="mean minutes per subscriber", title="Activity by week and rollout cohort")
left.legend(frameon=False, fontsize=8)
right.bar(minutes["hours"], minutes["n"], width=0.9, color="#2a7f9e")
right.set(xlabel="hours watched in week 0 (active subscribers)", ylabel="subscribers", title="A heavy right tail")
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Exposures and cohorts
# MAGIC The raw log holds duplicates and late rows. The transform keeps each unit's first event inside the attribution
# MAGIC window and counts everything that it leaves out.

# COMMAND ----------

from pyspark.sql import functions as F

first_exposures = lakehouse.read("subscriber_first_exposures")
display(
    first_exposures.groupBy("experiment").agg(
        F.count("first_exposed_at").alias("n_exposed"),
        *[F.sum(name).alias(name) for name in ("n_rows", "n_events", "n_duplicates", "n_late")],
    ).orderBy("experiment")
)

# COMMAND ----------

trials = lakehouse.read("subscriber_trials").select("experiment", "starts_on")
delays = (
    first_exposures.where("first_exposed_at IS NOT NULL")
    .join(trials, on="experiment", how="inner")
    .groupBy("experiment", F.datediff("first_exposed_at", "starts_on").alias("day"))
    .count()
    .toPandas()
)
cohorts = lakehouse.read("subscriber_cohorts").groupBy("signup_cohort").count().orderBy("signup_cohort").toPandas()

figure = Figure(figsize=(11, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
for experiment, rows in delays.groupby("experiment"):
    rows = rows.sort_values("day")
    left.plot(rows["day"], rows["count"].cumsum() / rows["count"].sum(), label=experiment)
left.set(xlabel="days since the start of the trial", ylabel="share of the exposed", title="First exposures")
left.legend(frameon=False, fontsize=8)
right.fill_between(cohorts["signup_cohort"], cohorts["count"], color="#2a7f9e", alpha=0.7)
right.set(xlabel="week of signing up", ylabel="subscribers", title="Signup cohorts")
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC ## An A/B test with CUPED
# MAGIC One YAML file says what is asked. A table named without a schema is one of the suite's own.

# COMMAND ----------

from jobs.runtime import places

analyses = places.conf("analyses")
print((analyses / "loyalty_rewards.yaml").read_text())

# COMMAND ----------

# MAGIC %md
# MAGIC `run_all` is what the job `analyze` calls: Spark aggregates, the driver infers, and effects, checks and figures
# MAGIC go to the tables `effects` and `diagnostics` and to MLflow.

# COMMAND ----------

from jobs.analyze import run_all
from jobs.runtime import truths

ab, rollout = run_all(context, [analyses / f"{name}.yaml" for name in ("loyalty_rewards", "early_content_event_study")])
print(ab.result.summary())

# COMMAND ----------

# DBTITLE 1,Estimates beside the truth
import pandas as pd

known = truths.compare([ab], truths.read_truths(lakehouse))
scale = dbutils.widgets.get("scale")
shown = [item for item in known if item.effect.scale == scale]
display(pd.DataFrame(truths.summary_rows(shown), columns=list(truths.SUMMARY_COLUMNS)).round(4))

# COMMAND ----------

metrics = list(dict.fromkeys(item.effect.metric for item in shown))
figure = Figure(figsize=(9, 1.15 * len(metrics) + 0.6), layout="constrained")
for axes, metric in zip(figure.subplots(len(metrics), 1, squeeze=False)[:, 0], metrics):
    rows = [item for item in shown if item.effect.metric == metric]
    for row, item in enumerate(rows):
        axes.plot([item.effect.ci_lower, item.effect.ci_upper], [row, row], color="#2a7f9e", linewidth=2.5)
        axes.plot(item.effect.estimate, row, "o", color="#1f3b5c", label="estimate" if row == 0 else None)
        axes.plot(item.truth, row, "D", color="#c8622d", markersize=5, label="truth" if row == 0 else None)
    axes.axvline(0, color="#7a7a7a", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [item.effect.estimator for item in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(f"{metric}, {rows[0].effect.term}", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC What the pre-period covariates buy, and the checks: the sample ratio, the balance of the covariates, the guardrail.

# COMMAND ----------

display(ab.figures["cuped_against_raw"])
display(ab.result.diagnostics_frame())

# COMMAND ----------

# MAGIC %md
# MAGIC ## A staggered rollout
# MAGIC Early content reached some regions in weeks 3 to 6 and others not at all: an event study with errors clustered
# MAGIC by region. Before the start the effects should be zero.

# COMMAND ----------

for name, picture in rollout.figures.items():
    display(picture)

# COMMAND ----------

known = truths.compare([rollout], truths.read_truths(lakehouse))
display(pd.DataFrame(truths.summary_rows(known), columns=list(truths.SUMMARY_COLUMNS)).round(4))
display(rollout.result.diagnostics_frame())

# COMMAND ----------

# MAGIC %md
# MAGIC ## Your own rows
# MAGIC A method never sees where its aggregates come from: any Spark frame will do, and a pandas frame as well
# MAGIC (`causal.core.pandas_engine.PandasEngine`).

# COMMAND ----------

from causal.core import plan, registry
from causal.core.frames import describe
from causal.core.spec import validate
from transforms.gram import SparkEngine

method = registry.method("ab")
spec = validate(method.SPEC, {
    "name": "ad_free_by_hand",
    "source": {"table": "ad_free"},
    "method": "ab",
    "options": {
        "unit": "unit_id", "variant": "variant", "control": "control",
        "metrics": [{"name": "minutes", "type": "mean", "column": "minutes", "role": "primary", "covariates": ["pre_minutes"]}],
    },
})
rows = lakehouse.read("subscriber_experiment_units").where("experiment = 'ad_free'")
result = plan.run(method.estimate(spec), SparkEngine(rows), on_request=lambda number, asked: print(f"pass {number}: {describe(asked)}"))
display(result.to_frame()[["estimator", "term", "scale", "estimate", "ci_lower", "ci_upper", "pvalue"]])

# COMMAND ----------

# MAGIC %md
# MAGIC ## Where to look next

# COMMAND ----------

displayHTML(f"""
<ul>
<li>Runs: <code>{context.tracking.uri}</code>, experiments <b>loyalty_rewards</b> and
    <b>early_content_event_study</b>; run keys <code>{ab.run_key[:12]}</code> and <code>{rollout.run_key[:12]}</code>.
    Outside Databricks <code>make ui</code> opens them.</li>
<li>Tables: <code>effects</code> and <code>diagnostics</code> beside <code>{lakehouse.path("subscribers")}</code>.</li>
<li>More analyses: <code>conf/analyses</code>, run by <code>./spark-submit.sh analyze</code>.</li>
</ul>
""")
