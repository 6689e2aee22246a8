"""Tables of results: stored frames by kind of request, estimates, checks and runs."""

from transforms.schema import Field, Table

_REQUEST = (
    Field(name="analysis", type="STRING", comment="Name of the analysis"),
    Field(name="source", type="STRING", comment="Table that was aggregated"),
    Field(name="source_identity", type="STRING", comment="Names the content that was aggregated"),
    Field(name="request_hash", type="STRING", comment="Fingerprint of the request"),
    Field(name="request_json", type="STRING", comment="The encoded request"),
)
_KEY = Field(name="key_json", type="STRING", comment="Values of the key columns, a JSON object")
_ROWS = Field(name="n", type="BIGINT", comment="Rows used")
_MISSING = Field(name="n_missing", type="BIGINT", comment="Rows left out for a missing value")

GRAM = Table(
    name="gram",
    comment="Stored moments of an analysis: counts, means and centred cross-products by key",
    fields=(
        *_REQUEST,
        _KEY,
        _ROWS,
        _MISSING,
        Field(name="n_units", type="BIGINT", comment="Absorbed units; 0 if none are absorbed"),
        Field(name="sum_weights", type="DOUBLE", comment="Sum of the weights"),
        Field(name="mean", type="ARRAY<DOUBLE>", comment="Weighted means of the p terms"),
        Field(
            name="cross_products",
            type="ARRAY<DOUBLE>",
            comment="Upper triangle, row by row, of the centred cross-product matrix",
        ),
    ),
    key=("analysis", "request_hash", "key_json"),
    checks={"counts_not_negative": "n >= 0 AND n_missing >= 0 AND n_units >= 0"},
    clustering=("analysis",),
)

PANEL_GRAM = Table(
    name="panel_gram",
    comment="Stored moments of outcome paths: means and cross-products over periods, by cohort",
    fields=(
        *_REQUEST,
        _KEY,
        Field(
            name="first_treated_period",
            type="DOUBLE",
            comment="First treated period of the cohort; null: never treated",
            is_nullable=True,
        ),
        Field(name="periods", type="ARRAY<DOUBLE>", comment="The T periods in ascending order"),
        Field(name="n", type="BIGINT", comment="Units observed in every period"),
        Field(
            name="n_incomplete",
            type="BIGINT",
            comment="Units that lack a period, in the sums only if the request says so",
        ),
        Field(name="n_missing", type="BIGINT", comment="Rows without an outcome"),
        Field(name="mean", type="ARRAY<DOUBLE>", comment="Mean outcome by period"),
        Field(
            name="cross_products",
            type="ARRAY<DOUBLE>",
            comment="Upper triangle, row by row, of the centred T x T cross-product matrix",
        ),
    ),
    key=("analysis", "request_hash", "key_json"),
    checks={"counts_not_negative": "n >= 0 AND n_incomplete >= 0 AND n_missing >= 0"},
    clustering=("analysis",),
)

MEAT = Table(
    name="meat",
    comment="Stored sums over clusters of outer products of score sums: the middle of a sandwich",
    fields=(
        *_REQUEST,
        _ROWS,
        _MISSING,
        Field(name="n_clusters", type="BIGINT", comment="Clusters"),
        Field(
            name="cross_products",
            type="ARRAY<DOUBLE>",
            comment="Upper triangle, row by row, of the matrix of the p scores",
        ),
    ),
    key=("analysis", "request_hash"),
    checks={"counts_not_negative": "n >= 0 AND n_missing >= 0 AND n_clusters >= 0"},
    clustering=("analysis",),
)

KEY_CHECK = Table(
    name="key_check",
    comment="Stored answers to the question whether columns are a key",
    fields=(
        *_REQUEST,
        Field(name="n", type="BIGINT", comment="Rows"),
        Field(name="n_null", type="BIGINT", comment="Rows with a null in a key column"),
        Field(name="n_keys", type="BIGINT", comment="Key values"),
        Field(name="n_duplicated", type="BIGINT", comment="Key values that occur more than once"),
        Field(name="examples", type="ARRAY<STRING>", comment="Some such values"),
    ),
    key=("analysis", "request_hash"),
    checks={"counts_not_negative": "n >= 0 AND n_null >= 0 AND n_keys >= n_duplicated"},
    clustering=("analysis",),
)

