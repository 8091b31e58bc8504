-- UNION, INTERSECT, EXCEPT, DISTINCT, ORDER BY, LIMIT.

-- case: union
SELECT user_id FROM impressions UNION SELECT user_id FROM clicks

-- case: union of three
SELECT ad_id, 1 AS w FROM impressions UNION ALL SELECT ad_id, 2 FROM clicks UNION ALL SELECT ad_id, 3 FROM orders

-- case: union by name
SELECT ad_id, n FROM impressions UNION ALL BY NAME SELECT n, ad_id FROM clicks

-- case: sum over a union
SELECT ad_id, sum(w) AS s, count(DISTINCT user_id) AS u FROM
  (SELECT ad_id, user_id, 1 AS w FROM impressions UNION ALL SELECT ad_id, user_id, 100 FROM clicks) GROUP BY ad_id

-- case: union of an aggregate and rows
SELECT id, n FROM clicks UNION ALL SELECT 'total', sum(n) FROM clicks

-- case: intersect
SELECT user_id FROM impressions INTERSECT SELECT user_id FROM clicks

-- case: intersect all
SELECT ad_id FROM impressions INTERSECT ALL SELECT ad_id FROM clicks

-- case: except
SELECT user_id, ad_id FROM impressions EXCEPT SELECT user_id, ad_id FROM clicks

-- case: except all
SELECT user_id FROM impressions EXCEPT ALL SELECT user_id FROM clicks WHERE n > 0

-- case: union of types that widen
SELECT n AS x FROM impressions UNION ALL SELECT amount FROM clicks UNION ALL SELECT score FROM orders

-- case: distinct
SELECT DISTINCT ad_id, flag FROM impressions

-- case: distinct of everything there is
SELECT DISTINCT * FROM clicks

-- case: distinct on
SELECT DISTINCT ON (ad_id) ad_id, id, amount FROM impressions ORDER BY ad_id, occurred_at, id

-- case: distinct of an aggregate
SELECT DISTINCT c FROM (SELECT count(*) AS c FROM impressions GROUP BY ad_id)

-- case: count of distinct rows
SELECT count(*) AS c FROM (SELECT DISTINCT user_id, n FROM impressions)

-- case: sort of rows ordered
SELECT id, n, amount FROM impressions ORDER BY n DESC NULLS LAST, amount NULLS FIRST, id

-- case: sort of times ordered
SELECT day, at, id FROM impressions ORDER BY day NULLS FIRST, at DESC NULLS LAST, id

-- case: sort of what is not finite ordered
SELECT odd, id FROM impressions WHERE odd <> 0 ORDER BY odd DESC NULLS LAST, id

-- case: limit ordered
SELECT id, n FROM impressions ORDER BY id LIMIT 5

-- case: offset ordered
SELECT id, n FROM impressions ORDER BY id DESC OFFSET 3

-- case: limit and offset of groups ordered
SELECT user_id, count(*) AS c FROM impressions GROUP BY user_id ORDER BY c DESC, user_id LIMIT 2 OFFSET 1

-- case: limit of nothing
SELECT id FROM impressions WHERE n > 1000000 UNION ALL SELECT user_id FROM clicks LIMIT 1000

-- case: limit without an order
SELECT count(*) AS c FROM (SELECT * FROM impressions LIMIT 7)

-- case: limit under a join
SELECT count(*) AS c FROM (SELECT user_id FROM impressions ORDER BY id LIMIT 4) i JOIN clicks c ON i.user_id = c.user_id

-- case: limit in a union
SELECT count(*) AS c FROM ((SELECT id FROM impressions LIMIT 2) UNION ALL (SELECT id FROM clicks LIMIT 3))
