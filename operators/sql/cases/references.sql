-- Queries that join reference tables. Those over a window must give, for each window, what DataFusion gives in
-- batch for that window's rows and the tables' rows as they stand when it fires; those over a stream, for whatever
-- batches its rows come in, what DataFusion gives for all of them. See references.rs.
-- Streams: clicks and its window clicks_by_minute, with id, ad_id (null at times), amount (null at times), occurred_at.
-- Tables: ads (ad_id, campaign_id, price), of which one ad stands twice and some have no campaign; campaigns
-- (campaign_id, name, budget).

-- case: window, rows joined
SELECT c.id, a.price FROM clicks_by_minute c JOIN ads a ON c.ad_id = a.ad_id

-- case: window, rows and what is known of them
SELECT c.id, a.campaign_id, a.price FROM clicks_by_minute c LEFT JOIN ads a ON c.ad_id = a.ad_id

-- case: window, everything in the table and what happened to it
SELECT a.ad_id, count(c.id) AS n FROM ads a LEFT JOIN clicks_by_minute c ON c.ad_id = a.ad_id GROUP BY a.ad_id

-- case: window, aggregate joined
SELECT g.name, sum(c.n) AS clicks, window_start() AS at
FROM (SELECT ad_id, count(*) AS n FROM clicks_by_minute GROUP BY ad_id) c
JOIN ads a ON a.ad_id = c.ad_id JOIN campaigns g ON g.campaign_id = a.campaign_id GROUP BY g.name

-- case: window, aggregate over the join
SELECT a.campaign_id, count(*) AS n, sum(c.amount * a.price) AS cost, count(DISTINCT c.ad_id) AS ads
FROM clicks_by_minute c JOIN ads a USING (ad_id) GROUP BY a.campaign_id

-- case: window, full join
SELECT c.id, a.ad_id FROM clicks_by_minute c FULL JOIN ads a ON c.ad_id = a.ad_id

-- case: window, only known ads
SELECT ad_id, count(*) AS n FROM clicks_by_minute WHERE ad_id IN (SELECT ad_id FROM ads WHERE price > 1) GROUP BY ad_id

-- case: window, only unknown ads
SELECT ad_id, count(*) AS n FROM clicks_by_minute c WHERE NOT EXISTS (SELECT 1 FROM ads a WHERE a.ad_id = c.ad_id)
GROUP BY ad_id

-- case: window, scalar subquery
SELECT count(*) AS n, (SELECT max(budget) FROM campaigns) AS most FROM clicks_by_minute
WHERE amount > (SELECT avg(price) FROM ads)

-- case: window, union with the table
SELECT ad_id, 'clicked' AS what FROM clicks_by_minute UNION ALL SELECT ad_id, 'known' FROM ads

-- case: window, counts of both
SELECT c.n AS clicks, a.n AS ads FROM (SELECT count(*) AS n FROM clicks_by_minute) c
CROSS JOIN (SELECT count(*) AS n FROM ads) a

-- case: window, top ad of each campaign
SELECT campaign_id, ad_id, n FROM (
  SELECT a.campaign_id, c.ad_id, c.n, row_number() OVER (PARTITION BY a.campaign_id ORDER BY c.n DESC, c.ad_id) AS r
  FROM (SELECT ad_id, count(*) AS n FROM clicks_by_minute GROUP BY ad_id) c JOIN ads a ON a.ad_id = c.ad_id
) WHERE r = 1

-- case: window, the table twice
WITH dear AS (SELECT ad_id, price FROM ads WHERE price > 1)
SELECT c.id, d.price, e.ad_id AS other FROM clicks_by_minute c JOIN dear d ON d.ad_id = c.ad_id
JOIN dear e ON e.price > d.price

-- case: window, a range of the table
SELECT c.id, count(a.ad_id) AS cheaper FROM clicks_by_minute c LEFT JOIN ads a ON a.price < c.amount GROUP BY c.id