DAILY_GRAM = Table(
    name="daily_gram",
    comment="Stored moments of an experiment by day: additive, each day made of its own rows alone",
    fields=(
        Field(name="analysis", type="STRING", comment="Name of the experiment"),
        Field(name="day_on", type="DATE", comment="Day on which the units entered"),
        Field(name="request_hash", type="STRING", comment="Fingerprint of the request"),
        Field(name="request_json", type="STRING", comment="The encoded request"),
        _KEY,
        _ROWS,
        _MISSING,
        Field(name="sum_weights", type="DOUBLE", comment="Sum of the weights"),
        Field(name="mean", type="ARRAY<DOUBLE>", comment="Weighted means of the p terms"),
        Field(
            name="cross_products",
            type="ARRAY<DOUBLE>",
            comment="Upper triangle, row by row, of the centred cross-product matrix",
        ),
    ),
    key=("analysis", "day_on", "request_hash", "key_json"),
    checks={"counts_not_negative": "n >= 0 AND n_missing >= 0"},
    clustering=("analysis", "day_on"),
)

DAILY_SOURCES = Table(
    name="daily_sources",
    comment="Which content the days of an experiment in daily_gram were made of",
    fields=(
        Field(name="analysis", type="STRING", comment="Name of the experiment"),
        Field(name="source", type="STRING", comment="What was aggregated"),
        Field(name="source_identity", type="STRING", comment="Names the content"),
        Field(
            name="is_complete",
            type="BOOLEAN",
            comment="All its days are stored; false while they are being restated",
        ),
        Field(name="refreshed_at", type="TIMESTAMP", comment="When, UTC"),
    ),
    key=("analysis",),
    checks={},
)

HISTOGRAM = Table(
    name="histogram",
    comment="Stored counts of values between edges, by key: what quantiles were found from",
    fields=(
        *_REQUEST,
        _KEY,
        Field(name="n", type="BIGINT", comment="Rows with a value"),
        Field(name="n_missing", type="BIGINT", comment="Rows without a value"),
        Field(
            name="bins",
            type="ARRAY<DOUBLE>",
            comment="Bins that hold rows; bin k holds values with k edges below them",
        ),
        Field(name="counts", type="ARRAY<DOUBLE>", comment="Rows in each of these bins"),
        Field(name="lowest", type="ARRAY<DOUBLE>", comment="Smallest value in each of them"),
        Field(name="highest", type="ARRAY<DOUBLE>", comment="Largest value in each of them"),
    ),
    key=("analysis", "request_hash", "key_json"),
    checks={"counts_not_negative": "n >= 0 AND n_missing >= 0"},
    clustering=("analysis",),
)

