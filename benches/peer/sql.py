"""The queries for engines in batch, as someone would write them who knows windows: each minute is counted once, and then added
to the sixty windows it is in. `{earlier}` is how the engine takes `back` minutes from a time."""

BY_MINUTE = "SELECT date_trunc('minute', occurred_at) AS \"at\""
QUERIES = {
    "minute": f"{BY_MINUTE}, count(*) AS n FROM impressions GROUP BY 1",
    "clickthrough": f"""SELECT i."at", i.n AS impressions, c.n AS clicks, c.n / CAST(i.n AS DOUBLE) AS clickthrough
        FROM ({BY_MINUTE}, count(*) AS n FROM impressions GROUP BY 1) i
        JOIN ({BY_MINUTE}, count(*) AS n FROM clicks GROUP BY 1) c ON i."at" = c."at\"""",
    "ad": f"{BY_MINUTE}, ad_id, count(*) AS n FROM impressions GROUP BY 1, 2",
    "hop": f"""WITH by_minute AS ({BY_MINUTE}, country, count(*) AS n FROM impressions GROUP BY 1, 2)
        SELECT {{earlier}} AS "at", country, CAST(sum(n) AS BIGINT) AS n
        FROM (SELECT "at", country, n, unnest(range(0, 60)) AS back FROM by_minute) GROUP BY 1, 2""",
}


def query(name, earlier):
    """A query as an engine wants it."""
    return QUERIES[name].format(earlier=earlier)
