-- Subqueries and common table expressions.

-- case: scalar subquery in select
SELECT id, (SELECT max(n) FROM clicks) AS most FROM impressions

-- case: scalar subquery of another input
SELECT count(*) AS c, (SELECT count(*) FROM clicks) AS k FROM impressions

-- case: correlated scalar subquery
SELECT i.id, (SELECT count(*) FROM clicks c WHERE c.user_id = i.user_id) AS clicks FROM impressions i

-- case: correlated in where
SELECT i.id, i.amount FROM impressions i
WHERE i.amount >= (SELECT max(j.amount) FROM impressions j WHERE j.ad_id = i.ad_id)

-- case: in an aggregate
SELECT id FROM impressions WHERE ad_id IN (SELECT ad_id FROM clicks GROUP BY ad_id HAVING count(*) > 1)

-- case: not in with nulls
SELECT id FROM impressions WHERE ad_id NOT IN (SELECT ad_id FROM clicks)

-- case: exists
SELECT i.id FROM impressions i WHERE EXISTS (SELECT 1 FROM clicks c WHERE c.user_id = i.user_id AND c.n > i.n)

-- case: not exists under an aggregate
SELECT user_id, count(*) AS c FROM impressions i
WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.user_id = i.user_id) GROUP BY user_id

-- case: in or exists
SELECT id FROM impressions i WHERE i.n > 10 OR i.user_id IN (SELECT user_id FROM orders)

-- case: comparison with any
SELECT id FROM impressions WHERE n > (SELECT min(n) FROM clicks) AND n < (SELECT max(n) FROM clicks)

-- case: chain of common table expressions
WITH per_user AS (SELECT ad_id, user_id, count(*) AS c FROM impressions GROUP BY ad_id, user_id),
     per_ad AS (SELECT ad_id, sum(c) AS c, count(*) AS users FROM per_user GROUP BY ad_id),
     total AS (SELECT sum(c) AS c FROM per_ad)
SELECT p.ad_id, p.users, p.c, p.c / CAST(t.c AS DOUBLE) AS share FROM per_ad p CROSS JOIN total t

-- case: common table expression of rows used three times
WITH seen AS (SELECT user_id, ad_id FROM impressions WHERE amount > 0.5)
SELECT (SELECT count(*) FROM seen) AS rows, (SELECT count(DISTINCT user_id) FROM seen) AS users,
       (SELECT count(DISTINCT ad_id) FROM seen) AS ads, count(*) AS clicks FROM clicks

-- case: share of the total
SELECT ad_id, count(*) * 1.0 / (SELECT count(*) FROM impressions) AS share FROM impressions GROUP BY ad_id

-- case: derived tables four deep
SELECT a FROM (SELECT a FROM (SELECT a FROM (SELECT upper(ad_id) AS a, n FROM impressions) WHERE n > 0)) WHERE a > 'A1'

-- case: scalar subquery without rows
SELECT id, (SELECT max(n) FROM clicks WHERE n > 1000000) AS none FROM orders

-- case: subquery in having
SELECT ad_id, count(*) AS c FROM impressions GROUP BY ad_id
HAVING count(*) >= (SELECT avg(c) FROM (SELECT count(*) AS c FROM impressions GROUP BY ad_id))
