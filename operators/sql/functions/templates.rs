//! Functions that Flink or Kinesis Analytics have and DataFusion has under another name or in another form: each is
//! the expression that stands for it, with `$1` for its first argument. They are put in where they are called.

/// Functions that DataFusion has, with the same arguments, under another name.
pub(super) const RENAMED: &[(&str, &str)] = &[
    ("listagg", "string_agg"),
    ("collect", "array_agg"),
    ("approx_count_distinct", "approx_distinct"),
    ("regexp", "regexp_like"),
];

/// Name, number of arguments, what stands for it.
pub(super) const TEMPLATES: &[(&str, usize, &str)] = &[
    ("mod", 2, "($1 % $2)"),
    ("if", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("e", 0, "exp(1.0)"),
    ("sign", 1, "signum($1)"),
    ("truncate", 1, "trunc($1)"),
    ("truncate", 2, "trunc($1, $2)"),
    ("ceiling", 1, "ceil($1)"),
    ("year", 1, "CAST(date_part('year', $1) AS BIGINT)"),
    ("quarter", 1, "CAST(date_part('quarter', $1) AS BIGINT)"),
    ("month", 1, "CAST(date_part('month', $1) AS BIGINT)"),
    ("week", 1, "CAST(date_part('week', $1) AS BIGINT)"),
    ("dayofyear", 1, "CAST(date_part('doy', $1) AS BIGINT)"),
    ("dayofmonth", 1, "CAST(date_part('day', $1) AS BIGINT)"),
    ("dayofweek", 1, "CAST(date_part('dow', $1) AS BIGINT) + 1"),
    ("hour", 1, "CAST(date_part('hour', $1) AS BIGINT)"),
    ("minute", 1, "CAST(date_part('minute', $1) AS BIGINT)"),
    ("second", 1, "CAST(date_part('second', $1) AS BIGINT)"),
];

/// Functions whose first argument is a unit of time, written as a word; `$unit` is its length in microseconds.
pub(super) const WITH_UNIT: &[(&str, usize, &str)] = &[
    (
        "timestampdiff",
        3,
        "((CAST(CAST($3 AS TIMESTAMP(6)) AS BIGINT) - CAST(CAST($2 AS TIMESTAMP(6)) AS BIGINT)) / $unit)",
    ),
    (
        "timestampadd",
        3,
        "to_timestamp_micros(CAST(CAST($3 AS TIMESTAMP(6)) AS BIGINT) + CAST($2 AS BIGINT) * $unit)",
    ),
];

/// Units of a fixed length, in microseconds.
pub(super) const UNITS: &[(&str, i64)] = &[
    ("MICROSECOND", 1),
    ("MILLISECOND", 1_000),
    ("SECOND", 1_000_000),
    ("MINUTE", 60_000_000),
    ("HOUR", 3_600_000_000),
    ("DAY", 86_400_000_000),
    ("WEEK", 604_800_000_000),
];
