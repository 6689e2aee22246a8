# Databricks notebook source
# MAGIC %md
# MAGIC # For whom does it work, and does it last?
# MAGIC
# MAGIC The same experiment by segment, with all segments allowed for, and by days since the first visit. The world is generated, so
# MAGIC every segment's true effect is known.
# MAGIC
# MAGIC Runs as it is in a Databricks Repo, and here by `./spark-submit.sh notebook --file notebooks/04_heterogeneity.py`.

# COMMAND ----------

# MAGIC %md
# MAGIC ## What is asked for
# MAGIC Nothing is generated if the tables are there already.

# COMMAND ----------

from jobs.notebook_runner.start import prepared

dbutils.widgets.dropdown("correction", "holm", ["holm", "bonferroni", "benjamini_hochberg"], "Correction for many comparisons")
context = prepared(dbutils, world="checkout", jobs=("generate", "visitors"))
lakehouse = context.lakehouse

# COMMAND ----------

# MAGIC %md
# MAGIC ## The segments
# MAGIC Mobile users gain most in this world, desktop users least.

# COMMAND ----------

units = lakehouse.read("checkout_units").where("experiment = 'one_page_checkout'")
units.createOrReplaceTempView("checkout_units")

# COMMAND ----------

# MAGIC %sql
# MAGIC SELECT device, customer_type, count(*) AS n_users, round(avg(gross_profit), 2) AS gross_profit,
# MAGIC        round(avg(CAST(is_converted AS INT)), 3) AS conversion
# MAGIC FROM checkout_units GROUP BY device, customer_type ORDER BY n_users DESC

# COMMAND ----------

# MAGIC %md
# MAGIC ## Effects by segment
# MAGIC One pass gives every segment. Their p-values and intervals are corrected for there being several, and one test asks whether the segments
# MAGIC differ at all: that one should be looked at first.

# COMMAND ----------

from causal.core import plan, registry
from causal.core.frames import describe
from causal.core.spec import validate
from transforms.gram import SparkEngine

method = registry.method("ab")
spec = validate(method.SPEC, {
    "name": "checkout_by_segment",
    "source": {"table": "checkout_units", "where": {"experiment": "one_page_checkout"}},
    "method": "ab",
    "options": {
        "unit": "unit_id", "variant": "variant", "control": "control",
        "segments": ["device", "customer_type"],
        "multiplicity": {"correction": dbutils.widgets.get("correction")},
        "metrics": [
            {"name": "is_converted", "type": "proportion", "column": "is_converted", "role": "primary", "covariates": ["pre_orders", "pre_visitor_days"]},
            {"name": "gross_profit", "type": "mean", "column": "gross_profit", "covariates": ["pre_gross_profit", "pre_orders", "pre_visitor_days"]},
        ],
    },
    "truth": {"world": "checkout", "design": "one_page_checkout"},
})
result = plan.run(method.estimate(spec), SparkEngine(units), on_request=lambda number, asked: print(f"pass {number}: {describe(asked)}"))
figures = method.figures(spec, result)
for name in sorted(figures):
    if name.startswith("segment"):
        display(figures[name])

# COMMAND ----------

# MAGIC %md
# MAGIC Do they differ? The test of heterogeneity, per metric and grouping.

# COMMAND ----------

found = result.diagnostics_frame()
display(found[found["name"].str.contains("heterogeneity|interaction")])

# COMMAND ----------

# DBTITLE 1,Segments beside the truth
import pandas as pd

from jobs.runtime import truths

known = truths.read_truths(lakehouse)
rows = []
for effect in result.effects:
    truth = truths.truth_of(spec, effect, known)
    if truth is not None and effect.scale == "absolute" and effect.metric == "is_converted":
        rows.append((effect.term, effect.estimator, effect.estimate, effect.ci_lower, effect.ci_upper, truth))
beside = pd.DataFrame(rows, columns=["term", "estimator", "estimate", "ci_lower", "ci_upper", "truth"])
display(beside.round(4))

# COMMAND ----------

from matplotlib.figure import Figure

corrected = beside["estimator"].str.endswith(dbutils.widgets.get("correction"))
best = beside[corrected & beside["term"].str.contains("|", regex=False)].drop_duplicates("term").reset_index(drop=True)
figure = Figure(figsize=(9, 0.5 * len(best) + 1.2), layout="constrained")
axes = figure.subplots()
for row, item in best.iterrows():
    axes.plot([item.ci_lower, item.ci_upper], [row, row], color="#2a7f9e", linewidth=2.5)
    axes.plot(item.estimate, row, "o", color="#1f3b5c", label="estimate" if row == 0 else None)
    axes.plot(item.truth, row, "D", color="#c8622d", markersize=5, label="truth" if row == 0 else None)
axes.axvline(0, color="#7a7a7a", linewidth=0.8, linestyle=":")
axes.set_yticks(range(len(best)), best["term"])
axes.invert_yaxis()
axes.set(xlabel="effect on conversion", title="Conversion by segment, 95 % for the family")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Does it last?
# MAGIC Effects by days since the first visit, from one row per user and day. A novelty wears off; a slope that is clearly below zero says so. The band holds
# MAGIC for all days together.

# COMMAND ----------

days = lakehouse.read("checkout_visitor_days").where("experiment = 'one_page_checkout'")
weeks = days.selectExpr(
    "unit_id", "variant", "CAST(floor(day / 7) AS INT) AS week", "orders", "gross_profit"
).groupBy("unit_id", "variant", "week").sum("orders", "gross_profit").withColumnsRenamed({"sum(orders)": "orders", "sum(gross_profit)": "gross_profit"})
spec = validate(method.SPEC, {
    "name": "checkout_by_week",
    "source": {"table": "checkout_visitor_days"},
    "method": "ab",
    "options": {
        "unit": "unit_id", "variant": "variant", "control": "control",
        "time_since_exposure": "week",
        "metrics": [{"name": "orders", "type": "mean", "column": "orders", "role": "primary"}],
    },
})
curve = plan.run(method.estimate(spec), SparkEngine(weeks.where("week < 4")))
for name, picture in method.figures(spec, curve).items():
    if "novelty" in name:
        display(picture)
display(curve.tables["novelty"].round(4))
found = curve.diagnostics_frame()
display(found[found["name"].str.contains("novelty")])
