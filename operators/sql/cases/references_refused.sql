-- Queries with reference tables that are refused, what is said, and about which part of the text («…»).
-- Streams, windows and tables as in references.sql.

-- case: unknown table
SELECT * FROM clicks c JOIN «campaign» g ON true
-- says: no stream or window is named "campaign"; did you mean "campaigns"?

-- case: a table alone
SELECT * FROM ads
-- says: the query reads no stream or window, only the table "ads", in which nothing ever arrives; select from one of clicks, clicks_by_minute

-- case: unknown column of a table
SELECT «a.prize» FROM clicks c JOIN ads a ON c.ad_id = a.ad_id
-- says: no column "a.prize" here; did you mean "price"?

-- case: unmatched rows of a table
SELECT * FROM clicks c RIGHT «JOIN» ads a ON c.ad_id = a.ad_id
-- says: keeping a table's unmatched rows over "clicks" would never end, because the stream does not

-- case: unmatched rows of a table, the table first
SELECT * FROM ads a LEFT «JOIN» clicks c ON c.ad_id = a.ad_id
-- says: keeping a table's unmatched rows over "clicks"

-- case: unmatched rows of both
SELECT * FROM clicks c FULL «JOIN» ads a ON c.ad_id = a.ad_id
-- says: add a [window.NAME] with input = "clicks"

-- case: aggregate over the join
SELECT a.campaign_id, «count»(*) FROM clicks c JOIN ads a ON c.ad_id = a.ad_id GROUP BY a.campaign_id
-- says: an aggregate over "clicks" would never end

-- case: the stream in a subquery of a table's rows
SELECT * FROM ads WHERE ad_id «IN» (SELECT ad_id FROM clicks)
-- says: a subquery over "clicks" would never end

-- case: the stream twice
SELECT * FROM clicks c JOIN ads a ON c.ad_id = a.ad_id WHERE c.id IN (SELECT id FROM «clicks»)
-- says: two streams and the table "ads" are not joined in one query; join the streams in a [sql.NAME] of its own

-- case: the union of both
SELECT ad_id FROM clicks «UNION» ALL SELECT ad_id FROM ads
-- says: UNION over "clicks" would never end

-- case: a stream and a window beside a table
SELECT * FROM clicks_by_minute m JOIN «clicks» c ON true JOIN ads a ON true
-- says: "clicks" has no window
