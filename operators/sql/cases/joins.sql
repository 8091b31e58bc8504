-- Joins of several windowed inputs. Every window holds all of them.

-- case: inner join of rows
SELECT i.id, c.id AS click, i.amount + c.amount AS total FROM impressions i JOIN clicks c ON i.user_id = c.user_id

-- case: left join of rows
SELECT i.id, c.id AS click FROM impressions i LEFT JOIN clicks c ON i.ad_id = c.ad_id AND c.amount > 2

-- case: right join of rows
SELECT i.id, c.id AS click FROM impressions i RIGHT JOIN clicks c ON i.ad_id = c.ad_id AND i.n > c.n

-- case: full join of rows
SELECT i.id, c.id AS click, coalesce(i.user_id, c.user_id) AS u FROM impressions i
FULL JOIN clicks c ON i.user_id = c.user_id AND i.flag = c.flag

-- case: left semi join
SELECT i.id FROM impressions i LEFT SEMI JOIN clicks c ON i.ad_id = c.ad_id AND i.user_id = c.user_id

-- case: left anti join
SELECT i.id FROM impressions i LEFT ANTI JOIN clicks c ON i.ad_id = c.ad_id

-- case: self join
SELECT a.id, b.id AS other FROM impressions a JOIN impressions b ON a.user_id = b.user_id AND a.id < b.id

-- case: self join of aggregates
SELECT a.ad_id, a.c, b.ad_id AS other FROM (SELECT ad_id, count(*) AS c FROM clicks GROUP BY ad_id) a
JOIN (SELECT ad_id, count(*) AS c FROM clicks GROUP BY ad_id) b ON a.c = b.c AND a.ad_id < b.ad_id

-- case: join by inequality
SELECT i.id, c.id AS click FROM impressions i JOIN clicks c ON i.occurred_at < c.occurred_at AND i.n > c.n

-- case: join within a time
SELECT i.id, c.id AS click FROM impressions i JOIN clicks c
ON i.user_id = c.user_id AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '10 seconds'

-- case: cross join of rows
SELECT c.id, o.id AS bought FROM clicks c CROSS JOIN orders o WHERE c.n = o.n

-- case: three inputs
SELECT i.ad_id, i.c AS shown, k.c AS clicked, o.s AS earned
FROM (SELECT ad_id, count(*) AS c FROM impressions GROUP BY ad_id) i
LEFT JOIN (SELECT ad_id, count(*) AS c FROM clicks GROUP BY ad_id) k ON i.ad_id = k.ad_id
LEFT JOIN (SELECT ad_id, sum(amount) AS s FROM orders GROUP BY ad_id) o ON i.ad_id = o.ad_id

-- case: three inputs of rows
SELECT i.user_id, count(*) AS c, sum(o.n) AS s FROM impressions i
JOIN clicks c ON i.user_id = c.user_id JOIN orders o ON o.user_id = c.user_id GROUP BY i.user_id

-- case: three counts side by side
SELECT window_start() AS at, i.c AS i, k.c AS k, o.c AS o FROM (SELECT count(*) AS c FROM impressions) i
CROSS JOIN (SELECT count(*) AS c FROM clicks) k CROSS JOIN (SELECT count(*) AS c FROM orders) o

-- case: rows beside an aggregate
SELECT i.id, i.amount, k.mean FROM impressions i
LEFT JOIN (SELECT ad_id, avg(amount) AS mean FROM clicks GROUP BY ad_id) k ON i.ad_id = k.ad_id

-- case: join using
SELECT user_id, count(*) AS c FROM impressions JOIN clicks USING (user_id) GROUP BY user_id

-- case: natural join of aggregates
SELECT * FROM (SELECT ad_id, count(*) AS shown FROM impressions GROUP BY ad_id)
NATURAL JOIN (SELECT ad_id, count(*) AS clicked FROM clicks GROUP BY ad_id)

-- case: null keys do not join
SELECT count(*) AS c FROM impressions i JOIN clicks c ON i.ad_id = c.ad_id WHERE i.ad_id IS NULL

-- case: null keys join when asked to
SELECT count(*) AS c FROM impressions i JOIN clicks c ON i.ad_id IS NOT DISTINCT FROM c.ad_id

-- case: full join where one side is empty
SELECT i.c AS shown, o.c AS bought, coalesce(i.user_id, o.user_id) AS u
FROM (SELECT user_id, count(*) AS c FROM impressions GROUP BY user_id) i
FULL JOIN (SELECT user_id, count(*) AS c FROM orders WHERE n > 100000 GROUP BY user_id) o ON i.user_id = o.user_id

-- case: join on expressions
SELECT i.id, c.id AS click FROM impressions i JOIN clicks c ON substr(i.user_id, 2) = substr(c.user_id, 2)
WHERE i.amount > c.amount

-- case: lateral
SELECT i.id, l.c FROM impressions i CROSS JOIN LATERAL
  (SELECT count(*) AS c FROM clicks c WHERE c.user_id = i.user_id) l

-- case: join on the window's columns
SELECT i.window_start, i.id, c.id AS click FROM impressions i JOIN clicks c
ON i.window_start = c.window_start AND i.ad_id = c.ad_id AND i.user_id = c.user_id
