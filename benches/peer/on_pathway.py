"""pathway: one worker, static mode (a run that ends; streaming mode does not), JSON lines with a schema, its own tumbling and
sliding windows. Static mode keeps no watermarks and holds all rows: that favours its speed, not its memory."""

import pathway as pw
from common import main


class Impression(pw.Schema):
    ad_id: str
    country: str
    occurred_at: str


class Click(pw.Schema):
    ad_id: str
    occurred_at: str


MINUTE = pw.Duration(minutes=1)
TUMBLING = pw.temporal.tumbling(duration=MINUTE)
HOPPING = pw.temporal.sliding(hop=MINUTE, duration=60 * MINUTE)


def rows(directory, source, schema):
    lines = pw.io.jsonlines.read(f"{directory}/{source}.jsonl", schema=schema, mode="static")
    return lines.with_columns(occurred_at=pw.this.occurred_at.dt.strptime("%Y-%m-%d %H:%M:%S.%f"))


def per_minute(directory, source, schema):
    windows = rows(directory, source, schema).windowby(pw.this.occurred_at, window=TUMBLING)
    return windows.reduce(start=pw.this._pw_window_start, n=pw.reducers.count())


def counted(query, directory):
    if query == "minute":
        return per_minute(directory, "impressions", Impression).select(at=pw.this.start.dt.strftime("%Y-%m-%d %H:%M:%S"), n=pw.this.n)
    if query == "clickthrough":
        i, c = per_minute(directory, "impressions", Impression), per_minute(directory, "clicks", Click)
        joined = i.join(c, i.start == c.start)
        return joined.select(at=i.start.dt.strftime("%Y-%m-%d %H:%M:%S"), impressions=i.n, clicks=c.n, clickthrough=c.n / i.n)
    key, window = {"ad": ("ad_id", TUMBLING), "hop": ("country", HOPPING)}[query]
    impressions = rows(directory, "impressions", Impression)
    windows = impressions.windowby(impressions.occurred_at, window=window, instance=impressions[key])
    found = windows.reduce(key=pw.this._pw_instance, start=pw.this._pw_window_start, n=pw.reducers.count())
    return found.select(at=pw.this.start.dt.strftime("%Y-%m-%d %H:%M:%S"), **{key: pw.this.key}, n=pw.this.n)


def run(query, directory, file):
    pw.internals.parse_graph.G.clear()
    pw.io.jsonlines.write(counted(query, directory), file)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


main(f"pathway {pw.__version__}", run)
