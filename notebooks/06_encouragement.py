# Databricks notebook source
# MAGIC %md
# MAGIC # Offered is not taken: an encouragement
# MAGIC
# MAGIC A random half was offered the premium upgrade; some take it, and some without the offer do as well. Who takes it is not random, so users and
# MAGIC others cannot be compared. The offer can: it is an instrument for taking it, and gives the effect on those whom it moved.
# MAGIC
# MAGIC Runs as it is in a Databricks Repo, and here by `./spark-submit.sh notebook --file notebooks/06_encouragement.py`.

# COMMAND ----------

# MAGIC %md
# MAGIC ## What is asked for
# MAGIC Nothing is generated if the tables are there already.

# COMMAND ----------

from jobs.notebook_runner.start import prepared

context = prepared(dbutils, world="subscribers", jobs=("generate", "exposure", "cohorts", "covariates"))
lakehouse = context.lakehouse

# COMMAND ----------

# MAGIC %md
# MAGIC ## Offer and uptake

# COMMAND ----------

units = lakehouse.read("subscriber_experiment_units").where("experiment = 'premium_upgrade'").selectExpr("*", "CAST(is_uptake AS INT) AS uptake")
units.createOrReplaceTempView("premium_upgrade")

# COMMAND ----------

# MAGIC %sql
# MAGIC SELECT variant, is_uptake, count(*) AS n_subscribers, round(avg(pre_minutes), 1) AS minutes_before, round(avg(minutes), 1) AS minutes_during
# MAGIC FROM premium_upgrade GROUP BY variant, is_uptake ORDER BY variant, is_uptake

# COMMAND ----------

# MAGIC %md
# MAGIC Those who take the upgrade watched more before: comparing them with the rest would take that for the effect.

# COMMAND ----------

import pandas as pd

from causal.core import plan, registry
from causal.core.frames import describe
from causal.core.spec import validate
from jobs.runtime import truths
from transforms.gram import SparkEngine

engine = SparkEngine(units)


def run(method_name, **options):
    """Result and spec of a method on the units."""
    method = registry.method(method_name)
    spec = validate(method.SPEC, {
        "name": f"premium_upgrade_{method_name}", "source": {"table": "premium_upgrade"}, "method": method_name,
        "options": options, "truth": {"world": "subscribers", "design": "premium_upgrade"},
    })
    found = plan.run(method.estimate(spec), engine, on_request=lambda number, asked: print(f"pass {number}: {describe(asked)}"))
    return spec, found, method.figures(spec, found)


offer = {"column": "variant", "level": "offer"}
_, naive, _ = run("ols", outcome="minutes", numeric=["uptake"])
_, adjusted, _ = run("ols", outcome="minutes", numeric=["uptake", "pre_minutes", "pre_sessions"])
_, itt, _ = run("ols", outcome="minutes", numeric=["pre_minutes", "pre_sessions"], categorical={"variant": "control"})
spec, iv, figures = run(
    "iv", outcome="minutes", treatment="uptake", instruments=[offer], characteristics=["pre_minutes", "tenure_days"],
)
print(iv.summary())

# COMMAND ----------

for picture in figures.values():
    display(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Whom did the offer move?
# MAGIC Compliers cannot be named, but counted and described: their share, and how they differ from all.

# COMMAND ----------

display(iv.tables["compliers"].round(3))

# COMMAND ----------

# DBTITLE 1,Four answers to one question
from matplotlib.figure import Figure

known = truths.read_truths(lakehouse)
late = next(effect for effect in iv.effects if effect.scale == "absolute")
truth = known["subscribers", "premium_upgrade", "late", "minutes", "offer - control", "absolute"]


def first(found, name):
    return next(effect for effect in found.effects if name in effect.term)


answers = {
    "takers against the rest": first(naive, "uptake"),
    "the same, given the weeks before": first(adjusted, "uptake"),
    "the offer itself (intention to treat)": first(itt, "offer"),
    "the upgrade, by the offer (late)": late,
}
figure = Figure(figsize=(10, 3.2), layout="constrained")
axes = figure.subplots()
for row, (name, effect) in enumerate(answers.items()):
    axes.plot([effect.ci_lower, effect.ci_upper], [row, row], color="#2a7f9e", linewidth=2.5)
    axes.plot(effect.estimate, row, "o", color="#1f3b5c")
axes.axvline(truth, color="#c8622d", linewidth=1.2, label="true effect on those whom the offer moved")
axes.legend(frameon=False)
axes.axvline(0, color="#7a7a7a", linewidth=0.8, linestyle=":")
axes.set_yticks(range(len(answers)), list(answers))
axes.invert_yaxis()
axes.set(xlabel="minutes, 95 % interval")
axes.spines[["top", "right"]].set_visible(False)
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Is the instrument good enough?
# MAGIC Strength of the first stage (effective F), the Anderson-Rubin set, which holds whatever the strength, and what the estimate is an average of.

# COMMAND ----------

display(iv.diagnostics_frame())
