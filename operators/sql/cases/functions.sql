-- Scalar functions, CASE, casts, NULL logic, nested types, dates and times: below, in and above aggregates.

-- case: strings
SELECT id, upper(ad_id) AS u, substr(user_id, 2) AS s, ad_id || '-' || user_id AS c, concat(ad_id, n) AS cn,
       length(ad_id) AS l, replace(id, '0', 'o') AS r, lpad(ad_id, 4, '.') AS p, trim(' ' || ad_id || ' ') AS t
FROM impressions

-- case: string predicates
SELECT id FROM impressions WHERE ad_id LIKE 'a%' AND user_id NOT LIKE '%3' AND starts_with(id, 'i') AND ad_id ILIKE 'A_'

-- case: string keys
SELECT left(id, 2) AS prefix, strpos(user_id, '1') AS p, count(*) AS c FROM impressions GROUP BY left(id, 2), strpos(user_id, '1')

-- case: regular expressions
SELECT regexp_replace(id, '[0-9]$', 'x') AS r, count(*) AS c FROM impressions WHERE regexp_like(user_id, 'u[1-4]') GROUP BY 1

-- case: split and reverse
SELECT reverse(user_id) AS r, split_part(id || '-' || user_id, '-', 2) AS s, count(*) AS c FROM clicks GROUP BY 1, 2

-- case: empty string is not null
SELECT ad_id = '' AS empty, ad_id IS NULL AS missing, count(*) AS c FROM impressions GROUP BY 1, 2

-- case: case expressions
SELECT CASE ad_id WHEN 'a1' THEN 'one' WHEN '' THEN 'none' ELSE 'other' END AS k,
       CASE WHEN n > 5 THEN 'high' WHEN n IS NULL THEN 'unknown' ELSE 'low' END AS h, count(*) AS c
FROM impressions GROUP BY 1, 2

-- case: null logic
SELECT count(*) FILTER (WHERE flag AND NULL) AS a, count(*) FILTER (WHERE flag OR NULL) AS o,
       count(*) FILTER (WHERE NOT flag) AS n, count(*) FILTER (WHERE flag IS NOT TRUE) AS t,
       count(*) FILTER (WHERE flag IS UNKNOWN) AS u, count(*) FILTER (WHERE n IS DISTINCT FROM score) AS d
FROM impressions

-- case: coalesce and nullif
SELECT coalesce(ad_id, 'none') AS a, nullif(n, 0) AS n, nvl(flag, FALSE) AS f, coalesce(amount, n, 0) AS x FROM impressions

-- case: coalesce as key
SELECT coalesce(ad_id, 'none') AS a, sum(coalesce(amount, 0)) AS s FROM impressions GROUP BY coalesce(ad_id, 'none')

-- case: casts
SELECT CAST(n AS STRING) AS s, CAST(amount AS BIGINT) AS b, CAST(flag AS INT) AS i, CAST(score AS DOUBLE) AS d,
       CAST(day AS TIMESTAMP) AS t, TRY_CAST(id AS INT) AS none, CAST(occurred_at AS DATE) AS od, n::smallint AS sm
FROM impressions

-- case: cast keys
SELECT CAST(amount AS INT) AS a, count(*) AS c FROM impressions GROUP BY CAST(amount AS INT)

-- case: arithmetic
SELECT n + score AS p, n - 1 AS m, n * 2.5 AS t, n / 3 AS d, n % 7 AS r, -n AS neg, amount / 2 AS h, abs(n) AS a FROM impressions

-- case: mathematics
SELECT round(amount) AS r, floor(amount) AS f, ceil(amount) AS c, sqrt(abs(amount)) AS q, power(amount, 2) AS p,
       ln(amount + 1) AS l, greatest(n, score) AS g, least(n, 3) AS le, signum(n) AS s
FROM impressions

-- case: rows that are not finite
SELECT id, odd, isnan(odd) AS nan, odd > 1 AS more, nanvl(odd, 7.0) AS v FROM impressions WHERE odd <> 0 OR odd IS NULL

-- case: dates and times
SELECT date_trunc('minute', occurred_at) AS m, date_part('second', occurred_at) AS s, extract(hour FROM at) AS h,
       day + INTERVAL '1 day' AS next, occurred_at - INTERVAL '90 seconds' AS before, day < DATE '1970-01-03' AS early
FROM impressions

-- case: date keys
SELECT date_part('dow', day) AS dow, date_trunc('hour', at) AS h, count(*) AS c FROM impressions GROUP BY 1, 2

-- case: date bins
SELECT date_bin(INTERVAL '15 seconds', occurred_at) AS b, count(*) AS c, sum(amount) AS s FROM impressions GROUP BY 1

-- case: time arithmetic under an aggregate
SELECT ad_id, max(occurred_at - at) AS d, min(day) + INTERVAL '1 month' AS m FROM impressions GROUP BY ad_id

-- case: to and from text and numbers
SELECT to_char(occurred_at, '%H:%M:%S') AS t, to_timestamp(n) AS s, to_timestamp_millis(n * 1000) AS ms,
       date_part('epoch', occurred_at) AS e, to_date('1970-01-02') AS d FROM clicks

-- case: times compared with literals
SELECT id FROM impressions WHERE occurred_at >= TIMESTAMP '1969-12-30T00:00:00' AND occurred_at < '1970-01-02T00:02:00'

-- case: arrays
SELECT id, make_array(n, score) AS a, array_length(make_array(n, score, 1)) AS l, make_array(n, 7)[2] AS e,
       array_has(make_array('a1', 'a2'), ad_id) AS h, array_to_string(make_array(ad_id, user_id), '/') AS s
FROM impressions

-- case: unnest
SELECT id, unnest(make_array(n, score)) AS x FROM clicks

-- case: unnest and aggregate
SELECT x, count(*) AS c FROM (SELECT unnest(make_array(user_id, ad_id)) AS x FROM clicks) GROUP BY x

-- case: structs
SELECT id, named_struct('ad', ad_id, 'n', n) AS s, named_struct('ad', ad_id, 'n', n)['n'] AS n FROM impressions

-- case: struct as key
SELECT named_struct('ad', ad_id, 'flag', flag) AS k, count(*) AS c FROM impressions GROUP BY named_struct('ad', ad_id, 'flag', flag)

-- case: in lists and between
SELECT ad_id, count(*) AS c FROM impressions WHERE n IN (1, 2, 3, -4) OR amount BETWEEN 1 AND 2 OR ad_id NOT IN ('a1', 'a2')
GROUP BY ad_id

-- case: hashes and encodings
SELECT md5(user_id) AS m, encode(CAST(ad_id AS BYTEA), 'hex') AS h, count(*) AS c FROM impressions GROUP BY 1, 2

-- case: values as a table
SELECT v.name, count(i.id) AS c, sum(i.n) AS s FROM (VALUES ('a1', 'first'), ('a2', 'second'), ('', 'empty')) AS v(ad, name)
LEFT JOIN impressions i ON i.ad_id = v.ad GROUP BY v.name

-- case: series as a table
SELECT g.value AS k, count(c.id) AS c FROM generate_series(-3, 3) g LEFT JOIN clicks c ON c.n = g.value GROUP BY g.value
