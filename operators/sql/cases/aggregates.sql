-- Every aggregate function DataFusion has, with and without groups. See oracle.rs for the tables and the rules.

-- case: count of columns
SELECT ad_id, count(*) AS rows, count(amount) AS amounts, count(n) AS ns, count(flag) AS flags, count(day) AS days
FROM impressions GROUP BY ad_id

-- case: count of columns of everything
SELECT count(1) AS one, count(amount) AS amounts, count(ad_id) AS ads, count(odd) AS odds FROM clicks

-- case: sum of every numeric type
SELECT user_id, sum(amount) AS a, sum(n) AS n, sum(score) AS s, sum(CAST(n * 2 AS DECIMAL(12, 2))) AS d
FROM impressions GROUP BY user_id

-- case: sum that overflows wraps
SELECT ad_id, sum(big) AS s FROM impressions GROUP BY ad_id

-- case: sum that overflows wraps over everything
SELECT sum(big) AS s, sum(-n) AS n FROM impressions

-- case: sum of what is not finite
SELECT ad_id, sum(odd) AS s FROM impressions WHERE odd <> 1.7976931348623157e308 GROUP BY ad_id

-- case: min and max of numbers
SELECT ad_id, min(n) AS n0, max(n) AS n1, min(big) AS b0, max(big) AS b1, min(score) AS s0, max(score) AS s1
FROM impressions GROUP BY ad_id

-- case: min and max of strings
SELECT user_id, min(ad_id) AS a0, max(ad_id) AS a1, min(id) AS i0, max(id) AS i1 FROM impressions GROUP BY user_id

-- case: min and max of times and dates
SELECT ad_id, min(at) AS t0, max(at) AS t1, min(day) AS d0, max(day) AS d1, max(occurred_at) AS o FROM impressions
GROUP BY ad_id

-- case: min and max of booleans
SELECT ad_id, min(flag) AS f0, max(flag) AS f1 FROM impressions GROUP BY ad_id

-- case: min and max of everything
SELECT min(n) AS n0, max(big) AS b1, min(id) AS i0, max(ad_id) AS a1, min(at) AS t0, max(day) AS d1, max(flag) AS f
FROM impressions

-- case: min and max of infinities
SELECT ad_id, min(odd) AS lo, max(odd) AS hi FROM impressions WHERE odd <> 0 AND NOT isnan(odd) GROUP BY ad_id

-- case: average of every numeric type
SELECT ad_id, avg(amount) AS a, avg(n) AS n, avg(score) AS s, avg(CAST(n * 2 AS DECIMAL(12, 2))) AS d FROM impressions
GROUP BY ad_id

-- case: average of everything
SELECT avg(amount) AS a, avg(n) AS n, mean(score) AS s, avg(CAST(n * 2 AS DECIMAL(12, 2))) AS d FROM impressions

-- case: average of durations
SELECT user_id, avg(occurred_at - window_start()) AS after, max(window_end() - occurred_at) AS before FROM impressions
GROUP BY user_id

-- case: deviations
SELECT user_id, stddev(amount) AS sd, stddev_pop(amount) AS sdp, var(amount) AS v, var_pop(amount) AS vp,
       var_samp(n) AS vn, stddev_samp(score) AS ss
FROM impressions GROUP BY user_id

-- case: deviations of everything
SELECT stddev(amount) AS sd, stddev_pop(n) AS sdp, var(amount) AS v, var_pop(n) AS vp FROM impressions

-- case: covariance and correlation
SELECT user_id, corr(amount, n) AS c, covar_pop(amount, n) AS cp, covar_samp(amount, n) AS cs FROM impressions
GROUP BY user_id

-- case: correlation of everything
SELECT corr(amount, n) AS c, covar_samp(amount, n) AS cs FROM impressions

