-- Queries over a session window. Each runs incrementally, with sessions fired together where it can and one by one,
-- with and without restores in the middle, and must give for each session what DataFusion gives in batch for that
-- session's rows. See session/oracle.rs.
-- Table: visits with user_id (the key, null at times), device (a second key in some runs), page (null at times),
-- amount (null at times), at.
-- After the name: how sessions fire (together, or each by itself), and what is kept of open ones (state or rows).

-- case: rows per user | together | state
SELECT user_id, count(*) AS n FROM visits GROUP BY user_id

-- case: bounds as columns | together | state
SELECT user_id, window_start, window_end, count(*) AS pages FROM visits GROUP BY user_id, window_start, window_end

-- case: bounds as functions | together | state
SELECT window_start() AS began, window_end() AS ended, user_id, count(*) AS pages, min(at) AS lo, max(at) AS hi
FROM visits GROUP BY user_id

-- case: functions as keys | together | state
SELECT user_id, window_start() AS began, sum(amount) AS spent FROM visits GROUP BY user_id, window_start()

-- case: a key made from a bound | together | state
SELECT date_trunc('hour', window_start) AS hour, user_id, count(*) AS n, max(page) AS last FROM visits
GROUP BY date_trunc('hour', window_start), user_id

-- case: length of the session | together | state
SELECT user_id, window_end - window_start AS lasted, avg(amount) AS mean FROM visits
GROUP BY user_id, window_start, window_end

-- case: key that is not that of the window | together | state
SELECT page, count(*) AS n, sum(amount) AS s FROM visits GROUP BY page

-- case: two keys | together | state
SELECT window_start, user_id, page, count(*) AS n FROM visits GROUP BY window_start, user_id, page

-- case: no keys | together | state
SELECT window_start() AS began, min(user_id) AS who, count(*) AS n, sum(amount) AS s, avg(amount) AS mean FROM visits

-- case: no keys and nothing passes the filter | together | state
SELECT window_start() AS began, count(*) AS n, sum(amount) AS s FROM visits WHERE amount > 3.5

-- case: never anything passes | together | state
SELECT count(*) AS n, max(page) AS p FROM visits WHERE amount > 1e9

-- case: filter under a group | together | state
SELECT user_id, page, count(*) AS n FROM visits WHERE amount > 2 AND page <> 'p1' GROUP BY user_id, page

-- case: expressions under and over | together | state
SELECT upper(user_id) AS u, sum(amount * 2 + 1) / count(*) AS ratio, length(max(page)) AS l FROM visits
GROUP BY upper(user_id)

-- case: having | together | state
SELECT user_id, count(*) AS n FROM visits GROUP BY user_id HAVING count(*) > 2

-- case: having over the bounds | together | state
SELECT user_id, count(*) AS n FROM visits GROUP BY user_id HAVING window_end() - window_start() > INTERVAL '100 seconds'

-- case: rows of long sessions without keys | together | state
SELECT window_start() AS began, count(*) AS n, max(page) AS p FROM visits
WHERE window_end - window_start > INTERVAL '90 seconds' AND amount > 1

-- case: a condition on the bounds under two levels | each | state
SELECT count(*) AS pages, sum(n) AS n FROM (
  SELECT page, count(*) AS n FROM visits WHERE window_end > TIMESTAMP '1970-01-01 00:00:00' GROUP BY page)

-- case: aggregate filter | together | state
SELECT user_id, count(*) FILTER (WHERE amount > 2) AS big, sum(amount) FILTER (WHERE page = 'p1') AS one
FROM visits GROUP BY user_id

-- case: count distinct by key | together | state
SELECT user_id, count(DISTINCT page) AS pages FROM visits GROUP BY user_id

-- case: count distinct of everything | together | state
SELECT window_start() AS began, count(DISTINCT page) AS pages FROM visits

-- case: count distinct beside others | together | state
SELECT user_id, window_end, count(DISTINCT page) AS pages, count(*) AS n, sum(amount) AS s FROM visits
GROUP BY user_id, window_end

-- case: two distincts | together | state
SELECT user_id, count(DISTINCT page) AS pages, count(DISTINCT device) AS devices FROM visits GROUP BY user_id

-- case: select distinct | together | state
SELECT DISTINCT user_id, page FROM visits

