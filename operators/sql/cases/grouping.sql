-- Grouping sets, cube and rollup.

-- case: cube
SELECT ad_id, flag, count(*) AS c, sum(amount) AS s FROM impressions GROUP BY CUBE (ad_id, flag)

-- case: rollup with grouping
SELECT ad_id, user_id, grouping(ad_id) AS ga, grouping(user_id) AS gu, grouping(ad_id, user_id) AS g, count(*) AS c
FROM impressions GROUP BY ROLLUP (ad_id, user_id)

-- case: cube with having
SELECT ad_id, flag, count(*) AS c FROM impressions GROUP BY CUBE (ad_id, flag) HAVING count(*) > 2

-- case: grouping in having
SELECT ad_id, count(*) AS c FROM impressions GROUP BY ROLLUP (ad_id) HAVING grouping(ad_id) = 1

-- case: grouping sets with a key for all
SELECT user_id, ad_id, day, count(*) AS c FROM clicks GROUP BY user_id, GROUPING SETS ((ad_id), (day))

-- case: grouping sets and distinct
SELECT ad_id, flag, count(DISTINCT user_id) AS u, sum(n) AS s FROM impressions
GROUP BY GROUPING SETS ((ad_id), (flag), (ad_id, flag))

-- case: grouping sets of expressions
SELECT upper(ad_id) AS a, n % 2 AS p, count(*) AS c FROM impressions
GROUP BY GROUPING SETS ((upper(ad_id)), (n % 2), ())

-- case: rollup of times
SELECT date_trunc('minute', occurred_at) AS m, date_trunc('second', occurred_at) AS s, count(*) AS c FROM impressions
GROUP BY ROLLUP (date_trunc('minute', occurred_at), date_trunc('second', occurred_at))

-- case: rollup under an aggregate
SELECT count(*) AS groups, sum(c) AS total FROM
  (SELECT ad_id, flag, count(*) AS c FROM impressions GROUP BY ROLLUP (ad_id, flag))

-- case: rollup of nothing
SELECT ad_id, count(*) AS c FROM impressions WHERE n > 1000000 GROUP BY ROLLUP (ad_id)

-- case: rollup over a join
SELECT i.ad_id, c.flag, count(*) AS pairs FROM impressions i JOIN clicks c ON i.user_id = c.user_id
GROUP BY ROLLUP (i.ad_id, c.flag)

-- case: rollup ordered
SELECT ad_id, count(*) AS c, grouping(ad_id) AS g FROM impressions GROUP BY ROLLUP (ad_id)
ORDER BY g DESC, ad_id NULLS FIRST

-- case: rollup with the window
SELECT window_start() AS at, ad_id, count(*) AS c FROM impressions GROUP BY ROLLUP (ad_id)
