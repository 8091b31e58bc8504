-- Queries that are refused, what is said, and about which part of the text («…»; without: about none).
-- Streams: impressions, clicks. Windows: impressions_by_minute, clicks_by_minute (tumbling 1m), clicks_by_hour,
-- sessions (a session window over clicks).

-- case: unknown window
SELECT count(*) FROM «impressions_by_minut»
-- says: no stream or window is named "impressions_by_minut"; did you mean "impressions_by_minute"?

-- case: unknown table in a join, on the second line
SELECT count(*) FROM impressions_by_minute
  CROSS JOIN «orders»
-- says: no stream or window is named "orders"; there are impressions, clicks, impressions_by_minute

-- case: unknown column
SELECT «ad_idd», count(*) FROM impressions_by_minute GROUP BY 1
-- says: no column "ad_idd" here; did you mean "ad_id"?

-- case: unknown qualified column
SELECT i.n FROM impressions_by_minute i WHERE «i.user» = 'ü'
-- says: no column "i.

-- case: unknown function
SELECT «upperr»(ad_id) FROM impressions
-- says: invalid function 'upperr'

-- case: syntax
SELECT ad_id FROM impressions «GROUP» ad_id
-- says: expected

-- case: nothing
-- says: the query is empty

-- case: several statements
«SELECT 1 FROM clicks; SELECT 2 FROM clicks»
-- says: several statements

-- case: definition
«CREATE TABLE t AS SELECT * FROM clicks»
-- says: only a SELECT can run on streams

-- case: insert
«INSERT INTO clicks SELECT * FROM clicks»
-- says: only a SELECT can run on streams

-- case: no table
SELECT 1 AS one
-- says: reads no stream or window; select from one of impressions, clicks

-- case: aggregate without a window
SELECT ad_id, «count»(*) FROM impressions GROUP BY ad_id
-- says: an aggregate over "impressions" would never end, because the stream does not; add a [window.NAME] with input = "impressions"

-- case: group without a window
SELECT ad_id FROM impressions «GROUP» BY ad_id
-- says: an aggregate over "impressions" would never end

-- case: distinct without a window
SELECT «DISTINCT» ad_id FROM impressions
-- says: DISTINCT over "impressions" would never end

-- case: order without a window
SELECT ad_id FROM impressions «ORDER» BY ad_id
-- says: ORDER BY over "impressions" would never end

-- case: limit without a window
SELECT ad_id FROM impressions «LIMIT» 5
-- says: LIMIT over "impressions" would never end

-- case: ranking without a window
SELECT row_number() «OVER» (ORDER BY ad_id) FROM impressions
-- says: a window function over "impressions" would never end

-- case: subquery without a window
SELECT ad_id FROM impressions WHERE user_id IN (SELECT user_id FROM «impressions»)
-- says: streams without a window cannot be combined in this way; two can be joined by JOIN, LEFT JOIN, RIGHT JOIN or FULL JOIN on an equality and a bound of time

