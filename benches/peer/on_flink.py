"""Flink SQL, streaming mode: `filesystem` connector with `json` format, parallelism 1, objects reused, watermarks 5 s behind,
window table functions. A run's time is what Flink itself says a job took, without submitting it."""

import itertools

from common import COLUMNS, OUT_OF_ORDER, main
from pyflink.table import EnvironmentSettings, TableEnvironment
from pyflink.version import __version__

TUMBLE = "TABLE(TUMBLE(TABLE {}, DESCRIPTOR(occurred_at), INTERVAL '1' MINUTE))"
HOP = "TABLE(HOP(TABLE impressions, DESCRIPTOR(occurred_at), INTERVAL '1' MINUTE, INTERVAL '60' MINUTE))"
COUNT = f"SELECT window_start, window_end, count(*) AS n FROM {TUMBLE} GROUP BY window_start, window_end"
# The types of the results, and the query.
QUERIES = {
    "minute": ("n BIGINT", f"SELECT window_start, n FROM ({COUNT.format('impressions')})"),
    "clickthrough": (
        "impressions BIGINT, clicks BIGINT, clickthrough DOUBLE",
        f"SELECT i.window_start, i.n, c.n, c.n / CAST(i.n AS DOUBLE) FROM ({COUNT.format('impressions')}) i "
        f"JOIN ({COUNT.format('clicks')}) c ON i.window_start = c.window_start AND i.window_end = c.window_end",
    ),
    "ad": (
        "ad_id STRING, n BIGINT",
        f"SELECT window_start, ad_id, count(*) FROM {TUMBLE.format('impressions')} GROUP BY window_start, window_end, ad_id",
    ),
    "hop": (
        "country STRING, n BIGINT",
        f"SELECT window_start, country, count(*) FROM {HOP} GROUP BY window_start, window_end, country",
    ),
}
NUMBERS = itertools.count()


def environment():
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for key, value in {
        "parallelism.default": "1",
        "pipeline.object-reuse": "true",
        "table.local-time-zone": "UTC",
    }.items():
        tables.get_config().set(key, value)
    return tables


TABLES = environment()


def connector(path):
    return (f"WITH ('connector' = 'filesystem', 'path' = 'file://{path}', 'format' = 'json', "
            "'json.timestamp-format.standard' = 'SQL')")


def run(query, directory, file):
    number = next(NUMBERS)
    for source, columns in COLUMNS.items():
        declared = ", ".join(f"{column} STRING" for column in columns)
        TABLES.execute_sql(f"DROP TABLE IF EXISTS {source}")
        TABLES.execute_sql(
            f"CREATE TABLE {source} ({declared}, occurred_at TIMESTAMP(3), WATERMARK FOR occurred_at AS "
            f"occurred_at - INTERVAL '{OUT_OF_ORDER}' SECOND) {connector(directory / f'{source}.jsonl')}"
        )
    types, sql = QUERIES[query]
    out = file.parent / f"flink-{number}"
    TABLES.execute_sql(f"CREATE TABLE results_{number} (`at` TIMESTAMP(3), {types}) {connector(out)}")
    job = TABLES.execute_sql(f"INSERT INTO results_{number} {sql}").get_job_client()
    seconds = job.get_job_execution_result().result().get_net_runtime() / 1e3
    file.write_text("".join(part.read_text() for part in out.iterdir()))
    return seconds


main(f"Flink SQL {__version__}", run)
