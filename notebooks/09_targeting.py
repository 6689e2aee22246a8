# Databricks notebook source
# MAGIC %md
# MAGIC # Who should get it?
# MAGIC
# MAGIC Taking the ads away costs advertising. Some subscribers watch so much more that it pays, most do not. From a trial the suite learns who they are,
# MAGIC checks on subscribers that no model saw how well it knows, keeps the model, scores everyone with it, and takes the ads away where that pays, within a
# MAGIC budget. The world knows every subscriber's true effect: the policy stands beside the best that there is.
# MAGIC
# MAGIC Runs as it is in a Databricks Repo, and here by `./spark-submit.sh notebook --file notebooks/09_targeting.py`.

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
# MAGIC ## The trial
# MAGIC A third of the subscribers of the trial saw no ads (`full`), a third as many as ever; the arm `light` is left aside here.

# COMMAND ----------

lakehouse.read("subscriber_experiment_units").createOrReplaceTempView("experiment_units")

# COMMAND ----------

# MAGIC %sql
# MAGIC SELECT variant, count(*) AS n_subscribers, round(avg(pre_minutes), 1) AS minutes_before, round(avg(minutes), 1) AS minutes,
# MAGIC        round(avg(revenue), 2) AS revenue
# MAGIC FROM experiment_units WHERE experiment = 'ad_free' AND variant <> 'light' GROUP BY variant ORDER BY variant

# COMMAND ----------

# MAGIC %md
# MAGIC ## Learn
# MAGIC A causal forest and a T-learner, trained on two thirds of the subscribers; all that follows is found on the others. The model goes to the registry with
# MAGIC the hash of its bytes. Minutes scatter widely and effects are small, so that intervals of a few hundred held-out subscribers are wide.

# COMMAND ----------

from jobs import uplift
from jobs.runtime import places

model = uplift.trained(context, places.conf("uplift", "ad_free_uplift.yaml"))
print("\n".join(f"- {text}" for text in model.sentences))

# COMMAND ----------

# MAGIC %md
# MAGIC ## How well does it rank?
# MAGIC **Qini**: what is gained if the highest scores are treated first. The further above the straight line, the better the ranking.

# COMMAND ----------

figures = model.figures
display(figures["qini_forest_full"])

# COMMAND ----------

# MAGIC %md
# MAGIC **TOC**: how much more those with the highest scores gain than all; its mean is the AUTOC above.

# COMMAND ----------

display(figures["toc_forest_full"])

# COMMAND ----------

# MAGIC %md
# MAGIC **Groups of the score**: bars are what was found, points what was predicted. Where the points stand within the intervals the scores are calibrated:
# MAGIC they can be taken for money, not just for an order.

# COMMAND ----------

display(figures["uplift_by_group_forest_full"])
display(model.result.tables["calibration"][["learner", "treatment", "slope", "slope_std_error", "statistic", "df", "pvalue"]].round(3))

# COMMAND ----------

# MAGIC %md
# MAGIC The world knows the true effects, so the order of the scores can be compared with them (Spearman's correlation). An effect of a single subscriber
# MAGIC depends on much that nobody knows; the best possible order would not come near 1 either.

# COMMAND ----------

found = model.result.diagnostics_frame()
display(found[found["name"].str.startswith(("truth_rank", "model", "held_out"))][["name", "statistic", "detail"]])

# COMMAND ----------

# MAGIC %md
# MAGIC ## Score everyone
# MAGIC The newest version of the registered model, loaded by its recorded hash, scores subscribers who were in no ad-free trial.

# COMMAND ----------

from causal.core.spec import Source
from jobs import score

score.run(context, score.ScoreConfig(
    model="ad_free_uplift", table="subscriber_experiment_units", output_table="ad_free_scores", keep=("experiment", "tier", "pre_minutes"),
))
lakehouse.read_source(Source(table="ad_free_scores"))[0].createOrReplaceTempView("ad_free_scores")

# COMMAND ----------

# MAGIC %sql
# MAGIC SELECT tier, count(*) AS n_subscribers, round(avg(pre_minutes)) AS minutes_before, round(avg(effect_full), 1) AS effect,
# MAGIC        round(percentile(effect_full, 0.1), 1) AS effect_p10, round(percentile(effect_full, 0.9), 1) AS effect_p90
# MAGIC FROM ad_free_scores WHERE experiment <> 'ad_free' GROUP BY tier ORDER BY effect DESC

# COMMAND ----------

# MAGIC %md
# MAGIC ## Who gets what, within a budget
# MAGIC A minute watched is worth 0.03, the lost advertising 2.00 a subscriber, and 0.80 a subscriber may be spent: enough for two in five. Those for whom it
# MAGIC pays best come first. What that is worth is found on held-out subscribers of the trial by doubly robust scores.

# COMMAND ----------

from jobs import policy

chosen = policy.decided(context, policy.PolicyConfig(spec=places.conf("uplift", "ad_free_policy.yaml")))
print("\n".join(f"- {text}" for text in chosen.sentences))
display(chosen.result.tables["assignments"].round(3))

# COMMAND ----------

display(chosen.figures["policy_gains"])

# COMMAND ----------

# MAGIC %md
# MAGIC ## How much is left?
# MAGIC True values on the same subscribers: of the policy, of doing nothing, of all alike, of as many by lot, and of the best policy within the budget, which
# MAGIC knows every effect. What separates it from the learned one is what nobody can see beforehand, and what more data would teach.

# COMMAND ----------

values = chosen.result.tables["true_values"]
nothing = values.set_index("policy")["value"]["none"]
display(values.assign(more_than_none=values["value"] - nothing).round(3))
