-- Every query here runs incrementally, in several partitions, with and without a restore in the middle, and
-- must give for each window what DataFusion gives in batch for that window's rows. See oracle.rs.
-- Tables: impressions and clicks with id, ad_id (null at times), user_id, amount (null at times), occurred_at.
-- A case named "… ordered" is compared row by row in order, the others as sets of rows.

-- case: count of everything
SELECT count(*) AS n FROM impressions

-- case: count by key
SELECT ad_id, count(*) AS n FROM impressions GROUP BY ad_id

-- case: sum min max avg by key
SELECT ad_id, sum(amount) AS s, min(amount) AS lo, max(amount) AS hi, avg(amount) AS mean, count(amount) AS n
FROM impressions GROUP BY ad_id

-- case: aggregates of everything
SELECT sum(amount) AS s, min(user_id) AS lo, max(occurred_at) AS hi, avg(amount) AS mean FROM impressions

-- case: expressions under and over the aggregate
SELECT upper(ad_id) AS ad, sum(amount * 2 + 1) / count(*) AS ratio FROM impressions
WHERE amount > 1 GROUP BY upper(ad_id)

-- case: two keys
SELECT ad_id, user_id, count(*) AS n FROM impressions GROUP BY ad_id, user_id

-- case: count distinct of everything
SELECT count(DISTINCT user_id) AS users FROM impressions

-- case: count distinct by key
SELECT ad_id, count(DISTINCT user_id) AS users FROM impressions GROUP BY ad_id

-- case: count distinct beside others
SELECT ad_id, count(DISTINCT user_id) AS users, sum(amount) AS s, count(*) AS n FROM impressions GROUP BY ad_id

-- case: two different distincts
SELECT count(DISTINCT user_id) AS users, count(DISTINCT ad_id) AS ads FROM impressions

-- case: aggregate filter
SELECT ad_id, count(*) FILTER (WHERE amount > 2) AS big, sum(amount) FILTER (WHERE user_id <> 'u1') AS others
FROM impressions GROUP BY ad_id

-- case: aggregate filter of everything
SELECT count(*) FILTER (WHERE amount > 2) AS big, max(amount) FILTER (WHERE user_id = 'u1') AS one FROM impressions

-- case: nothing passes the filter
SELECT count(*) AS n, sum(amount) AS s FROM impressions WHERE amount > 1e9

-- case: nothing passes the filter under a group
SELECT count(*) AS ads FROM (SELECT ad_id FROM impressions WHERE amount > 1e9 GROUP BY ad_id)

-- case: a constant false filter
SELECT count(*) AS n FROM impressions WHERE 1 = 2

-- case: having
SELECT ad_id, count(*) AS n FROM impressions GROUP BY ad_id HAVING count(*) > 3

-- case: common table expression used twice
WITH per_ad AS (SELECT ad_id, count(*) AS n FROM impressions GROUP BY ad_id)
SELECT a.ad_id, a.n, b.most FROM per_ad a CROSS JOIN (SELECT max(n) AS most FROM per_ad) b

-- case: clickthrough
SELECT window_start() AS at, i.n AS impressions, c.n AS clicks,
       CASE WHEN i.n > 0 THEN c.n / CAST(i.n AS DOUBLE) END AS clickthrough
FROM (SELECT count(*) AS n FROM impressions) i CROSS JOIN (SELECT count(*) AS n FROM clicks) c

-- case: join of aggregated inputs
SELECT i.ad_id, i.n AS impressions, c.n AS clicks
FROM (SELECT ad_id, count(*) AS n FROM impressions GROUP BY ad_id) i
LEFT JOIN (SELECT ad_id, count(*) AS n FROM clicks GROUP BY ad_id) c ON i.ad_id = c.ad_id

-- case: full join of aggregated inputs
SELECT coalesce(i.ad_id, c.ad_id) AS ad, i.s AS spent, c.s AS earned, window_end() AS until
FROM (SELECT ad_id, sum(amount) AS s FROM impressions GROUP BY ad_id) i
FULL JOIN (SELECT ad_id, sum(amount) AS s FROM clicks GROUP BY ad_id) c ON i.ad_id = c.ad_id

