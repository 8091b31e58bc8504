SELECT date_trunc('day', date_time) AS day,
       count(price) AS total_bids,
       count(CASE WHEN price < 10000 THEN price END) AS rank1_bids,
       count(CASE WHEN price BETWEEN 10000 AND 999999 THEN price END) AS rank2_bids,
       count(CASE WHEN price >= 1000000 THEN price END) AS rank3_bids,
       count(DISTINCT bidder) AS total_bidders,
       count(DISTINCT CASE WHEN price < 10000 THEN bidder END) AS rank1_bidders,
       count(DISTINCT CASE WHEN price BETWEEN 10000 AND 999999 THEN bidder END) AS rank2_bidders,
       count(DISTINCT CASE WHEN price >= 1000000 THEN bidder END) AS rank3_bidders,
       count(DISTINCT auction) AS total_auctions,
       count(DISTINCT CASE WHEN price < 10000 THEN auction END) AS rank1_auctions,
       count(DISTINCT CASE WHEN price BETWEEN 10000 AND 999999 THEN auction END) AS rank2_auctions,
       count(DISTINCT CASE WHEN price >= 1000000 THEN auction END) AS rank3_auctions
FROM bid GROUP BY date_trunc('day', date_time)