EFFECTS = Table(
    name="effects",
    comment="Estimates of every method, one row each",
    fields=(
        Field(name="run_key", type="STRING", comment="Run that estimated it"),
        Field(name="analysis", type="STRING", comment="Name of the analysis"),
        Field(name="method", type="STRING", comment="Method of the analysis, such as ab or did"),
        Field(name="estimator", type="STRING", comment="How it was estimated: welch, cuped, twfe"),
        Field(
            name="estimand",
            type="STRING",
            comment="ate, att, acrt, cate, itt, late, coefficient, rate or policy_value",
        ),
        Field(name="metric", type="STRING", comment="Outcome measured"),
        Field(name="term", type="STRING", comment="Comparison or coefficient"),
        Field(name="scale", type="STRING", comment="absolute, or relative to the control level"),
        Field(name="estimate", type="DOUBLE", comment="The estimate"),
        Field(name="std_error", type="DOUBLE", comment="Standard error of the estimate"),
        Field(name="statistic", type="DOUBLE", comment="estimate / std_error"),
        Field(
            name="df",
            type="DOUBLE",
            comment="Degrees of freedom of the t reference; null: standard normal",
            is_nullable=True,
        ),
        Field(name="ci_lower", type="DOUBLE", comment="Lower end of the interval"),
        Field(name="ci_upper", type="DOUBLE", comment="Upper end of the interval"),
        Field(name="confidence_level", type="DOUBLE", comment="Nominal coverage of the interval"),
        Field(name="pvalue", type="DOUBLE", comment="Two-sided p-value of a zero effect"),
        Field(name="n_treated", type="BIGINT", comment="Units behind the treated side"),
        Field(name="n_control", type="BIGINT", comment="Units behind the comparison side"),
        Field(
            name="n_clusters",
            type="BIGINT",
            comment="Clusters behind the standard error; null: not clustered",
            is_nullable=True,
        ),
    ),
    key=("run_key", "estimator", "metric", "term", "scale"),
    checks={
        "std_error_not_negative": "std_error >= 0",
        "pvalue_is_share": "pvalue BETWEEN 0 AND 1",
        "known_scale": "scale IN ('absolute', 'relative')",
    },
    clustering=("analysis",),
)

DIAGNOSTICS = Table(
    name="diagnostics",
    comment="Checks of every run, in the order in which a reader wants them",
    fields=(
        Field(name="run_key", type="STRING", comment="Run that made the check"),
        Field(name="analysis", type="STRING", comment="Name of the analysis"),
        Field(name="position", type="INT", comment="Place of the check in its run, from 0"),
        Field(name="name", type="STRING", comment="Name of the check"),
        Field(
            name="statistic",
            type="DOUBLE",
            comment="Test statistic or measured figure, if there is one",
            is_nullable=True,
        ),
        Field(
            name="pvalue",
            type="DOUBLE",
            comment="P-value; null where the check is no test",
            is_nullable=True,
        ),
        Field(
            name="passed",
            type="BOOLEAN",
            comment="Whether it passed; null: for information only",
            is_nullable=True,
        ),
        Field(name="detail", type="STRING", comment="One plain sentence"),
    ),
    key=("run_key", "position"),
    checks={"position_not_negative": "position >= 0"},
    clustering=("analysis",),
)

_LOOK = (
    Field(name="experiment", type="STRING", comment="Name of the experiment"),
    Field(name="as_of_on", type="DATE", comment="Day of the look"),
    Field(name="look", type="INT", comment="Number of the look, from 1"),
)
_TERM = Field(name="term", type="STRING", comment="Comparison, such as treatment - control")

LOOKS = Table(
    name="looks",
    comment="What each look at an experiment found, one row per metric, comparison and scale",
    fields=(
        *_LOOK,
        Field(name="metric", type="STRING", comment="Outcome measured"),
        _TERM,
        Field(name="scale", type="STRING", comment="absolute, or relative to the control level"),
        Field(name="estimator", type="STRING", comment="How it was estimated: welch, cuped"),
        Field(name="estimate", type="DOUBLE", comment="The estimate on all data of the look"),
        Field(name="std_error", type="DOUBLE", comment="Standard error of the estimate"),
        Field(
            name="df",
            type="DOUBLE",
            comment="Degrees of freedom of the t reference; null: standard normal",
            is_nullable=True,
        ),
        Field(name="n_treated", type="BIGINT", comment="Units behind the treated side"),
        Field(name="n_control", type="BIGINT", comment="Units behind the comparison side"),
        Field(
            name="information",
            type="DOUBLE",
            comment="Information in the unit of the sequential test",
        ),
        Field(
            name="is_final",
            type="BOOLEAN",
            comment="The experiment ended with this look, whatever it found",
        ),
        Field(name="arm_units", type="STRING", comment="Units by arm, a JSON object"),
        Field(name="plan", type="STRING", comment="Fingerprint of what must not change by look"),
        Field(name="source_identity", type="STRING", comment="Names the content that was read"),
        Field(name="run_key", type="STRING", comment="Run that made the look"),
    ),
    key=("experiment", "as_of_on", "metric", "term", "scale"),
    checks={
        "look_positive": "look > 0",
        "std_error_not_negative": "std_error >= 0",
        "scale_is_known": "scale IN ('absolute', 'relative')",
    },
    clustering=("experiment",),
)