-- case: join of rows
SELECT i.ad_id, i.id AS impression, c.id AS click
FROM impressions i JOIN clicks c ON i.ad_id = c.ad_id AND i.user_id = c.user_id

-- case: aggregate over a join of rows
SELECT i.ad_id, count(*) AS pairs, sum(i.amount + c.amount) AS s
FROM impressions i JOIN clicks c ON i.user_id = c.user_id GROUP BY i.ad_id

-- case: semi join
SELECT ad_id, count(*) AS n FROM impressions
WHERE user_id IN (SELECT user_id FROM clicks WHERE amount > 2) GROUP BY ad_id

-- case: scalar subquery
SELECT id, amount FROM impressions WHERE amount > (SELECT avg(amount) FROM impressions)

-- case: union all of rows
SELECT id, 'impression' AS kind FROM impressions UNION ALL SELECT id, 'click' AS kind FROM clicks

-- case: union all of aggregates
SELECT 'impressions' AS what, count(*) AS n FROM impressions UNION ALL SELECT 'clicks', count(*) FROM clicks

-- case: aggregate over union
SELECT ad_id, count(*) AS n FROM (SELECT ad_id FROM impressions UNION ALL SELECT ad_id FROM clicks) GROUP BY ad_id

-- case: top two per key
SELECT ad_id, id, amount FROM (
  SELECT ad_id, id, amount, row_number() OVER (PARTITION BY ad_id ORDER BY amount DESC NULLS LAST, id) AS r
  FROM impressions
) WHERE r <= 2

-- case: rank of aggregates
SELECT ad_id, n, rank() OVER (ORDER BY n DESC) AS place FROM (SELECT ad_id, count(*) AS n FROM impressions GROUP BY ad_id)

-- case: distinct rows
SELECT DISTINCT ad_id, user_id FROM impressions

-- case: order by ordered
SELECT ad_id, sum(amount) AS s FROM impressions GROUP BY ad_id ORDER BY s DESC NULLS LAST, ad_id NULLS FIRST

-- case: order by and limit ordered
SELECT ad_id, count(*) AS n FROM impressions GROUP BY ad_id ORDER BY n DESC, ad_id LIMIT 2

-- case: top rows ordered
SELECT id, amount FROM impressions ORDER BY amount DESC NULLS LAST, id LIMIT 3 OFFSET 1

-- case: limit over a filter
SELECT count(*) AS n FROM (SELECT id FROM impressions WHERE amount > 1 LIMIT 4)

-- case: limit over distinct keys
SELECT count(*) AS n FROM (SELECT DISTINCT user_id FROM impressions LIMIT 2)

-- case: smallest keys ordered
SELECT ad_id, min(amount) AS lo FROM impressions WHERE ad_id IS NOT NULL GROUP BY ad_id ORDER BY lo NULLS LAST, ad_id LIMIT 2

-- case: raw rows
SELECT * FROM impressions WHERE amount > 2

-- case: raw rows without columns
SELECT 1 AS one FROM clicks

-- case: window columns
SELECT window_start, window_end, ad_id, count(*) AS n FROM impressions GROUP BY window_start, window_end, ad_id

-- case: window functions in select
SELECT window_start() AS at, window_end() AS until, count(*) AS n FROM impressions

-- case: window functions in group by
SELECT window_start() AS at, ad_id, count(*) AS n FROM impressions GROUP BY window_start(), ad_id

-- case: window functions under the aggregate
SELECT count(*) AS n, max(occurred_at - window_start()) AS last FROM impressions
WHERE occurred_at < window_end() - INTERVAL '5 seconds'

-- case: window column under the aggregate
SELECT ad_id, min(occurred_at - window_start) AS first FROM impressions WHERE window_end > occurred_at GROUP BY ad_id

-- case: rows with window columns
SELECT id, window_start, occurred_at - window_start() AS after FROM impressions WHERE amount < 2

-- case: join on the window
SELECT i.window_start, i.n AS impressions, c.n AS clicks
FROM (SELECT window_start, count(*) AS n FROM impressions GROUP BY window_start) i
JOIN (SELECT window_start, count(*) AS n FROM clicks GROUP BY window_start) c ON i.window_start = c.window_start

