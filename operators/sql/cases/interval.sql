-- Every query here joins two streams without windows, in several partitions, with and without a restore in the
-- middle, and must give what DataFusion gives in batch over all rows. See interval/oracle.rs.
-- Streams: impressions and clicks with id, ad_id (null at times), user_id, amount (null at times), occurred_at.
-- Event time of the result is said where there is one, and how far the result's watermark is held back.

-- case: clicks of an impression within a minute
-- time: occurred_at, 60s behind
SELECT i.*, c.id AS click_id, c.occurred_at AS clicked_at FROM impressions i LEFT JOIN clicks c ON i.ad_id = c.ad_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 minute'

-- case: inner
-- time: occurred_at, 60s behind
SELECT i.id, c.id AS click_id, i.occurred_at FROM impressions i JOIN clicks c ON i.ad_id = c.ad_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 minute'

-- case: event time of the right stream
-- time: at, 0s behind
SELECT i.id, c.id AS click_id, c.occurred_at AS at FROM impressions i JOIN clicks c ON i.ad_id = c.ad_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 minute'

-- case: event time of the left stream goes first
-- time: second, 20s behind
SELECT i.id, c.occurred_at AS first, i.occurred_at AS second FROM impressions i JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at >= i.occurred_at - INTERVAL '10 seconds' AND c.occurred_at <= i.occurred_at + INTERVAL '20 seconds'

-- case: comma and where
-- time: occurred_at, 30s behind
SELECT i.id, c.id AS click_id, i.occurred_at FROM impressions i, clicks c WHERE i.user_id = c.user_id
AND c.occurred_at > i.occurred_at AND c.occurred_at < i.occurred_at + INTERVAL '30 seconds'

-- case: interval on the other side
-- time: occurred_at, 40s behind
SELECT i.id, c.id AS click_id, i.occurred_at FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
AND i.occurred_at >= c.occurred_at - INTERVAL '40 seconds' AND c.occurred_at + INTERVAL '5 seconds' > i.occurred_at

-- case: difference of the times
-- time: none
SELECT i.id, c.id AS click_id, c.occurred_at - i.occurred_at AS after FROM impressions i JOIN clicks c
ON i.ad_id = c.ad_id AND i.user_id = c.user_id
AND c.occurred_at - i.occurred_at BETWEEN INTERVAL '0 seconds' AND INTERVAL '50 seconds'

-- case: left with a filter on the right in the condition
-- time: occurred_at, 60s behind
SELECT i.id, i.occurred_at, c.id AS click_id, c.amount FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '60 seconds' AND c.amount > 1

-- case: left with a filter on the left in the condition
-- time: occurred_at, 60s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '60 seconds' AND i.amount > 1

-- case: left with a filter on both in the condition
-- time: occurred_at, 60s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '60 seconds' AND i.amount + c.amount > 3

-- case: left with a where on the left
-- time: occurred_at, 60s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 minute' WHERE i.amount < 3

-- case: only those without a match
-- time: occurred_at, 60s behind
SELECT i.id, i.occurred_at FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 minute' WHERE c.id IS NULL

-- case: a where on the right makes it inner
-- time: occurred_at, 60s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
WHERE c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 minute'

-- case: where and expressions above
-- time: at, 60s behind
SELECT upper(i.id) AS id, coalesce(c.amount, 0) + i.amount AS both, i.occurred_at AS at FROM impressions i
LEFT JOIN clicks c ON i.ad_id = c.ad_id AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '60' SECOND
WHERE coalesce(c.amount, 0) < 3

-- case: subqueries with filters and other names
-- time: seen, 60s behind
SELECT i.ad, i.seen, c.clicked FROM (SELECT lower(ad_id) AS ad, occurred_at AS seen FROM impressions WHERE amount > 1) i
LEFT JOIN (SELECT lower(ad_id) AS ad, occurred_at AS clicked FROM clicks WHERE user_id <> 'u1') c
ON i.ad = c.ad AND c.clicked BETWEEN i.seen AND i.seen + INTERVAL '1 minute'

-- case: common table expressions
-- time: occurred_at, 60s behind
WITH big AS (SELECT id, user_id, occurred_at FROM impressions WHERE amount >= 2), pressed AS (SELECT * FROM clicks)
SELECT big.id, pressed.id AS click_id, big.occurred_at FROM big JOIN pressed USING (user_id)
WHERE pressed.occurred_at >= big.occurred_at AND pressed.occurred_at <= big.occurred_at + INTERVAL '1 minute'

-- case: right
-- time: occurred_at, 0s behind
SELECT c.id, c.occurred_at, i.id AS impression FROM impressions i RIGHT JOIN clicks c ON i.ad_id = c.ad_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 minute'

-- case: right, and matches on both sides in time
-- time: occurred_at, 15s behind
SELECT c.id, c.occurred_at, i.id AS impression FROM impressions i RIGHT JOIN clicks c ON i.ad_id = c.ad_id
AND c.occurred_at BETWEEN i.occurred_at - INTERVAL '15 seconds' AND i.occurred_at + INTERVAL '15 seconds'

-- case: full
-- time: none
SELECT i.id, c.id AS click, i.occurred_at, c.occurred_at AS clicked FROM impressions i FULL JOIN clicks c
ON i.ad_id = c.ad_id AND i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at - INTERVAL '20 seconds' AND i.occurred_at + INTERVAL '1 minute'

-- case: long before
-- time: occurred_at, 0s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at - INTERVAL '100 seconds' AND i.occurred_at - INTERVAL '80 seconds'

-- case: long after
-- time: occurred_at, 90s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at + INTERVAL '70 seconds' AND i.occurred_at + INTERVAL '90 seconds'

-- case: nulls in keys equal one another when asked
-- time: occurred_at, 10s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i LEFT JOIN clicks c ON (i.ad_id IS NOT DISTINCT FROM c.ad_id)
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '10 seconds'

-- case: the same instant
-- time: occurred_at, 0s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i LEFT JOIN clicks c
ON i.user_id = c.user_id AND i.occurred_at = c.occurred_at

-- case: a stream with itself
-- time: occurred_at, 20s behind
SELECT a.id, b.id AS next, a.occurred_at FROM clicks a LEFT JOIN clicks b ON a.user_id = b.user_id AND a.id <> b.id
AND b.occurred_at > a.occurred_at AND b.occurred_at <= a.occurred_at + INTERVAL '20 seconds'

-- case: keys that are computed
-- time: occurred_at, 60s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i JOIN clicks c ON i.user_id || 'x' = concat(c.user_id, 'x')
AND CAST(i.amount AS BIGINT) = CAST(c.amount AS BIGINT)
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 minute'

-- case: no columns of either
-- time: none
SELECT 1 AS one FROM impressions i JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 minute'

-- case: several bounds, the narrower count
-- time: occurred_at, 25s behind
SELECT i.id, i.occurred_at, c.id AS click_id FROM impressions i LEFT JOIN clicks c ON i.user_id = c.user_id
AND c.occurred_at BETWEEN i.occurred_at - INTERVAL '1 hour' AND i.occurred_at + INTERVAL '1 hour'
AND c.occurred_at >= i.occurred_at - INTERVAL '5 seconds' AND i.occurred_at + INTERVAL '25 seconds' >= c.occurred_at
