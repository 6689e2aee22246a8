# Databricks notebook source
# MAGIC %md
# MAGIC # Few regions, one of them treated
# MAGIC
# MAGIC Early content reached some regions of the US in week 6. What did it do in each of them? Three answers that need no second treated region stand
# MAGIC side by side with the truth: synthetic control, synthetic difference in differences, Bayesian structural time series. Then a switchback of
# MAGIC drivers' cities, whose effect is put in by hand and therefore known.
# MAGIC
# MAGIC Runs as it is in a Databricks Repo, and here by `./spark-submit.sh notebook --file notebooks/07_regions.py`.

# COMMAND ----------

# MAGIC %md
# MAGIC ## What is asked for
# MAGIC Nothing is generated if the tables are there already.

# COMMAND ----------

from jobs.notebook_runner.start import prepared

prepared(dbutils, world="drivers", jobs=("generate",))
context = prepared(dbutils, world="subscribers", jobs=("generate", "exposure", "cohorts", "panels", "regions"))
lakehouse = context.lakehouse

# COMMAND ----------

# MAGIC %md
# MAGIC ## The panel of regions
# MAGIC Minutes a day per subscriber of each region of one country. Spark sums; what is fitted has one row per region and day.

# COMMAND ----------

from pyspark.sql import functions as F

