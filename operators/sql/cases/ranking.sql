-- Window functions of SQL (OVER), within each window.

-- case: top one per key
SELECT ad_id, id FROM (SELECT ad_id, id, row_number() OVER (PARTITION BY ad_id ORDER BY amount DESC NULLS LAST, id) AS r
FROM impressions) WHERE r = 1

-- case: ranks
SELECT id, rank() OVER (ORDER BY n) AS r, dense_rank() OVER (ORDER BY n) AS d, percent_rank() OVER (ORDER BY n) AS p,
       cume_dist() OVER (ORDER BY n) AS c
FROM clicks

-- case: lag and lead
SELECT id, lag(id) OVER (PARTITION BY ad_id ORDER BY occurred_at, id) AS before,
       lead(n, 2, -1) OVER (PARTITION BY ad_id ORDER BY occurred_at, id) AS after
FROM impressions

-- case: running sums
SELECT id, sum(n) OVER (ORDER BY occurred_at, id) AS so_far,
       count(*) OVER (PARTITION BY user_id ORDER BY occurred_at, id ROWS UNBOUNDED PRECEDING) AS nth
FROM impressions

-- case: moving frames
SELECT id, sum(amount) OVER (ORDER BY occurred_at, id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s,
       max(n) OVER (ORDER BY occurred_at, id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS m
FROM impressions

-- case: frames by time
SELECT id, count(*) OVER (ORDER BY occurred_at RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND CURRENT ROW) AS recent
FROM impressions

-- case: ntile
SELECT id, ntile(3) OVER (ORDER BY id, occurred_at) AS third FROM clicks

-- case: first, last and nth of a frame
SELECT id, first_value(n) OVER w AS f, last_value(n) OVER w AS l, nth_value(n, 2) OVER w AS s FROM impressions
WINDOW w AS (PARTITION BY user_id ORDER BY occurred_at, id)

-- case: share of the key
SELECT id, amount / sum(amount) OVER (PARTITION BY ad_id) AS share, count(*) OVER () AS all FROM impressions WHERE amount > 0

-- case: rank over aggregates
SELECT user_id, sum(amount) AS s, rank() OVER (ORDER BY sum(amount) DESC NULLS LAST) AS r FROM impressions GROUP BY user_id

-- case: top two of aggregates per key
SELECT * FROM (SELECT ad_id, user_id, count(*) AS c,
       row_number() OVER (PARTITION BY ad_id ORDER BY count(*) DESC, user_id) AS r
       FROM impressions GROUP BY ad_id, user_id) WHERE r <= 2

-- case: aggregate over ranks
SELECT r, count(*) AS c FROM (SELECT rank() OVER (PARTITION BY user_id ORDER BY n) AS r FROM impressions) GROUP BY r

-- case: qualify on an aggregate
SELECT ad_id, count(*) AS c FROM impressions GROUP BY ad_id QUALIFY rank() OVER (ORDER BY count(*) DESC) = 1

-- case: rank in each window
SELECT window_start() AS at, user_id, row_number() OVER (ORDER BY count(*) DESC, user_id) AS place FROM impressions
GROUP BY user_id

-- case: ranks over a join
SELECT i.id, c.id AS click, row_number() OVER (PARTITION BY c.id ORDER BY i.occurred_at DESC, i.id) AS r
FROM impressions i JOIN clicks c ON i.user_id = c.user_id

-- case: distinct over ranks
SELECT DISTINCT user_id, dense_rank() OVER (ORDER BY user_id) AS d FROM impressions

-- case: the newest per two keys
SELECT id, n FROM (SELECT *, row_number() OVER (PARTITION BY user_id, ad_id ORDER BY occurred_at DESC, id, n NULLS FIRST) AS place
FROM impressions) WHERE place < 2 AND n > 0

-- case: first of each key, counted
SELECT user_id, count(*) AS c FROM (SELECT user_id, ad_id, row_number() OVER (PARTITION BY user_id, ad_id ORDER BY id) AS r
FROM clicks) WHERE r = 1 GROUP BY user_id

-- case: three of each key ordered
SELECT ad_id, id, r FROM (SELECT *, row_number() OVER (PARTITION BY ad_id ORDER BY occurred_at, id, n) AS r FROM impressions)
WHERE 3 >= r ORDER BY ad_id, occurred_at, id, n