DECISIONS = Table(
    name="decisions",
    comment="The decision on each treatment of an experiment at each look, with its reasons",
    fields=(
        *_LOOK,
        _TERM,
        Field(name="verdict", type="STRING", comment="ship, hold, roll_back or needs_more_data"),
        Field(
            name="is_recommended",
            type="BOOLEAN",
            comment="The treatment to prefer among those that may ship",
        ),
        Field(name="metric", type="STRING", comment="Metric that decides"),
        Field(name="scale", type="STRING", comment="Scale on which it is judged"),
        Field(name="estimator", type="STRING", comment="How it was estimated"),
        Field(name="estimate", type="DOUBLE", comment="The estimate"),
        Field(name="std_error", type="DOUBLE", comment="Standard error of the estimate"),
        Field(name="ci_lower", type="DOUBLE", comment="Lower end of the interval"),
        Field(name="ci_upper", type="DOUBLE", comment="Upper end of the interval"),
        Field(
            name="expected_gain",
            type="DOUBLE",
            comment="Posterior mean of the change for the better",
        ),
        Field(name="gain_lower", type="DOUBLE", comment="Lower end of its credible interval"),
        Field(name="gain_upper", type="DOUBLE", comment="Upper end of its credible interval"),
        Field(name="confidence_level", type="DOUBLE", comment="Level of both intervals"),
        Field(name="prob_gain", type="DOUBLE", comment="Probability of a change for the better"),
        Field(name="worse_than", type="DOUBLE", comment="Loss that must be unlikely"),
        Field(name="prob_worse", type="DOUBLE", comment="Probability of a larger loss than that"),
        Field(name="loss_ship", type="DOUBLE", comment="Expected loss of shipping"),
        Field(name="loss_keep", type="DOUBLE", comment="Expected loss of not shipping"),
        Field(name="n_failed", type="INT", comment="Conditions that did not hold"),
        Field(name="failed", type="STRING", comment="These conditions, in words"),
        Field(name="text", type="STRING", comment="The decision in plain words"),
        Field(name="reasons", type="STRING", comment="Every condition tested, a JSON list"),
        Field(
            name="sequential_decision",
            type="STRING",
            comment="What the sequential test says; null: there is none",
            is_nullable=True,
        ),
        Field(
            name="sequential_pvalue",
            type="DOUBLE",
            comment="Its p-value that allows for the looks",
            is_nullable=True,
        ),
        Field(
            name="profit_per_year",
            type="DOUBLE",
            comment="Expected incremental profit per year; null: not asked for",
            is_nullable=True,
        ),
        Field(
            name="profit_lower",
            type="DOUBLE",
            comment="Lower end of its interval",
            is_nullable=True,
        ),
        Field(
            name="profit_upper",
            type="DOUBLE",
            comment="Upper end of its interval",
            is_nullable=True,
        ),
        Field(
            name="prob_profit", type="DOUBLE", comment="Probability of a profit", is_nullable=True
        ),
        Field(
            name="cost_per_year",
            type="DOUBLE",
            comment="Expected cost per year",
            is_nullable=True,
        ),
        Field(name="run_key", type="STRING", comment="Run that made the decision"),
    ),
    key=("experiment", "as_of_on", "term"),
    checks={
        "verdict_is_known": "verdict IN ('ship', 'hold', 'roll_back', 'needs_more_data')",
        "look_positive": "look > 0",
    },
    clustering=("experiment",),
)

