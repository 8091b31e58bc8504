-- window_start(), window_end() and the window's columns in every place of a query.

-- case: window start in where
SELECT id FROM impressions WHERE occurred_at >= window_start() + INTERVAL '20 seconds'

-- case: window end in a filter
SELECT ad_id, count(*) FILTER (WHERE occurred_at < window_end() - INTERVAL '20 seconds') AS early, count(*) AS all
FROM impressions GROUP BY ad_id

-- case: window start in having
SELECT ad_id, max(occurred_at) AS m FROM impressions GROUP BY ad_id HAVING max(occurred_at) > window_start() + INTERVAL '8 seconds'

-- case: window start in order by ordered
SELECT id FROM impressions ORDER BY occurred_at - window_start(), id

-- case: window start in a key
SELECT CAST(date_part('epoch', occurred_at - window_start()) AS BIGINT) / 10 AS tens, count(*) AS c FROM impressions GROUP BY 1

-- case: window start in case
SELECT CASE WHEN occurred_at < window_start() + INTERVAL '15 seconds' THEN 'first' ELSE 'rest' END AS part, sum(n) AS s
FROM impressions GROUP BY 1

-- case: window start in a join
SELECT i.id, c.id AS click FROM impressions i JOIN clicks c
ON i.user_id = c.user_id AND i.occurred_at - window_start() < c.occurred_at - window_start()

-- case: window start in a subquery
SELECT id, (SELECT max(occurred_at) - window_start() FROM clicks) AS last FROM impressions

-- case: window start in a common table expression
WITH w AS (SELECT window_start() AS s, window_end() AS e, count(*) AS c FROM impressions)
SELECT s, e, c, k.n FROM w CROSS JOIN (SELECT count(*) AS n FROM clicks) k

-- case: window start in over
SELECT id, row_number() OVER (PARTITION BY window_start() ORDER BY occurred_at, id) AS r FROM impressions

-- case: window start in an array
SELECT make_array(window_start(), window_end()) AS w, count(*) AS c FROM impressions

-- case: window start in distinct
SELECT DISTINCT window_start(), ad_id FROM impressions

-- case: window start in a union
SELECT window_start() AS at, 'i' AS k, count(*) AS c FROM impressions
UNION ALL SELECT window_start(), 'c', count(*) FROM clicks

-- case: window start as text
SELECT to_char(window_start(), '%H:%M:%S') AS t, CAST(window_end() AS STRING) AS e, ad_id, count(*) AS c FROM impressions GROUP BY ad_id

-- case: length of the window
SELECT window_end() - window_start() AS l, date_part('epoch', window_end() - window_start()) AS s, count(*) AS c FROM clicks

-- case: rate per second
SELECT ad_id, count(*) / date_part('epoch', window_end() - window_start()) AS rate FROM impressions GROUP BY ad_id

-- case: window columns in where
SELECT id, window_end FROM impressions WHERE window_end - occurred_at < INTERVAL '15 seconds'

-- case: window columns of both sides
SELECT i.window_start, c.window_end, count(*) AS c FROM impressions i JOIN clicks c ON i.user_id = c.user_id
GROUP BY i.window_start, c.window_end

-- case: window columns with everything else
SELECT * FROM clicks WHERE n > 0

-- case: window columns under rollup
SELECT window_start, ad_id, count(*) AS c FROM impressions GROUP BY ROLLUP (window_start, ad_id)

-- case: window columns aggregated
SELECT min(window_start) AS s, max(window_end) AS e, count(DISTINCT window_start) AS one FROM impressions

-- case: window columns in order by ordered
SELECT window_start, id FROM impressions ORDER BY window_start, id

-- case: window columns in the order of an aggregate
SELECT ad_id, array_agg(id ORDER BY CASE WHEN occurred_at - window_start < INTERVAL '10 seconds' THEN 0 ELSE 1 END, id) AS ids
FROM impressions GROUP BY ad_id

-- case: time since window start in the order of an aggregate
SELECT ad_id, array_agg(id ORDER BY occurred_at - window_start() DESC, id) AS ids, count(*) AS c FROM impressions GROUP BY ad_id