-- case: window, window columns beside the table's
SELECT window_start, a.campaign_id, min(c.occurred_at - window_start) AS first
FROM clicks_by_minute c JOIN ads a ON c.ad_id = a.ad_id GROUP BY window_start, a.campaign_id

-- case: stream, rows joined
SELECT c.id, a.price, c.occurred_at FROM clicks c JOIN ads a ON c.ad_id = a.ad_id

-- case: stream, rows and what is known of them
SELECT c.*, a.campaign_id FROM clicks c LEFT JOIN ads a ON c.ad_id = a.ad_id

-- case: stream, the table first
SELECT a.price, c.id FROM ads a JOIN clicks c ON c.ad_id = a.ad_id WHERE c.amount > 1

-- case: stream, right join
SELECT a.price, c.id FROM ads a RIGHT JOIN clicks c ON c.ad_id = a.ad_id AND a.price > 1

-- case: stream, two tables
SELECT c.id, g.name FROM clicks c LEFT JOIN ads a ON c.ad_id = a.ad_id LEFT JOIN campaigns g ON g.campaign_id = a.campaign_id

-- case: stream, tables joined with each other first
SELECT c.id, k.name FROM clicks c JOIN
  (SELECT a.ad_id, g.name FROM ads a JOIN campaigns g ON g.campaign_id = a.campaign_id) k ON k.ad_id = c.ad_id

-- case: stream, an aggregate of the table
SELECT c.id, a.n FROM clicks c JOIN (SELECT ad_id, count(*) AS n FROM ads GROUP BY ad_id ORDER BY n DESC LIMIT 2) a
ON a.ad_id = c.ad_id

-- case: stream, only known ads
SELECT id FROM clicks WHERE ad_id IN (SELECT ad_id FROM ads WHERE price > 1)

-- case: stream, not in
SELECT id FROM clicks WHERE ad_id NOT IN (SELECT ad_id FROM ads WHERE price > 1)

-- case: stream, exists
SELECT id FROM clicks c WHERE EXISTS (SELECT 1 FROM ads a WHERE a.ad_id = c.ad_id AND a.price < c.amount)

-- case: stream, not exists
SELECT id FROM clicks c WHERE NOT EXISTS (SELECT 1 FROM ads a WHERE a.ad_id = c.ad_id)

-- case: stream, scalar subquery
SELECT id, amount - (SELECT avg(price) FROM ads) AS above FROM clicks WHERE amount > (SELECT min(price) FROM ads)

-- case: stream, correlated subquery
SELECT id, (SELECT max(a.price) FROM ads a WHERE a.ad_id = c.ad_id) AS price FROM clicks c

-- case: stream, cross join
SELECT c.id, b.most FROM clicks c CROSS JOIN (SELECT max(budget) AS most FROM campaigns) b

-- case: stream, a range of the table
SELECT c.id, a.ad_id FROM clicks c JOIN ads a ON a.price < c.amount

-- case: stream, a range of the table or nothing
SELECT c.id, a.ad_id FROM clicks c LEFT JOIN ads a ON a.price < c.amount AND a.ad_id <> c.ad_id

-- case: stream, the table twice
SELECT c.id, a.price, b.price AS other FROM clicks c JOIN ads a ON a.ad_id = c.ad_id LEFT JOIN ads b ON b.price > a.price

-- case: stream, columns computed on both sides
SELECT upper(c.id) AS id, c.amount * a.price AS cost, CASE WHEN a.price IS NULL THEN 'unknown' ELSE 'known' END AS what
FROM (SELECT id, upper(ad_id) AS ad, amount FROM clicks WHERE amount IS NOT NULL) c
LEFT JOIN (SELECT upper(ad_id) AS ad, price FROM ads) a ON a.ad = c.ad

-- case: stream, values
SELECT c.id, v.k FROM clicks c JOIN (VALUES ('a1', 1), ('a2', 2)) AS v(ad, k) ON v.ad = c.ad_id
