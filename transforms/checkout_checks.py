"""The quality checks of the shop's records, in SQL.

Statistical checks compare with limits that chance crosses about once in 16,000 runs (four standard
errors). Each looks at what its fault moves and conditions on the rest, so that one fault raises one
warning: the devices' arms are compared with the arms of all users and not with the plan, the past
within devices, traffic by visitor day and not by session.
"""

from transforms.sql_checks import SqlCheck

CHECKOUT_CHECKS: tuple[SqlCheck, ...] = (
    SqlCheck(
        name="sample_ratio_mismatch",
        warning="an arm has far more or fewer users than planned",
        sql="""
WITH planned AS (
  SELECT experiment, inline(arrays_zip(variants, shares)) AS (variant, share)
  FROM checkout_trials
),
counted AS (
  SELECT experiment, variant, count(DISTINCT user_id) AS n
  FROM checkout_assignments
  GROUP BY experiment, variant
),
arms AS (
  SELECT experiment, variant, coalesce(share, 0) AS share, coalesce(n, 0) AS n_users,
         sum(coalesce(n, 0)) OVER (PARTITION BY experiment) AS n_all
  FROM planned FULL JOIN counted USING (experiment, variant)
)
SELECT experiment, variant, n_users, n_all * share AS n_planned
FROM arms
WHERE abs(n_users - n_all * share) > 4 * sqrt(n_all * share * (1 - share))
""",
    ),
    SqlCheck(
        name="duplicate_assignments",
        warning="a user is assigned to the same variant more than once",
        sql="""
SELECT experiment, user_id, variant, count(*) AS n_rows
FROM checkout_assignments
GROUP BY experiment, user_id, variant
HAVING count(*) > 1
""",
    ),
    SqlCheck(
        name="crossover",
        warning="a user is assigned to several variants",
        sql="""
SELECT experiment, user_id, count(DISTINCT variant) AS n_variants
FROM checkout_assignments
GROUP BY experiment, user_id
HAVING count(DISTINCT variant) > 1
""",
    ),
    SqlCheck(
        name="segment_imbalance",
        warning="an arm's share among the users of a device is not that among all users",
        sql="""
WITH assigned AS (
  SELECT DISTINCT experiment, user_id, variant, device
  FROM checkout_assignments JOIN checkout_users USING (user_id)
),
arms AS (
  SELECT experiment, variant, sum(count(*)) OVER (PARTITION BY experiment) AS n_all,
         count(*) / sum(count(*)) OVER (PARTITION BY experiment) AS share
  FROM assigned
  GROUP BY experiment, variant
),
cells AS (
  SELECT experiment, device, variant, count(*) AS n_users,
         sum(count(*)) OVER (PARTITION BY experiment, device) AS n_device
  FROM assigned
  GROUP BY experiment, device, variant
)
SELECT experiment, device, variant, n_users, n_device * share AS n_expected
FROM cells JOIN arms USING (experiment, variant)
WHERE abs(n_users - n_device * share)
      > 4 * sqrt(n_device * share * (1 - share) * (1 - n_device / n_all))
""",
    ),
    SqlCheck(
        name="pre_period_imbalance",
        warning="an arm's users visited more or less than others of their device before the trial",
        sql="""
WITH visits AS (
  SELECT experiment, user_id, count(DISTINCT to_date(started_at)) AS n_days
  FROM checkout_sessions
  JOIN checkout_trials
    ON to_date(started_at) >= pre_starts_on AND to_date(started_at) < starts_on
  GROUP BY experiment, user_id
),
assigned AS (
  SELECT DISTINCT experiment, user_id, variant, device
  FROM checkout_assignments JOIN checkout_users USING (user_id)
),
past AS (
  SELECT experiment, variant, coalesce(n_days, 0)
         - avg(coalesce(n_days, 0)) OVER (PARTITION BY experiment, device) AS excess
  FROM assigned LEFT JOIN visits USING (experiment, user_id)
),
arms AS (
  SELECT experiment, variant, avg(excess) AS excess_days,
         var_samp(excess) / count(*)
         * (1 - count(*) / sum(count(*)) OVER (PARTITION BY experiment)) AS variance
  FROM past
  GROUP BY experiment, variant
)
SELECT experiment, variant, excess_days, sqrt(variance) AS std_error
FROM arms
WHERE abs(excess_days) > 4 * sqrt(variance)
""",
    ),
    SqlCheck(
        name="activity_before_assignment",
        warning="a session of the trial begins before its user was assigned",
        sql="""
WITH assigned AS (
  SELECT experiment, user_id, min(assigned_at) AS assigned_at
  FROM checkout_assignments
  GROUP BY experiment, user_id
)
SELECT session_id, user_id, started_at, assigned_at
FROM checkout_sessions
JOIN assigned USING (user_id)
JOIN checkout_trials USING (experiment)
WHERE to_date(started_at) BETWEEN starts_on AND ends_on AND started_at < assigned_at
""",
    ),
    SqlCheck(
        name="null_user_id",
        warning="a session lacks its user",
        sql="""
SELECT session_id, started_at
FROM checkout_sessions
WHERE user_id IS NULL
""",
    ),
    SqlCheck(
        name="bot_sessions",
        warning="a user has more than fifty sessions on a day",
        sql="""
SELECT user_id, to_date(started_at) AS day, count(*) AS n_sessions
FROM checkout_sessions
WHERE user_id IS NOT NULL
GROUP BY user_id, to_date(started_at)
HAVING count(*) > 50
""",
    ),
    SqlCheck(
        name="missing_day",
        warning="a day between the first and the last has no session",
        sql="""
WITH present AS (
  SELECT DISTINCT to_date(started_at) AS day FROM checkout_sessions
),
expected AS (
  SELECT explode(sequence(first_day, last_day)) AS day
  FROM (SELECT min(day) AS first_day, max(day) AS last_day FROM present)
)
SELECT day
FROM expected LEFT ANTI JOIN present USING (day)
""",
    ),
    SqlCheck(
        name="stale_data",
        warning="sessions end more than a day before the trial's end or the date of the run",
        sql="""
SELECT experiment, ends_on, newest_on
FROM checkout_trials CROSS JOIN (
  SELECT max(to_date(started_at)) AS newest_on FROM checkout_sessions
)
WHERE newest_on IS NULL OR newest_on < date_sub(least(ends_on, :as_of), 1)
""",
    ),
    SqlCheck(
        name="traffic_drift",
        warning="the mix of channels in a week of the trial is far from that before it (population "
        "stability index above 0.1)",
        sql="""
WITH visits AS (
  SELECT DISTINCT user_id, to_date(started_at) AS day, channel
  FROM checkout_sessions
  WHERE user_id IS NOT NULL
),
dated AS (
  SELECT channel,
         CASE WHEN day < starts_on THEN -1 ELSE datediff(day, starts_on) DIV 7 END AS week
  FROM visits JOIN checkout_trials ON day BETWEEN pre_starts_on AND ends_on
),
counted AS (
  SELECT week, channel, count(*) AS n FROM dated GROUP BY week, channel
),
shares AS (
  SELECT week, channel, greatest(coalesce(n, 0) / sum(n) OVER (PARTITION BY week), 0.0001) AS share
  FROM (SELECT DISTINCT week FROM dated)
  CROSS JOIN (SELECT DISTINCT channel FROM dated)
  LEFT JOIN counted USING (week, channel)
)
SELECT now.week, sum((now.share - past.share) * ln(now.share / past.share)) AS stability_index
FROM shares AS now JOIN shares AS past ON now.channel = past.channel AND past.week = -1
WHERE now.week >= 0
GROUP BY now.week
HAVING sum((now.share - past.share) * ln(now.share / past.share)) > 0.1
""",
    ),
    SqlCheck(
        name="orders_without_session",
        warning="an order names a session that is not there",
        sql="""
SELECT order_id, session_id, user_id
FROM checkout_orders LEFT ANTI JOIN checkout_sessions USING (session_id)
""",
    ),
    SqlCheck(
        name="events_without_session",
        warning="an event names a session that is not there",
        sql="""
SELECT event_id, session_id, user_id
FROM checkout_events LEFT ANTI JOIN checkout_sessions USING (session_id)
""",
    ),
    SqlCheck(
        name="duplicate_orders",
        warning="an order is there more than once",
        sql="""
SELECT order_id, count(*) AS n_rows
FROM checkout_orders
GROUP BY order_id
HAVING count(*) > 1
""",
    ),
    SqlCheck(
        name="profit_mismatch",
        warning="gross profit is not value less cost less refund",
        sql="""
SELECT order_id, revenue, cost, refund_amount, gross_profit
FROM checkout_orders
WHERE abs(gross_profit - (revenue - cost - refund_amount)) > 0.005
""",
    ),
    SqlCheck(
        name="refund_above_order",
        warning="more was refunded than the order was worth",
        sql="""
SELECT order_id, revenue, refund_amount
FROM checkout_orders
WHERE refund_amount > revenue + 0.005
""",
    ),
    SqlCheck(
        name="price_outlier",
        warning="an order is worth more than twenty times the median",
        sql="""
SELECT order_id, user_id, revenue
FROM checkout_orders
WHERE revenue > 20 * (SELECT percentile_approx(revenue, 0.5) FROM checkout_orders)
""",
    ),
    SqlCheck(
        name="logging_loss",
        warning="visits of an arm have page loads recorded more or less often than all",
        sql="""
WITH assigned AS (
  SELECT DISTINCT experiment, user_id, variant FROM checkout_assignments
),
measured AS (
  SELECT DISTINCT session_id, 1 AS is_measured FROM checkout_perf WHERE page = 'landing'
),
visits AS (
  SELECT experiment, variant, coalesce(is_measured, 0) AS is_measured
  FROM checkout_events
  JOIN assigned USING (user_id)
  JOIN checkout_trials USING (experiment)
  LEFT JOIN measured USING (session_id)
  WHERE event = 'visit' AND to_date(occurred_at) >= starts_on
),
arms AS (
  SELECT experiment, variant, count(*) AS n_visits, avg(is_measured) AS share,
         sum(count(*)) OVER (PARTITION BY experiment) AS n_all,
         sum(sum(is_measured)) OVER (PARTITION BY experiment)
         / sum(count(*)) OVER (PARTITION BY experiment) AS share_of_all
  FROM visits
  GROUP BY experiment, variant
)
SELECT experiment, variant, n_visits, share, share_of_all
FROM arms
WHERE abs(share - share_of_all)
      > 4 * sqrt(share_of_all * (1 - share_of_all) / n_visits * (1 - n_visits / n_all))
""",
    ),
    SqlCheck(
        name="latency_in_seconds",
        warning="a page took less than 50 milliseconds: the unit is wrong",
        sql="""
SELECT load_id, page, latency_ms
FROM checkout_perf
WHERE latency_ms < 50
""",
    ),
    SqlCheck(
        name="late_events",
        warning="more than one event in a hundred arrives over two days late",
        sql="""
SELECT count(*) AS n_events, avg(is_late) AS share_late
FROM (
  SELECT CAST(unix_seconds(ingested_at) - unix_seconds(occurred_at) > 172800 AS INT) AS is_late
  FROM checkout_events
)
HAVING avg(is_late) > 0.01
""",
    ),
    SqlCheck(
        name="clock_skew",
        warning="an event arrived before it happened: the clock of the device is wrong",
        sql="""
SELECT event_id, session_id, occurred_at, ingested_at
FROM checkout_events
WHERE occurred_at > ingested_at
""",
    ),
)
