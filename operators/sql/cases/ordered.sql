-- Aggregates whose result depends on the order of rows. With ORDER BY it is defined; without, any order is right, in
-- batch too, so those cases ask only for what every order gives.

-- case: first and last value
SELECT ad_id, first_value(id ORDER BY occurred_at, id) AS f, last_value(id ORDER BY occurred_at, id) AS l,
       first_value(amount ORDER BY id DESC) AS a
FROM impressions GROUP BY ad_id

-- case: first and last value of everything
SELECT first_value(id ORDER BY occurred_at, id) AS f, last_value(n ORDER BY occurred_at, id) AS l FROM impressions

-- case: first value that is not null
SELECT ad_id, first_value(amount ORDER BY occurred_at, id) FILTER (WHERE amount IS NOT NULL) AS f FROM impressions
GROUP BY ad_id

-- case: nth value
SELECT ad_id, nth_value(id, 2 ORDER BY occurred_at, id) AS second FROM impressions GROUP BY ad_id

-- case: array by order
SELECT ad_id, array_agg(id ORDER BY occurred_at, id) AS ids, array_agg(n ORDER BY id) AS ns FROM impressions GROUP BY ad_id

-- case: array by descending order of everything
SELECT array_agg(n ORDER BY n DESC NULLS LAST) AS ns FROM clicks

-- case: array of distinct by order
SELECT ad_id, array_agg(DISTINCT user_id ORDER BY user_id) AS users FROM impressions GROUP BY ad_id

-- case: array with a filter
SELECT ad_id, array_agg(id ORDER BY id) FILTER (WHERE flag) AS ids FROM impressions GROUP BY ad_id

-- case: string by order
SELECT ad_id, string_agg(id, ',' ORDER BY occurred_at DESC, id) AS ids FROM impressions GROUP BY ad_id

-- case: string of distinct by order
SELECT user_id, string_agg(DISTINCT ad_id, '|' ORDER BY ad_id) AS ads FROM impressions GROUP BY user_id

-- case: two orders in one query
SELECT ad_id, array_agg(id ORDER BY id) AS up, array_agg(id ORDER BY id DESC) AS down, sum(n) AS s FROM impressions
GROUP BY ad_id

-- case: array without order
SELECT ad_id, array_sort(array_agg(id)) AS ids, cardinality(array_agg(n)) AS c FROM impressions GROUP BY ad_id

-- case: array of distinct without order
SELECT array_sort(array_agg(DISTINCT user_id)) AS users FROM impressions

-- case: string without order
SELECT ad_id, length(string_agg(id, ',')) AS l FROM impressions GROUP BY ad_id

-- case: first value without order
SELECT ad_id, first_value(ad_id) AS f, last_value(ad_id) AS l, any_value(ad_id) AS a, count(*) AS c FROM impressions
GROUP BY ad_id

-- case: array of structs
SELECT ad_id, array_agg(named_struct('id', id, 'n', n) ORDER BY id) AS rows FROM clicks GROUP BY ad_id

-- case: element of an ordered array
SELECT ad_id, (array_agg(id ORDER BY occurred_at DESC, id DESC))[1] AS latest FROM impressions GROUP BY ad_id

-- case: ordered array over a join
SELECT i.ad_id, array_agg(c.id ORDER BY c.id, i.id) AS clicks FROM impressions i
JOIN clicks c ON i.user_id = c.user_id AND i.ad_id = c.ad_id GROUP BY i.ad_id
