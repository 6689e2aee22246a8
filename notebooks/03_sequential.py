# Databricks notebook source
# MAGIC %md
# MAGIC # Looking every week without fooling yourself
# MAGIC
# MAGIC A test that is read at 1.96 standard errors every week rejects far more often than one time in twenty. Here that is shown, then designs
# MAGIC are compared that allow for the looks, and the experiment with the new checkout is followed from look to look to a decision.
# MAGIC
# MAGIC Runs as it is in a Databricks Repo, and here by `./spark-submit.sh notebook --file notebooks/03_sequential.py`.

# COMMAND ----------

# MAGIC %md
# MAGIC ## What is asked for
# MAGIC Nothing is generated if the tables are there already.

# COMMAND ----------

from jobs.notebook_runner.start import prepared

dbutils.widgets.text("looks", "3", "Looks at the experiment")
context = prepared(dbutils, world="checkout", jobs=("generate", "visitors"))
lakehouse = context.lakehouse

# COMMAND ----------

# MAGIC %md
# MAGIC ## What peeking does
# MAGIC Twenty thousand experiments without any effect, each with twenty looks at equal distances.

# COMMAND ----------

import numpy as np
from matplotlib.figure import Figure

from causal.experiments.group_sequential import WangTsiatis
from causal.experiments.sequential_design import design

N_LOOKS, ALPHA = 20, 0.05
steps = np.random.default_rng(20261121).standard_normal((20_000, N_LOOKS))
z = steps.cumsum(axis=1) / np.sqrt(np.arange(1, N_LOOKS + 1))
fractions = np.arange(1, N_LOOKS + 1) / N_LOOKS
rules = {
    "O'Brien-Fleming": WangTsiatis(delta=0.0),
    "Pocock": WangTsiatis(delta=0.5),
}
designs = {
    name: design(fractions, rule=rule, alpha=ALPHA / 2, is_two_sided=True, power=0.8) for name, rule in rules.items()
}


def rejected(limits):
    """Share of the experiments that have crossed by each look."""
    return (np.abs(z) >= limits).cumsum(axis=1).astype(bool).mean(axis=0)


errors = {"1.96 at every look": rejected(1.959964)} | {
    name: rejected(found.limits.efficacy) for name, found in designs.items()
}
figure = Figure(figsize=(11, 3.8), layout="constrained")
left, right = figure.subplots(1, 2)
for colour, (name, curve) in zip(("#c8622d", "#1f3b5c", "#2a7f9e"), errors.items()):
    left.plot(range(1, N_LOOKS + 1), curve, "-o", markersize=3.5, color=colour, label=name)
left.axhline(ALPHA, color="#7a7a7a", linestyle=":", linewidth=1)
left.set(xlabel="looks", ylabel="false alarms so far", title="Without an effect", ylim=(0, None), xticks=(1, 5, 10, 15, 20))
left.legend(frameon=False)
for colour, (name, found) in zip(("#1f3b5c", "#2a7f9e"), designs.items()):
    right.plot(range(1, N_LOOKS + 1), found.limits.efficacy, "-o", markersize=3.5, color=colour, label=name)
right.axhline(1.959964, color="#c8622d", linewidth=1, label="1.96")
right.set(xlabel="look", ylabel="|z| that stops", title="Where the designs stop", ylim=(1.5, 9), xticks=(1, 5, 10, 15, 20))
right.legend(frameon=False)
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What a design costs
# MAGIC More looks need more units at the most, and fewer on average if there is an effect.

# COMMAND ----------

import pandas as pd

rows = []
for n_looks in (1, 2, 5, 10, 20):
    at = np.arange(1, n_looks + 1) / n_looks
    for name, rule in rules.items():
        found = design(at, rule=rule, alpha=ALPHA / 2, is_two_sided=True, power=0.8)
        rows.append((name, n_looks, found.inflation_factor, found.expected_information(found.under_alternative)))
costs = pd.DataFrame(rows, columns=["design", "looks", "largest sample", "expected sample with the effect"])
display(costs.round(3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The experiment
# MAGIC The new checkout. Users enter the trial on the day of their first visit; a look reads those who have entered by its day. An always-valid
# MAGIC confidence sequence may be read at any look.

# COMMAND ----------

from jobs.runtime import places

path = places.conf("experiments", "checkout") / "one_page_checkout.yaml"
print(path.read_text())

# COMMAND ----------

days = (
    lakehouse.read("checkout_units").groupBy("assigned_on", "variant").count().toPandas()
    .pivot(index="assigned_on", columns="variant", values="count").fillna(0).sort_index()
)
figure = Figure(figsize=(11, 3), layout="constrained")
axes = figure.subplots()
days.cumsum().plot(ax=axes, color=["#7a7a7a", "#2a7f9e"])
axes.set(xlabel="", ylabel="users entered", title="Enrolment")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC Looks at equal distances; each is one run of the job `experiment` and leaves rows in `looks` and `decisions`. A look that was made already stays as it is.

# COMMAND ----------

from jobs.experiment import ExperimentConfig, run_all

n_looks = int(dbutils.widgets.get("looks"))
entered = sorted(days.index)
at = [entered[round(len(entered) * share) - 1] for share in np.arange(1, n_looks + 1) / n_looks]
for day in at:
    (look,) = run_all(context, ExperimentConfig(spec=(path,), as_of=day))

# COMMAND ----------

# DBTITLE 1,The scorecard's figures
for picture in look.figures.values():
    display(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The decision
# MAGIC It names its reasons, as data.

# COMMAND ----------

for decision in look.experiment.decisions.decisions:
    print(decision.text)
looks = lakehouse.read("looks").where("experiment = 'one_page_checkout' AND metric = 'gross_profit' AND scale = 'absolute'")
display(looks.select("look", "as_of_on", "estimator", "term", "estimate", "std_error", "n_treated", "n_control").orderBy("look"))

# COMMAND ----------

# DBTITLE 1,What a product manager gets
from jobs.runtime.experiments import texts

displayHTML(texts(look)["scorecard.html"])

# COMMAND ----------

# MAGIC %md
# MAGIC The same command every morning, `./spark-submit.sh experiment --spec FILE`, is how an experiment is followed; `refresh` keeps its days as stored
# MAGIC moments so that a look reads no rows again.
