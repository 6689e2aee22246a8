# Databricks notebook source
# MAGIC %md
# MAGIC # How large must the experiment be, and what do covariates buy?
# MAGIC
# MAGIC The control arm of the last experiment is the history: its variances, and how well the weeks before tell the weeks
# MAGIC after, say how many units the next experiment needs. Then the last experiment itself is read with and without CUPED,
# MAGIC beside the truth.
# MAGIC
# MAGIC Runs as it is in a Databricks Repo, and here by `./spark-submit.sh notebook --file notebooks/02_power_and_cuped.py`.

# COMMAND ----------

# MAGIC %md
# MAGIC ## What is asked for
# MAGIC Nothing is generated if the tables are there already.

# COMMAND ----------

from jobs.notebook_runner.start import prepared

dbutils.widgets.text("mde", "0.01", "Smallest lift that matters, as a share of the control level")
context = prepared(dbutils, world="subscribers", jobs=("generate", "exposure", "cohorts", "covariates"))
lakehouse = context.lakehouse

# COMMAND ----------

# MAGIC %md
# MAGIC ## What the weeks before say about the weeks after
# MAGIC CUPED takes out of the outcome what a pre-period covariate foretells. The variance that is left is `1 - R²` of the raw one,
# MAGIC and so is the number of units. Cells are counted in Spark; no unit leaves it.

# COMMAND ----------

history = lakehouse.read("subscriber_experiment_units").where("experiment = 'partner_discount' AND variant = 'control'")
cells = (
    history.selectExpr("floor(log2(pre_minutes + 1) * 4) / 4 AS before", "floor(log2(minutes + 1) * 4) / 4 AS after")
    .groupBy("before", "after")
    .count()
    .toPandas()
)
r_squared = history.selectExpr(
    "count(*) AS n_units",
    *[f"pow(corr({name}, pre_{name}), 2) AS {name}" for name in ("minutes", "sessions", "revenue", "active_days")],
).toPandas()
display(r_squared.round(3))

# COMMAND ----------

# DBTITLE 1,Minutes before and during
import numpy as np
from matplotlib.figure import Figure

figure = Figure(figsize=(11, 4), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
drawn = left.scatter(cells["before"], cells["after"], c=np.log10(cells["count"]), s=22, marker="s", cmap="viridis")
ticks = np.array([0, 3, 6, 9, 12])
for axis, setter in ((left.xaxis, left.set_xticks), (left.yaxis, left.set_yticks)):
    setter(ticks, [f"{2**tick - 1:,.0f}" for tick in ticks])
left.set(xlabel="minutes in the four weeks before", ylabel="minutes during the experiment", title="Subscribers of the control arm")
figure.colorbar(drawn, ax=left, label="subscribers (log10)")
shares = r_squared.drop(columns="n_units").iloc[0]
right.barh(shares.index, 1.0 - shares, color="#2a7f9e")
right.axvline(1.0, color="#7a7a7a", linestyle=":", linewidth=0.9)
right.set(xlabel="variance left by the same outcome before (1 - R²)", title="What one covariate leaves", xlim=(0, 1.05))
right.invert_yaxis()
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The plan
# MAGIC One YAML file says which metrics, arms, and what must be found. Households were randomised, so the plan knows clusters.

# COMMAND ----------

import yaml

from jobs.runtime import places

path = places.conf("plans") / "partner_discount.yaml"
print(path.read_text())

# COMMAND ----------

# MAGIC %md
# MAGIC A plan is answered from moments of the history, by the same engine as an analysis. The notebook asks for the effect of the widget.

# COMMAND ----------

from causal.core import plan
from causal.core.frames import describe
from causal.core.spec import validate
from causal.experiments import power_plan, power_text
from transforms.gram import SparkEngine

asked = yaml.safe_load(path.read_text())
for metric in asked["options"]["metrics"]:
    if "mde" in metric:
        metric["mde"] = float(dbutils.widgets.get("mde"))
asked["options"]["arrivals"] = {"per_day": 5000, "follow_up_days": 28, "max_weeks": 52}
spec = validate(power_plan.SPEC, asked)
planned = plan.run(power_plan.estimate(spec), SparkEngine(history), on_request=lambda number, request: print(f"pass {number}: {describe(request)}"))
print("\n".join(power_text.sentences(planned)))

# COMMAND ----------

columns = ["metric", "estimator", "question", "level", "n_total", "total_days"]
display(planned.tables["plan"][columns].round(3))

# COMMAND ----------

for picture in power_plan.figures(planned).values():
    display(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Was it worth it? The last experiment with and without covariates

# COMMAND ----------

from jobs.analyze import run_all
from jobs.runtime import truths

(ab,) = run_all(context, [places.conf("analyses") / "partner_discount.yaml"])
display(ab.figures["cuped_against_raw"])

# COMMAND ----------

import pandas as pd

effects = ab.result.to_frame().query("scale == 'absolute'")
wide = effects.pivot_table(index="metric", columns="estimator", values="std_error", sort=False)
wide["units saved"] = 1.0 - wide.min(axis=1) ** 2 / wide.max(axis=1) ** 2
display(wide.round(4).reset_index())
known = truths.compare([ab], truths.read_truths(lakehouse))
display(pd.DataFrame(truths.summary_rows(known), columns=list(truths.SUMMARY_COLUMNS)).round(4))

# COMMAND ----------

# MAGIC %md
# MAGIC Both estimators aim at the same truth; the one with covariates has the shorter interval. Checks of the covariates (balance, and that they were
# MAGIC measured before the experiment) stand among the diagnostics.

# COMMAND ----------

display(ab.result.diagnostics_frame())
