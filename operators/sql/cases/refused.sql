-- Queries that are refused, what is said, and about which part of the text («…»; without: about none).
-- Streams: impressions, clicks. Windows: impressions_by_minute, clicks_by_minute (tumbling 1m), clicks_by_hour,
-- sessions and other_sessions (session windows over clicks).

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

-- case: join without a window
SELECT i.ad_id FROM impressions i JOIN «clicks» c ON i.ad_id = c.ad_id
-- says: streams without a window cannot be combined; add a [window.NAME] over "impressions" and one over "clicks"

-- case: subquery without a window
SELECT ad_id FROM impressions WHERE user_id IN (SELECT user_id FROM «impressions»)
-- says: streams without a window cannot be combined

-- case: window and stream
SELECT count(*) FROM impressions_by_minute i JOIN «clicks» c ON i.ad_id = c.ad_id
-- says: "clicks" has no window, but "impressions_by_minute" has; add a [window.NAME] with input = "clicks"

-- case: different windows
SELECT * FROM (SELECT count(*) AS n FROM impressions_by_minute) i CROSS JOIN (SELECT count(*) AS n FROM «clicks_by_hour») c
-- says: "impressions_by_minute" and "clicks_by_hour" are cut into different windows

-- case: sessions and another window
SELECT * FROM (SELECT count(*) AS n FROM sessions) s CROSS JOIN (SELECT count(*) AS n FROM «clicks_by_hour») c
-- says: "sessions" and "clicks_by_hour" cannot be combined: a session is a window of its own

-- case: a window and sessions
SELECT * FROM clicks_by_hour c JOIN «sessions» s ON s.user_id = c.user_id
-- says: "clicks_by_hour" and "sessions" cannot be combined

-- case: sessions and sessions of another window
SELECT * FROM sessions s JOIN «other_sessions» o ON s.user_id = o.user_id
-- says: "sessions" and "other_sessions" cannot be combined

-- case: sessions and a stream
SELECT * FROM sessions s JOIN «clicks» c ON s.user_id = c.user_id
-- says: "clicks" has no window, but "sessions" has

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
