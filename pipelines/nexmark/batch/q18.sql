SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time, b.extra
FROM bid b JOIN (SELECT bidder, auction, max(date_time) AS last FROM bid
                 GROUP BY bidder, auction, date_bin(INTERVAL '1 minute', date_time)) l
  ON b.bidder = l.bidder AND b.auction = l.auction AND b.date_time = l.last