COUNTRY, START_WEEK = "US", 6
rollout = lakehouse.read("subscriber_rollout").where(F.col("country") == COUNTRY)
people = lakehouse.read("subscribers").join(rollout.select("region", "first_treated_period"), on="region")
first_day = lakehouse.read("subscriber_days").agg(F.min("activity_on")).collect()[0][0]
sizes = people.groupBy("region", "first_treated_period").agg(F.count("*").alias("n_subscribers"))
minutes = (
    lakehouse.read("subscriber_days")
    .join(people.select("subscriber_id", "region"), on="subscriber_id")
    .groupBy("region", F.datediff("activity_on", F.lit(first_day)).alias("day"))
    .agg(F.sum("minutes").alias("minutes"))
)
panel = minutes.join(sizes, on="region").withColumn("minutes", F.col("minutes") / F.col("n_subscribers"))
display(sizes.groupBy("first_treated_period").agg(F.count("*").alias("regions"), F.sum("n_subscribers").alias("subscribers")).orderBy("first_treated_period"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## One region, three methods
# MAGIC The largest region that started in week 6, against the regions of the country that never did.

# COMMAND ----------

from causal.core import plan, registry
from causal.core.spec import validate
from transforms.gram import SparkEngine

chosen = sizes.where(F.col("first_treated_period") == START_WEEK).orderBy(F.desc("n_subscribers")).collect()[0]["region"]
START = 7 * START_WEEK
shown = panel.where((F.col("region") == chosen) | F.col("first_treated_period").isNull())
engine = SparkEngine(shown)


def run(method_name, **options):
    """Spec and result of a method on the region and its donors."""
    method = registry.method(method_name)
    spec = validate(method.SPEC, {
        "name": f"early_content_{method_name}", "source": {"table": "subscriber_days"}, "method": method_name,
        "options": {"unit": "region", "period": "day", "outcome": "minutes", "treated": chosen, "treatment_period": START} | options,
    })
    found = plan.run(method.estimate(spec), engine)
    return found, method.figures(spec, found)


control, control_figures = run("synthetic_control", variant="demeaned")
display(control_figures["paths_minutes"])
display(control_figures["gaps_minutes"])

# COMMAND ----------

did, did_figures = run("synthetic_did")
display(did_figures["comparison_minutes"])

# COMMAND ----------

series, series_figures = run("bsts", seasonality={"n_seasons": 7}, n_draws=600)
display(series_figures["impact_minutes"])

# COMMAND ----------

# MAGIC %md
# MAGIC ## Beside the truth
# MAGIC The world keeps what the rollout added in each region and week. The interval of the synthetic control ranks the region among its placebos: with
# MAGIC fewer than 19 donors nothing can be rejected at 5 %, and it has no ends.

# COMMAND ----------

import pandas as pd
from matplotlib.figure import Figure

added = lakehouse.read("truth_subscriber_rollout").where(F.col("region") == chosen).where(F.col("period") >= START_WEEK).toPandas()
truth = float((added["minutes"] / added["n_units"]).mean() / 7)
rows = []
for name, found in (("synthetic control", control), ("synthetic DiD", did), ("structural time series", series)):
    average = next(effect for effect in found.effects if effect.term == "average" and effect.scale == "absolute")
    rows.append((name, average.estimate, average.ci_lower, average.ci_upper, average.pvalue, truth))
beside = pd.DataFrame(rows, columns=["method", "estimate", "ci_lower", "ci_upper", "pvalue", "truth"])
figure = Figure(figsize=(9, 2.6), layout="constrained")
axes = figure.subplots()
finite = beside.replace([float("-inf"), float("inf")], float("nan"))
edges = finite["ci_lower"].min() - 3, finite["ci_upper"].max() + 3
axes.hlines(beside["method"], beside["ci_lower"].clip(*edges), beside["ci_upper"].clip(*edges), color="#2a7f9e", linewidth=2.5)
axes.set_xlim(*edges)
axes.plot(beside["estimate"], beside["method"], "o", color="#1f3b5c", label="estimate, 95 % interval")
axes.axvline(truth, color="#c8622d", linewidth=1.5, label=f"truth {truth:.2f}")
axes.axvline(0, color="#7a7a7a", linewidth=0.8, linestyle=":")
axes.set(xlabel="minutes a day per subscriber", title=f"What early content did in {chosen}")
axes.set_ylim(2.6, -0.6)
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
axes.spines[["top", "right"]].set_visible(False)
display(figure)
display(beside.round(3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Every region at once
# MAGIC The job `fits` does it for all regions of all countries and both outcomes, as tasks of the cluster: each region against those that never
# MAGIC started, p-values adjusted together, and placebos that show how often the analysis errs.

# COMMAND ----------

from jobs import fits
from jobs.runtime import places

(every,) = fits.run_all(context, fits.FitsConfig(spec=(places.conf("fits", "early_content_by_region.yaml"),)))
display(every.figures["effects_minutes"])
display(every.figures["placebo_pvalues"])

# COMMAND ----------

# DBTITLE 1,Each region beside its truth
added = lakehouse.read("truth_subscriber_rollout").where(F.col("period") >= F.col("first_treated_period"))
known = added.groupBy("region").agg(F.avg("minutes").alias("truth")).toPandas()
table = every.result.tables["fits"]
regions = table[(table["metric"] == "minutes") & ~table["is_placebo"]].merge(known, left_on="unit", right_on="region")
figure = Figure(figsize=(5.6, 4.6), layout="constrained")
axes = figure.subplots()
axes.vlines(regions["truth"], regions["ci_lower"], regions["ci_upper"], color="#9ab8cc", linewidth=1.2)
axes.plot(regions["truth"], regions["estimate"], "o", markersize=4, color="#1f3b5c", label="regions, 95 % interval")
ends = [0, float(regions["truth"].max()) * 1.05]
axes.plot(ends, ends, color="#c8622d", linewidth=1.2, label="estimate = truth")
axes.set(xlabel="true minutes added a week", ylabel="estimate", title="Early content, region by region")
axes.legend(frameon=False, loc="upper left")
axes.spines[["top", "right"]].set_visible(False)
display(figure)
covered = regions["truth"].between(regions["ci_lower"], regions["ci_upper"]).mean()
print(f"{covered:.0%} of {len(regions)} intervals hold the truth")

# COMMAND ----------

# MAGIC %md
# MAGIC ## A switchback of cities
# MAGIC Cities of drivers switch between a bonus and none, drawn anew for every three days. Nothing of the kind happened in this world, so the effect is put
# MAGIC in: 6 % more trips, of which half comes on the first day after a switch and half stays for a day after the bonus ended.

# COMMAND ----------

from causal.core.pandas_engine import PandasEngine
from causal.quasi.geo.switchback_layout import assign_blocks

LIFT, BLOCK = 0.06, 3
cities = lakehouse.read("drivers").select("driver_id", "city")
trips = (
    lakehouse.read("driver_days")
    .join(cities, on="driver_id")
    .groupBy("city", F.datediff("activity_on", F.lit(first_day)).alias("day"))
    .agg(F.sum("trips").alias("trips"))
    .toPandas()
)
trips = trips.pivot(index="city", columns="day", values="trips").fillna(0.0).stack().rename("trips").reset_index()  # a day without rows is a zero
n_blocks = int(trips["day"].max()) // BLOCK + 1
drawn = assign_blocks(sorted(trips["city"].unique()), n_blocks=n_blocks, block_length=BLOCK, salt=20261121)
days = trips.assign(block=trips["day"] // BLOCK).merge(drawn[["region", "block", "treatment"]], left_on=["city", "block"], right_on=["region", "block"])
days = days.sort_values(["city", "day"])
before = days.groupby("city")["treatment"].shift().fillna(0)  # nobody had the bonus before the first day
level = days["trips"].groupby(days["city"]).transform("mean")
days["trips"] = days["trips"] / level * 100 * (1 + LIFT * (days["treatment"] + before) / 2)
untreated = float((days["trips"] / (1 + LIFT * (days["treatment"] + before) / 2)).mean())
true_effect = LIFT * untreated

method = registry.method("switchback")
switchback = validate(method.SPEC, {
    "name": "bonus_switchback", "source": {"table": "city_days"}, "method": "switchback",
    "options": {
        "unit": "city", "period": "day", "outcome": "trips", "treatment": "treatment", "block_length": BLOCK, "season": 7, "wash_out": 1,
    },
})
found = plan.run(method.estimate(switchback), PandasEngine(days[["city", "day", "trips", "treatment"]]))
for picture in method.figures(switchback, found).values():
    display(picture)
print(f"truth {true_effect:+.3f} (index: a city's mean day is 100)")
print(found.summary())

# COMMAND ----------

# MAGIC %md
# MAGIC Without the wash-out the first days of each block pull the estimate towards zero; the figure shows the effect as more of them are left out.

# COMMAND ----------

effect = found.effects[0]
display(pd.DataFrame([{"estimate": effect.estimate, "ci_lower": effect.ci_lower, "ci_upper": effect.ci_upper, "truth": true_effect}]).round(3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Which cities next, and for how long?
# MAGIC A geo experiment is rehearsed on the cities that had no weekly quests: how often would its test reject where nothing happened, and which lift would
# MAGIC it find?

# COMMAND ----------

from causal.quasi.geo import geo_design

quiet = lakehouse.read("driver_rollout").where(F.col("first_treated_period").isNull()).select("city").toPandas()["city"]
design = validate(geo_design.SPEC, {
    "name": "next_bonus", "source": {"table": "city_days"}, "method": "geo_design",
    "options": {
        "unit": "city", "period": "day", "outcome": "trips", "sizes": [2, 4], "durations": [7, 14], "lifts": [0.02, 0.05, 0.1],
        "n_draws": 10, "n_finalists": 1, "n_replications": 50,
    },
})
history = trips[trips["city"].isin(quiet)]
planned = plan.run(geo_design.estimate(design), PandasEngine(history))
display(planned.tables["plan"][["treated", "duration", "aa_rate", "aa_lower", "aa_upper", "mde", "rmse"]].round(3))
for picture in geo_design.figures(planned).values():
    display(picture)