-- case: aggregate of an aggregate | together | state
SELECT user_id, max(n) AS most FROM (SELECT user_id, page, count(*) AS n FROM visits GROUP BY user_id, page)
GROUP BY user_id

-- case: aggregate of an aggregate without keys | together | state
SELECT window_start() AS began, count(*) AS pages, max(n) AS most
FROM (SELECT page, count(*) AS n FROM visits GROUP BY page)

-- case: aggregate without keys of what may be empty | each | state
SELECT count(*) AS pages, max(n) AS most FROM (SELECT page, count(*) AS n FROM visits WHERE amount > 3 GROUP BY page)

-- case: common table expression | together | state
WITH pages AS (SELECT user_id, page, sum(amount) AS s FROM visits GROUP BY user_id, page)
SELECT page, s * 2 AS twice, window_end() AS ended FROM pages WHERE s > 1

-- case: approximate and statistical | together | state
SELECT user_id, approx_distinct(page) AS pages, stddev(amount) AS sd, bool_or(amount > 3) AS rich FROM visits
GROUP BY user_id

-- case: median | together | state
SELECT user_id, median(amount) AS med, approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY device) AS p FROM visits
GROUP BY user_id

-- case: array in order | each | rows
SELECT user_id, array_agg(DISTINCT page ORDER BY page) AS pages FROM visits GROUP BY user_id

-- case: first and last | together | state
SELECT user_id, first_value(page ORDER BY at, page) AS entered, last_value(page ORDER BY at, page) AS exited
FROM visits GROUP BY user_id

-- case: constants | together | state
SELECT 'session' AS what, 1 + 1 AS two, count(*) AS n, window_start() AS began FROM visits

-- case: rows as they are | together | rows
SELECT user_id, page, at FROM visits

-- case: rows with their session | together | rows
SELECT window_start, user_id, at - window_start AS since, window_end FROM visits WHERE amount IS NOT NULL

-- case: rows filtered by their session | together | rows
SELECT user_id, page FROM visits WHERE at > window_start + INTERVAL '30 seconds'

-- case: aggregate of what needs the bounds | together | rows
SELECT user_id, max(at - window_start) AS longest, count(*) AS n FROM visits GROUP BY user_id

-- case: a key from row and bounds | together | rows
SELECT at = window_start AS is_first, count(*) AS n FROM visits GROUP BY at = window_start

-- case: order and limit | each | state
SELECT page, count(*) AS n FROM visits GROUP BY page ORDER BY n DESC, page LIMIT 2

-- case: top page by ranking | each | state
SELECT user_id, page, n FROM (
  SELECT user_id, page, n, row_number() OVER (ORDER BY n DESC, page) AS place
  FROM (SELECT user_id, page, count(*) AS n FROM visits GROUP BY user_id, page)) WHERE place = 1

-- case: number of the row in its session | each | rows
SELECT user_id, page, row_number() OVER (ORDER BY at, page, amount, device) AS step, window_start() AS began FROM visits

-- case: previous page | each | rows
SELECT user_id, page, lag(page) OVER (ORDER BY at, page, amount, device) AS before FROM visits

-- case: join with itself | each | state
SELECT a.user_id, a.n, b.most FROM (SELECT user_id, count(*) AS n FROM visits GROUP BY user_id) a
CROSS JOIN (SELECT max(amount) AS most FROM visits) b

-- case: rows joined with an aggregate | each | rows
SELECT v.user_id, v.page, v.amount, m.mean FROM visits v CROSS JOIN (SELECT avg(amount) AS mean FROM visits) m
WHERE v.amount > m.mean

-- case: subquery in a filter | each | rows
SELECT user_id, page FROM visits WHERE amount = (SELECT max(amount) FROM visits)

-- case: union | each | state
SELECT 'page' AS what, page AS name, count(*) AS n FROM visits GROUP BY page
UNION ALL SELECT 'user', user_id, count(*) FROM visits GROUP BY user_id

-- case: grouping sets | each | state
SELECT user_id, page, grouping(user_id) AS g, count(*) AS n, sum(amount) AS s FROM visits
GROUP BY GROUPING SETS ((user_id), (page), ())

-- case: rollup with a filter | each | state
SELECT user_id, page, count(*) AS n FROM visits WHERE amount > 3.5 GROUP BY ROLLUP (user_id, page)
