# Databricks notebook source
# MAGIC %md
# MAGIC # Nobody randomised: who chose the ad-free plan?
# MAGIC
# MAGIC Subscribers chose the ad-free plan themselves, and those who watch more chose it more often. Comparing them with the rest takes that for an effect.
# MAGIC Here the naive answer stands beside weighting, matching and double machine learning, and all of them beside the truth; then the question that no
# MAGIC data can answer: how strong would a cause that nobody recorded have to be?
# MAGIC
# MAGIC Runs as it is in a Databricks Repo, and here by `./spark-submit.sh notebook --file notebooks/08_confounded_exposure.py`.

# COMMAND ----------

# MAGIC %md
# MAGIC ## What is asked for
# MAGIC Nothing is generated if the tables are there already.

# COMMAND ----------

from jobs.notebook_runner.start import prepared

context = prepared(dbutils, world="subscribers", jobs=("generate", "exposure", "cohorts", "covariates", "choices"))
lakehouse = context.lakehouse

# COMMAND ----------

# MAGIC %md
# MAGIC ## A choice, and its truth
# MAGIC The world knows what each subscriber of the trial would have watched with ads and without. So they can be let choose: the more active and the newer,
# MAGIC the likelier. Each has the minutes that go with the choice; what the choice did is kept apart. The job `choices` writes both.

# COMMAND ----------

units = lakehouse.read("subscriber_choices").persist()
units.createOrReplaceTempView("ad_free_by_choice")
lakehouse.read("truth_subscriber_choices").createOrReplaceTempView("what_nobody_sees")

# COMMAND ----------

# MAGIC %sql
# MAGIC SELECT is_chosen, count(*) AS n_subscribers, round(avg(pre_active_days), 1) AS active_days_before, round(avg(tenure_days)) AS tenure_days,
# MAGIC        round(avg(minutes)) AS minutes, round(avg(minutes_treated - minutes_without), 1) AS true_effect
# MAGIC FROM ad_free_by_choice JOIN what_nobody_sees USING (unit_id, is_chosen) GROUP BY is_chosen ORDER BY is_chosen

# COMMAND ----------

truths = lakehouse.read("truth_subscriber_choice_effects").where("metric = 'minutes'")
true_effect = {row["estimand"]: row["value"] for row in truths.collect()}
print(f"true effect: {true_effect['ate']:.1f} minutes on all, {true_effect['att']:.1f} on those who chose it, "
      f"{true_effect['overlap']:.1f} on those who might as well not have")

# COMMAND ----------

# MAGIC %md
# MAGIC ## The naive answer
# MAGIC One trial's subscribers fit into memory. Where they do not, `transforms.gram.SparkEngine(units)` takes the engine's place: same requests, same digits.

# COMMAND ----------

import pandas as pd

from causal.core import plan, registry
from causal.core.interval_figure import interval_figure
from causal.core.pandas_engine import PandasEngine
from causal.core.spec import validate

engine = PandasEngine(units.toPandas())
STUDY = {
    "outcome": "minutes", "treatment": "is_chosen", "covariates": ["pre_minutes", "pre_active_days", "tenure_days"], "categorical": {"tier": None},
}
beside = []


def run(method_name, *, label, **options):
    """Spec, result and figures of a method; its effects are kept beside the truth."""
    method = registry.method(method_name)
    spec = validate(method.SPEC, {
        "name": f"ad_free_{method_name}", "source": {"table": "ad_free_by_choice"}, "method": method_name, "seed": 20261122, "options": options,
    })
    found = plan.run(method.estimate(spec), engine)
    for effect in found.effects:
        if effect.term != "intercept":
            whose = "ate" if effect.estimand == "coefficient" else effect.estimand
            beside.append({
                "term": f"{label}: {effect.estimator.replace('_', ' ')} ({whose})", "estimate": effect.estimate,
                "ci_lower": effect.ci_lower, "ci_upper": effect.ci_upper, "truth": true_effect[whose],
            })
    return found, method.figures(spec, found)


naive, _ = run("ols", label="naive", outcome="minutes", numeric=["is_chosen"])
print(naive.summary())

# COMMAND ----------

# MAGIC %md
# MAGIC ## Could they have chosen otherwise?
# MAGIC The propensity is the chance of the choice given what is known. Weights compare subscribers with the same chance, so both groups must be there at
# MAGIC every one of them; where one is missing nothing can be learned. Balance says whether weighting made the groups alike: below 0.1 is the usual mark.

# COMMAND ----------

weighted, figures = run("weighting", label="weighting", **STUDY, estimator=["ipw", "entropy_balancing", "aipw"])
display(figures["overlap_minutes"])
display(figures["balance_minutes"])

# COMMAND ----------

display(weighted.tables["weights"].round(2))
display(weighted.diagnostics_frame()[["name", "passed", "detail"]])

# COMMAND ----------

# MAGIC %md
# MAGIC Overlap weights ask for the effect where both choices are likely; no weight is large there. Effects differ between subscribers, so that is another
# MAGIC number than the mean over all.

# COMMAND ----------

overlap, _ = run("weighting", label="weighting", **STUDY, estimand="overlap")
display(overlap.to_frame()[["estimator", "estimand", "estimate", "std_error", "ci_lower", "ci_upper"]].round(2))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Matching
# MAGIC Each who chose it beside the one who did not and had nearly the same chance: an effect on those who chose.

# COMMAND ----------

matched, figures = run("matching", label="matching", **STUDY, unit="unit_id", caliper=0.2, replace=True)
display(figures["balance_minutes"])

# COMMAND ----------

# MAGIC %md
# MAGIC ## Double machine learning
# MAGIC A model of the choice and one of the minutes, each fitted on other subscribers than those it is used on; the answer is right if either model is.
# MAGIC Three analyses whose answer is known stand beside: a choice drawn by lot, one more column drawn by lot, and a part of the subscribers.

# COMMAND ----------

learned, figures = run(
    "dml", label="double machine learning", **STUDY, unit="unit_id", folds=3, estimator=["aipw", "plr"], sensitivity=True,
    refute=["placebo", "random_common_cause", "subset"],
)
display(learned.tables["refutations"].round(3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## All of them beside the truth

# COMMAND ----------

table = pd.DataFrame(beside)
display(interval_figure(table, title="What the ad-free plan did", quantity="minutes watched in four weeks"))
display(table.assign(holds_truth=table["truth"].between(table["ci_lower"], table["ci_upper"])).round(2))

# COMMAND ----------

# MAGIC %md
# MAGIC ## And if something was not recorded?
# MAGIC The E-value: by what ratio a hidden cause would have to raise both the chance of choosing and the minutes, to explain all of the effect. The robustness
# MAGIC value: which share of what is left of both it would have to explain.

# COMMAND ----------

display(learned.tables["sensitivity"].round(3))

# COMMAND ----------

# MAGIC %md
# MAGIC One that strong? Leave the most telling columns out, and see how far the answer moves.

# COMMAND ----------

beside = beside[:1]
for left_out in ([], ["tenure_days"], ["pre_minutes", "pre_active_days"]):
    kept = [name for name in STUDY["covariates"] if name not in left_out]
    run("weighting", label=f"without {', '.join(left_out)}" if left_out else "all columns", **(STUDY | {"covariates": kept}), estimator="aipw")
display(interval_figure(pd.DataFrame(beside), title="The answer if columns were not recorded", quantity="minutes watched in four weeks"))
