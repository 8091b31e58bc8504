WITH slid AS (
  SELECT date_bin(INTERVAL '2 seconds', date_time) - back AS starts, auction
  FROM bid CROSS JOIN (VALUES (INTERVAL '0 seconds'), (INTERVAL '2 seconds'), (INTERVAL '4 seconds'),
                              (INTERVAL '6 seconds'), (INTERVAL '8 seconds')) AS hops(back)
), counts AS (SELECT starts, auction, count(*) AS num FROM slid GROUP BY starts, auction)
SELECT c.starts, c.auction, c.num
FROM counts c JOIN (SELECT starts, max(num) AS most FROM counts GROUP BY starts) m
  ON c.starts = m.starts AND c.num = m.most
