SELECT *
FROM (SELECT auction, bidder, price, channel, url, date_time, extra,
             row_number() OVER (PARTITION BY auction, date_bin(INTERVAL '1 minute', date_time)
                                ORDER BY price DESC, date_time) AS place
      FROM bid)
WHERE place <= 10