-- case: regression
SELECT user_id, regr_count(amount, n) AS c, regr_avgx(amount, n) AS ax, regr_avgy(amount, n) AS ay,
       regr_sxx(amount, n) AS sxx, regr_syy(amount, n) AS syy, regr_sxy(amount, n) AS sxy
FROM impressions GROUP BY user_id

-- case: regression of everything
SELECT regr_slope(amount, n) AS slope, regr_intercept(amount, n) AS intercept, regr_r2(amount, n) AS r2 FROM impressions

-- case: bits
SELECT ad_id, bit_and(n) AS a, bit_or(n) AS o, bit_xor(n) AS x FROM impressions GROUP BY ad_id

-- case: bits of everything
SELECT bit_and(big) AS a, bit_or(score) AS o, bit_xor(big) AS x, bit_xor(DISTINCT n) AS d FROM impressions

-- case: booleans
SELECT ad_id, bool_and(flag) AS a, bool_or(flag) AS o, bool_and(amount > 0) AS pa FROM impressions GROUP BY ad_id

-- case: booleans of everything
SELECT bool_and(flag) AS a, bool_or(flag) AS o, bool_or(n > 3) AS big FROM impressions

-- case: medians
SELECT ad_id, median(amount) AS a, median(n) AS n, median(score) AS s FROM impressions GROUP BY ad_id

-- case: medians of everything
SELECT median(amount) AS a, median(n) AS n, median(DISTINCT n) AS d FROM impressions

-- case: percentile cont
SELECT ad_id, percentile_cont(0.25) WITHIN GROUP (ORDER BY amount) AS p FROM impressions GROUP BY ad_id

-- case: approximate percentiles of a few rows
SELECT ad_id, approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY amount) AS p, approx_median(amount) AS m
FROM impressions GROUP BY ad_id

-- case: approximate percentiles of a few rows of everything
SELECT approx_percentile_cont(0.1) WITHIN GROUP (ORDER BY amount) AS p, approx_median(n) AS m FROM clicks

-- case: approximate percentiles with weight
SELECT user_id, approx_percentile_cont_with_weight(1, 0.5) WITHIN GROUP (ORDER BY amount) AS p FROM clicks
GROUP BY user_id

-- case: approximate count of distinct
SELECT ad_id, approx_distinct(user_id) AS u, approx_distinct(n) AS n FROM impressions GROUP BY ad_id

-- case: approximate count of distinct of everything
SELECT approx_distinct(id) AS i, approx_distinct(big) AS b, approx_distinct(at) AS t FROM impressions

-- case: count distinct of every type
SELECT ad_id, count(DISTINCT user_id) AS u, count(DISTINCT n) AS n, count(DISTINCT amount) AS a,
       count(DISTINCT flag) AS f, count(DISTINCT day) AS d, count(DISTINCT at) AS t
FROM impressions GROUP BY ad_id

-- case: count distinct of every type of everything
SELECT count(DISTINCT ad_id) AS u, count(DISTINCT n) AS n, count(DISTINCT score) AS s, count(DISTINCT flag) AS f,
       count(DISTINCT day) AS d, count(DISTINCT big) AS b
FROM impressions

-- case: count distinct of expressions
SELECT count(DISTINCT upper(ad_id) || user_id) AS pairs, count(DISTINCT n % 3) AS thirds FROM impressions

-- case: count distinct of pairs
SELECT ad_id, count(DISTINCT named_struct('u', user_id, 'f', flag)) AS pairs FROM impressions GROUP BY ad_id

-- case: sum and average of distinct
SELECT ad_id, sum(DISTINCT n) AS s, min(DISTINCT n) AS lo, max(DISTINCT n) AS hi FROM impressions GROUP BY ad_id

-- case: sum of distinct of everything
SELECT sum(DISTINCT n) AS s, count(DISTINCT n) AS c, sum(n) AS all FROM impressions

