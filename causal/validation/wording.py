"""What the page of the studies says in words: how rates are judged, and what was simulated."""

from collections.abc import Mapping

from causal.validation import estimators, planned_power, sample_ratios, stopping_rules

TITLES: Mapping[str, str] = {
    estimators.STUDY: "Estimators",
    stopping_rules.STUDY: "Stopping rules",
    sample_ratios.STUDY: "Sample ratio",
    planned_power.STUDY: "Planned power",
}

ABOUT = """\
Simulated experiments whose truth is known, analysed by the suite as it ships: `./spark-submit.sh
validate` draws them, counts how often tests reject and intervals cover, and writes this page.
Every number can be had again from the seed.

A rate has a promised range and a binomial interval (95 %, Clopper and Pearson). The promise is
**kept** if the rate lies in its range, **broken** if even its 99.9 % interval lies outside of
it, and **open** in between: that many experiments cannot tell. In the tables a broken promise is
**bold** and an open one in *italics*; rates are in per cent."""

CONFIRMED = """\
Of dozens of rates at 5 % in 2,000 experiments a few lie outside of 4 to 6 % by chance. A metric
of which the first experiments left a promise open is therefore simulated anew, more often, and the
new experiments count alone: the first were picked out for what they showed. A metric with no open
promise stays as it is."""

NOT_CONFIRMED = """\
Of dozens of rates at 5 % in 2,000 experiments a few lie outside of 4 to 6 % by chance. This run
simulated nothing again where a promise is open (`--confirmation` does)."""

TEXTS: Mapping[str, str] = {
    estimators.STUDY: """\
Experiments on about 800 units, 40 to 60 in control and treatment, or on 60 homes of one to some
twenty units that share a tenth of each draw's variance and are assigned by a coin. Each goes
through the method `ab` as a whole, from the spec to the effects, on the engine for pandas
frames; nothing is estimated by code of the study. Outcomes: skewed profit, a 0/1 purchase,
orders per session, overdispersed visits, log-normal spend winsorised at the 99 % quantile of
both arms, quantiles of log-normal latency, retention among those followed for seven days and
retention after 14 days with censoring.

Promised: without an effect a test at 5 % rejects in 4 to 6 %, and its p-values are uniform
(Kolmogorov's test, p > 0.01; the promise counts as broken below 0.01 over the number of these
tests; of a metric that was simulated anew the median p-value of samples as large as the first is
given). With an effect 95 % intervals cover it in 93.5 to 96.5 %, on the absolute and the relative
scale. Power is shown, not promised. The numbers of experiments are those without and with an
effect.""",
    stopping_rules.STUDY: """\
Paths of the z statistic as they are in large samples, a Brownian motion in information, and
experiments on exponential units read at five looks by the functions of a readout. A test at 5 %
that is looked at 5, 10 or 20 times rejects a true hypothesis in 14, 19 and 25 % (Armitage,
McPherson and Rowe 1969); every rule must stay at or below 5.5 %, those that spend all of their
error at or above 4.5 %.

Unequal looks come at irregular times, drawn once. Power: an effect that a fixed test finds in 80
%; promised is the calculated power of the rule, within one point; beside it the mean information
at the stop, as a share of the maximum. Intervals at the stop: stage-wise ones must cover in 94.5
to 95.5 %; the plain interval is shown beside them.""",
    sample_ratios.STUDY: """\
At alpha 0.001: at most 0.3 % false alarms, and 51 to 49 seen in 90 % among 52,260 units. (The
number of units is that of the normal approximation; summed over the binomial law the check sees
89.95 %, so the promise is kept from 89.5 % on.) The sequential check is looked at daily for four
weeks; what it finds is shown, not promised.""",
    planned_power.STUDY: """\
The calculator learns the outcome from one large history, as a plan does; experiments of the
planned size are then drawn with the effect and analysed by the functions of moments of a
readout. Planned and found power must agree within three points.""",
}