RUNS = Table(
    name="runs",
    comment="One row per run of a job that wrote tables; the newest state of a run key",
    fields=(
        Field(
            name="run_key", type="STRING", comment="Hash of job, options, input content and code"
        ),
        Field(name="job", type="STRING", comment="Name of the job"),
        Field(name="status", type="STRING", comment="finished, or failed"),
        Field(name="started_at", type="TIMESTAMP", comment="When the run began, UTC"),
        Field(name="finished_at", type="TIMESTAMP", comment="When it ended, UTC"),
        Field(name="config", type="STRING", comment="Resolved options as JSON"),
        Field(name="inputs", type="STRING", comment="Table to pinned version, as JSON"),
        Field(name="outputs", type="STRING", comment="Table to written version, as JSON"),
        Field(name="code_version", type="STRING", comment="Hash of the suite's code, 16 digits"),
        Field(name="error", type="STRING", comment="Why it failed, one line", is_nullable=True),
    ),
    key=("run_key",),
    checks={
        "status_is_known": "status IN ('finished', 'failed')",
        "time_runs_forward": "finished_at >= started_at",
    },
)

_STATUS = Field(
    name="status",
    type="STRING",
    comment="scored, or why not: unseen_category, missing_value",
)

UPLIFT_SCORES = Table(
    name="uplift_scores",
    comment="Scores of held-out units by the learners of an analysis, and what they are checked by",
    fields=(
        Field(name="analysis", type="STRING", comment="Name of the analysis"),
        Field(name="learner", type="STRING", comment="s, t, x, dr, r or forest"),
        Field(name="treatment", type="STRING", comment="Treatment that is compared with control"),
        Field(name="unit_id", type="STRING", comment="The unit, as text"),
        Field(name="variant", type="STRING", comment="Arm that the unit was in"),
        Field(
            name="outcome", type="DOUBLE", comment="Outcome; null: none is known", is_nullable=True
        ),
        _STATUS,
        Field(
            name="effect",
            type="DOUBLE",
            comment="Effect by a learner that has not seen the unit; null unless scored",
            is_nullable=True,
        ),
        Field(
            name="score_bin",
            type="INT",
            comment="Bin of the effect, from 0, ends at quantiles of training rows",
            is_nullable=True,
        ),
        Field(
            name="doubly_robust_effect",
            type="DOUBLE",
            comment="Doubly robust score of the effect: right on average, noisy for one unit",
            is_nullable=True,
        ),
    ),
    key=("analysis", "learner", "treatment", "unit_id"),
    checks={"scored_have_effects": "(status = 'scored') = (effect IS NOT NULL)"},
    clustering=("analysis", "unit_id"),
)

POLICY_ASSIGNMENTS = Table(
    name="policy_assignments",
    comment="Who gets which treatment under a policy",
    fields=(
        Field(name="policy", type="STRING", comment="Name of the policy"),
        Field(name="unit_id", type="STRING", comment="The unit, as text"),
        Field(name="treatment", type="STRING", comment="What the unit gets; control: nothing"),
        Field(
            name="gain",
            type="DOUBLE",
            comment="Value of the effect by its score less the cost, in money; 0 for control",
        ),
        Field(name="cost", type="DOUBLE", comment="Cost of the treatment in money"),
        _STATUS,
    ),
    key=("policy", "unit_id"),
    checks={"cost_not_negative": "cost >= 0"},
    clustering=("policy", "unit_id"),
)

FRAME_TABLES: tuple[Table, ...] = (GRAM, PANEL_GRAM, MEAT, KEY_CHECK, HISTOGRAM)
RESULT_TABLES: tuple[Table, ...] = (
    *FRAME_TABLES,
    DAILY_GRAM,
    DAILY_SOURCES,
    EFFECTS,
    DIAGNOSTICS,
    LOOKS,
    DECISIONS,
    UPLIFT_SCORES,
    POLICY_ASSIGNMENTS,
    RUNS,
)