-- case: distinct with a filter
SELECT ad_id, count(DISTINCT user_id) FILTER (WHERE amount > 1) AS some, count(DISTINCT user_id) AS all FROM impressions
GROUP BY ad_id

-- case: distinct with a filter of everything
SELECT count(DISTINCT user_id) FILTER (WHERE flag) AS some, sum(DISTINCT n) FILTER (WHERE n > 0) AS s FROM impressions

-- case: filters on many functions
SELECT user_id, avg(amount) FILTER (WHERE flag) AS a, max(n) FILTER (WHERE ad_id = 'a1') AS m,
       bool_or(flag) FILTER (WHERE n > 0) AS b, median(amount) FILTER (WHERE n < 5) AS d,
       count(*) FILTER (WHERE ad_id IS NULL) AS nulls
FROM impressions GROUP BY user_id

-- case: filter that nothing passes
SELECT ad_id, sum(n) FILTER (WHERE FALSE) AS s, count(*) FILTER (WHERE n > 1000) AS c FROM impressions GROUP BY ad_id

-- case: the same aggregate twice
SELECT ad_id, sum(n) AS a, sum(n) + 1 AS b, sum(n) * count(*) AS c FROM impressions GROUP BY ad_id

-- case: aggregates of constants
SELECT ad_id, sum(1) AS ones, max('x') AS x, min(NULL) AS nothing, count(NULL) AS none FROM impressions GROUP BY ad_id

-- case: aggregates in order by ordered
SELECT user_id FROM impressions GROUP BY user_id ORDER BY sum(amount) DESC NULLS LAST, user_id

-- case: aggregates of case
SELECT sum(CASE WHEN flag THEN 1 ELSE 0 END) AS yes, sum(CASE WHEN flag IS NULL THEN 1 END) AS unknown,
       avg(CASE WHEN ad_id = '' THEN 0.0 ELSE amount END) AS mean
FROM impressions

-- case: aggregates of aggregates
SELECT max(c) AS most, avg(s) AS mean, count(DISTINCT c) AS sizes
FROM (SELECT ad_id, count(*) AS c, sum(amount) AS s FROM impressions GROUP BY ad_id)

-- case: aggregates of aggregates by key
SELECT ad_id, count(*) AS users, max(c) AS most FROM
  (SELECT ad_id, user_id, count(*) AS c FROM impressions GROUP BY ad_id, user_id) GROUP BY ad_id

-- case: three levels of aggregates
SELECT sum(users) AS s FROM (SELECT ad_id, count(*) AS users FROM
  (SELECT ad_id, user_id, max(n) AS hi FROM impressions GROUP BY ad_id, user_id) WHERE hi > 0 GROUP BY ad_id)

-- case: having on what is not selected
SELECT ad_id FROM impressions GROUP BY ad_id HAVING avg(amount) > 1.5 OR ad_id IS NULL

-- case: having without groups
SELECT count(*) AS c FROM impressions HAVING count(*) > 10

-- case: having that nothing passes
SELECT ad_id, count(*) AS c FROM impressions GROUP BY ad_id HAVING count(*) > 1000 OR ad_id = 'a1'

-- case: many keys of every type
SELECT ad_id, flag, day, n % 2 AS odd_n, count(*) AS c FROM impressions GROUP BY ad_id, flag, day, n % 2

-- case: keys that are not finite
SELECT odd, count(*) AS c FROM impressions WHERE odd <> 0 GROUP BY odd

-- case: keys of extremes
SELECT big, count(*) AS c FROM impressions GROUP BY big

-- case: keys of times
SELECT date_trunc('second', occurred_at) AS s, at, count(*) AS c FROM impressions GROUP BY 1, 2

-- case: keys and a constant
SELECT 'all' AS what, flag, count(*) AS c FROM clicks GROUP BY 1, flag

-- case: group by all columns of a subquery
SELECT * FROM (SELECT ad_id, n, flag FROM impressions WHERE n > 0) GROUP BY ad_id, n, flag
