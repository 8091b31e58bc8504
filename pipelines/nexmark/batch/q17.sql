SELECT auction, date_trunc('day', date_time) AS day,
       count(price) AS total_bids,
       count(CASE WHEN price < 10000 THEN price END) AS rank1_bids,
       count(CASE WHEN price BETWEEN 10000 AND 999999 THEN price END) AS rank2_bids,
       count(CASE WHEN price >= 1000000 THEN price END) AS rank3_bids,
       min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price
FROM bid GROUP BY auction, date_trunc('day', date_time)