-- case: exists without a window
SELECT ad_id FROM impressions i WHERE EXISTS (SELECT 1 FROM «clicks» c WHERE c.user_id = i.user_id
  AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 hour')
-- says: streams without a window cannot be combined in this way

-- case: union of streams
SELECT ad_id FROM impressions UNION ALL SELECT ad_id FROM «clicks»
-- says: streams without a window cannot be combined in this way

-- case: join without a bound
SELECT i.ad_id FROM impressions i JOIN «clicks» c ON i.ad_id = c.ad_id
-- says: "i" and "c" are joined without a bound of time, so their rows would be kept for ever; add to the condition AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 hour', or add a [window.NAME] over each

-- case: join without aliases and without a bound
SELECT impressions.ad_id FROM impressions JOIN «clicks» USING (ad_id)
-- says: add to the condition AND clicks.occurred_at BETWEEN impressions.occurred_at AND impressions.occurred_at + INTERVAL '1 hour'

-- case: join without an upper bound
SELECT i.ad_id, c.user_id FROM impressions i
  LEFT JOIN «clicks» c ON i.ad_id = c.ad_id AND c.occurred_at >= i.occurred_at
-- says: nothing says how long after i.occurred_at a match may come, so rows of "i" would be kept for ever; add to the condition AND c.occurred_at <= i.occurred_at + INTERVAL '1 hour'

-- case: join without a lower bound
SELECT i.ad_id, c.user_id FROM impressions i
  LEFT JOIN «clicks» c ON i.ad_id = c.ad_id AND c.occurred_at < i.occurred_at + INTERVAL '1 hour'
-- says: nothing says how long before i.occurred_at a match may have come, so rows of "c" would be kept for ever; add to the condition AND c.occurred_at >= i.occurred_at, or AND c.occurred_at >= i.occurred_at - INTERVAL '1 hour'

-- case: a bound under OR is none
SELECT i.ad_id FROM impressions i JOIN «clicks» c ON i.ad_id = c.ad_id
  AND (c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 hour' OR c.user_id = i.user_id)
-- says: are joined without a bound of time

-- case: a bound on another column is none
SELECT i.ad_id FROM impressions i JOIN «clicks» c ON i.ad_id = c.ad_id AND c.user_id BETWEEN i.user_id AND i.user_id || 'z'
-- says: are joined without a bound of time

-- case: a bound on rounded time is none
SELECT i.ad_id FROM impressions i JOIN «clicks» c ON i.ad_id = c.ad_id
  AND date_trunc('hour', c.occurred_at) = date_trunc('hour', i.occurred_at)
-- says: are joined without a bound of time

-- case: join without a key
SELECT i.ad_id, c.user_id FROM impressions i
  JOIN «clicks» c ON c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 hour'
-- says: "i" and "c" are joined without a key, so every row would meet every other; add an equality to the condition, such as AND i.ad_id = c.ad_id

-- case: cross join without a window
SELECT i.ad_id, c.user_id FROM impressions i, «clicks» c
-- says: "i" and "c" are joined without a key

-- case: a bound in months
SELECT i.ad_id FROM impressions i JOIN «clicks» c ON i.ad_id = c.ad_id
  AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 month'
-- says: a bound of time in months or years has no fixed length; write it in days, hours, minutes or seconds

-- case: bounds that leave nothing
SELECT i.ad_id FROM impressions i JOIN «clicks» c ON i.ad_id = c.ad_id
  AND c.occurred_at > i.occurred_at + INTERVAL '2 hours' AND c.occurred_at < i.occurred_at + INTERVAL '1 hour'
-- says: no rows can match: c would have to come 2h or more and 1h or less after i

-- case: event time left out of a subquery
SELECT i.ad_id FROM impressions i JOIN (SELECT ad_id FROM «clicks») c ON i.ad_id = c.ad_id
-- says: the rows of "c" come without their event time "occurred_at", so nothing bounds how long they are kept; select it in the subquery too

-- case: three streams
SELECT i.ad_id FROM impressions i JOIN clicks c ON i.ad_id = c.ad_id
  AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 hour'
  JOIN «clicks» d ON d.ad_id = c.ad_id AND d.occurred_at BETWEEN c.occurred_at AND c.occurred_at + INTERVAL '1 hour'
-- says: a query joins two streams without windows, not more; join the first two in a [sql.NAME] of its own and join its result with the next

-- case: an aggregate over a join of streams
SELECT i.ad_id, «count»(*) FROM impressions i JOIN clicks c ON i.ad_id = c.ad_id
  AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 hour' GROUP BY i.ad_id
-- says: an aggregate over the join of "impressions" and "clicks" would never end, because the streams do not; join them in a [sql.NAME] of its own, add a [window.NAME] with that as its input, and select from the window

-- case: an aggregate under a join of streams
SELECT i.ad_id FROM impressions i JOIN (SELECT ad_id, «max»(occurred_at) AS last FROM clicks GROUP BY ad_id) c
  ON i.ad_id = c.ad_id
-- says: an aggregate over the join of

-- case: order of a join of streams
SELECT i.ad_id FROM impressions i JOIN clicks c ON i.ad_id = c.ad_id
  AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 hour' «ORDER» BY 1
-- says: ORDER BY over the join of "impressions" and "clicks" would never end

-- case: window and stream
SELECT count(*) FROM impressions_by_minute i JOIN «clicks» c ON i.ad_id = c.ad_id
-- says: "clicks" has no window, but "impressions_by_minute" has; add a [window.NAME] with input = "clicks"

-- case: different windows
SELECT * FROM (SELECT count(*) AS n FROM impressions_by_minute) i CROSS JOIN (SELECT count(*) AS n FROM «clicks_by_hour») c
-- says: "impressions_by_minute" and "clicks_by_hour" are cut into different windows

-- case: session
SELECT count(*) FROM «sessions»
-- says: session windows cannot be queried yet

-- case: wall clock in a window
SELECT «now»() AS at, count(*) FROM impressions_by_minute
-- says: now() reads the wall clock, so a replay would give another result; use the event time column or window_start()

-- case: wall clock over a stream
SELECT ad_id, «current_timestamp» AS at FROM impressions
-- says: current_timestamp() reads the wall clock

-- case: random in a window
SELECT count(*) FROM impressions_by_minute WHERE «random»() < 0.1
-- says: random() gives another result each time

-- case: window function over a stream
SELECT «window_start»() AS at, ad_id FROM impressions
-- says: window_start() has a meaning only for windows

-- case: recursion
«WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3)» SELECT * FROM r, impressions_by_minute
-- says: a recursive query cannot run on streams

-- case: wrong type
SELECT sum(ad_id) FROM impressions_by_minute WHERE occurred_at = 5 AND ad_id + INTERVAL '1 day' = 3
-- says: 

-- case: fetch
SELECT ad_id, count(*) FROM impressions_by_minute GROUP BY ad_id ORDER BY ad_id «FETCH» FIRST 3 ROWS ONLY
-- says: FETCH is not supported; write LIMIT

-- case: subquery in an expression
SELECT CASE WHEN user_id IN (SELECT user_id FROM clicks_by_minute) THEN 1 ELSE 0 END AS clicked FROM impressions_by_minute
-- says: a subquery stands where it cannot be computed; use it alone in WHERE or HAVING, or join with it

-- case: quoted function
SELECT count(*) FROM impressions_by_minute WHERE «"random"»() < 0.1
-- says: random() gives another result each time

-- case: other names of the wall clock
SELECT «today»() AS at, count(*) FROM impressions_by_minute
-- says: today() reads the wall clock

-- case: time of day
SELECT count(*) FROM impressions_by_minute WHERE occurred_at > «current_date»
-- says: current_date() reads the wall clock

-- case: random in an aggregate
SELECT ad_id, array_agg(«uuid»()) FROM impressions_by_minute GROUP BY ad_id
-- says: uuid() gives another result each time

-- case: wall clock in a subquery
WITH late AS (SELECT ad_id FROM impressions_by_minute WHERE occurred_at < «now»() - INTERVAL '1 hour') SELECT count(*) FROM late
-- says: now() reads the wall clock

-- case: lateral function of rows
SELECT i.ad_id, g.value FROM impressions_by_minute i, LATERAL generate_series(1, length(i.user_id)) g
-- says: 

-- case: two aggregates of one name
SELECT sum(length(ad_id)), sum(CAST(length(ad_id) AS DOUBLE)) FROM impressions_by_minute
-- says: have the same name. Consider aliasing

-- case: window start in the order of an aggregate
SELECT array_agg(ad_id ORDER BY CASE WHEN occurred_at < window_start() THEN 0 ELSE 1 END, ad_id) AS ads
FROM impressions_by_minute
-- says: an aggregate cannot be ordered by window_start() or window_end(); order by the columns window_start and window_end
