SELECT * FROM (
  SELECT auction, bidder, price, channel, date_time,
         coalesce(CASE channel WHEN 'Apple' THEN '0' WHEN 'Google' THEN '1' WHEN 'Facebook' THEN '2' WHEN 'Baidu' THEN '3' END,
                  nullif(split_part(url, '&channel_id=', 2), '')) AS channel_id
  FROM bid)
WHERE channel_id IS NOT NULL