-- case: approx distinct
SELECT ad_id, approx_distinct(user_id) AS users FROM impressions GROUP BY ad_id

-- case: median
SELECT ad_id, median(amount) AS middle FROM impressions GROUP BY ad_id

-- case: median of everything
SELECT median(amount) AS middle, stddev(amount) AS spread FROM impressions

-- case: variance and correlation
SELECT ad_id, var_pop(amount) AS v, corr(amount, amount * amount) AS c FROM impressions GROUP BY ad_id

-- case: first and last by order
SELECT ad_id, first_value(id ORDER BY occurred_at, id) AS first, last_value(id ORDER BY occurred_at, id) AS last
FROM impressions GROUP BY ad_id

-- case: collected in order
SELECT ad_id, array_agg(id ORDER BY id) AS ids FROM impressions GROUP BY ad_id

-- case: collected in order of everything
SELECT string_agg(id, ',' ORDER BY id) AS ids FROM impressions

-- case: booleans and bits
SELECT ad_id, bool_or(amount > 2) AS some, bool_and(amount > 1) AS every, bit_xor(CAST(amount AS BIGINT)) AS bits
FROM impressions GROUP BY ad_id

-- case: rollup
SELECT ad_id, user_id, count(*) AS n FROM impressions GROUP BY ROLLUP (ad_id, user_id)

-- case: grouping sets
SELECT ad_id, user_id, sum(amount) AS s, grouping(ad_id) AS g FROM clicks
GROUP BY GROUPING SETS ((ad_id), (user_id), ())

-- case: rollup of one beside count of the other
SELECT r.n, r.ad_id, c.n AS impressions FROM (SELECT ad_id, count(*) AS n FROM clicks GROUP BY ROLLUP (ad_id)) r
CROSS JOIN (SELECT count(*) AS n FROM impressions) c

-- case: case and dates
SELECT date_trunc('minute', occurred_at) AS minute, CASE WHEN amount > 2 THEN 'big' ELSE 'small' END AS size, count(*) AS n
FROM impressions GROUP BY 1, 2

-- case: values beside a window
SELECT v.k, count(i.id) AS n FROM (VALUES ('a1'), ('a2'), ('zz')) AS v(k) LEFT JOIN impressions i ON i.ad_id = v.k
GROUP BY v.k

-- case: values joined apart from the window
SELECT x.k, c.n FROM (SELECT v.k FROM (VALUES ('a1'), ('a2')) AS v(k) JOIN (VALUES ('a1')) AS w(k) ON v.k = w.k) x
CROSS JOIN (SELECT count(*) AS n FROM impressions) c

-- case: group without an aggregate function
SELECT ad_id FROM impressions GROUP BY ad_id

-- case: exists
SELECT ad_id, count(*) AS n FROM impressions i
WHERE NOT EXISTS (SELECT 1 FROM clicks c WHERE c.ad_id = i.ad_id AND c.amount > 3) GROUP BY ad_id

-- case: running total
SELECT id, sum(amount) OVER (PARTITION BY ad_id ORDER BY occurred_at, id) AS so_far FROM impressions

-- case: not in
SELECT id, user_id FROM impressions WHERE user_id NOT IN (SELECT user_id FROM clicks)

-- case: except and intersect
(SELECT user_id FROM impressions EXCEPT SELECT user_id FROM clicks) UNION ALL
(SELECT ad_id FROM impressions INTERSECT SELECT ad_id FROM clicks)

-- case: qualify
SELECT ad_id, id FROM impressions QUALIFY row_number() OVER (PARTITION BY ad_id ORDER BY id) = 1

-- case: unnested aggregate
SELECT ad_id, unnest(users) AS user_id FROM (SELECT ad_id, array_agg(DISTINCT user_id) AS users FROM clicks GROUP BY ad_id)

-- case: mixed aggregates of everything
SELECT count(*) AS n, count(DISTINCT ad_id) AS ads, avg(amount) FILTER (WHERE ad_id = 'a1') AS mean FROM clicks
