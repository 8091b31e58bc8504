WITH sold AS (
  SELECT date_bin(INTERVAL '1 minute', a.date_time) AS minute, a.id, a.category, max(b.price) AS final
  FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
  GROUP BY 1, 2, 3
)
SELECT minute, category, avg(final) AS price FROM sold GROUP BY minute, category
