SELECT auction, bidder, 0.908 * price AS price,
       CASE WHEN date_part('hour', date_time) BETWEEN 8 AND 18 THEN 'dayTime'
            WHEN date_part('hour', date_time) BETWEEN 7 AND 19 THEN 'otherTime'
            ELSE 'nightTime' END AS bid_time_type,
       date_time, extra, char_length(extra) - char_length(replace(extra, 'c', '')) AS c_counts
FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
