"""Runs each query in Flink SQL and in Millstream over the same files, compares the results and prints a table.

Flink's time is the net run time of the second run of the job in one JVM: neither its start nor most of the
compiler's warm-up counts. Millstream's is the wall time of a whole `millstream preview`, start and planning
included. Both read JSON lines, and both write their results as JSON.

Called by benches/flink, which pins it, and so everything it starts, to one core.
"""

import datetime
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

START = datetime.datetime(2026, 11, 23, 12)
MINUTES = 120
ADS = 1_000
OUT_OF_ORDER = 5  # seconds

# A query: its name, the files it reads, the types of its results for Flink, the query for Flink, and window and
# query for Millstream. `at` is the start of the window in both.
TUMBLE = "TUMBLE(TABLE {}, DESCRIPTOR(occurred_at), INTERVAL '1' MINUTE)"
HOP = "HOP(TABLE {}, DESCRIPTOR(occurred_at), INTERVAL '1' MINUTE, INTERVAL '60' MINUTE)"
COUNT = "SELECT window_start, window_end, count(*) AS n FROM TABLE(" + TUMBLE + ") GROUP BY window_start, window_end"
QUERIES = [
    (
        "count per minute",
        ["impressions"],
        "n BIGINT",
        f"SELECT window_start, n FROM ({COUNT.format('impressions')})",
        'type = "tumbling"\nsize = "1m"',
        "SELECT window_start() AS at, count(*) AS n FROM impressions_window",
    ),
    (
        "clickthrough per minute",
        ["impressions", "clicks"],
        "impressions BIGINT, clicks BIGINT, clickthrough DOUBLE",
        f"SELECT i.window_start, i.n, c.n, c.n / CAST(i.n AS DOUBLE) FROM ({COUNT.format('impressions')}) i "
        f"JOIN ({COUNT.format('clicks')}) c ON i.window_start = c.window_start AND i.window_end = c.window_end",
        'type = "tumbling"\nsize = "1m"',
        "SELECT window_start() AS at, i.n AS impressions, c.n AS clicks, c.n / CAST(i.n AS DOUBLE) AS clickthrough "
        "FROM (SELECT count(*) AS n FROM impressions_window) i CROSS JOIN (SELECT count(*) AS n FROM clicks_window) c",
    ),
    (
        "count per minute and ad, 1,000 ads",
        ["impressions"],
        "ad_id STRING, n BIGINT",
        f"SELECT window_start, ad_id, count(*) FROM TABLE({TUMBLE.format('impressions')}) "
        "GROUP BY window_start, window_end, ad_id",
        'type = "tumbling"\nsize = "1m"',
        "SELECT window_start() AS at, ad_id, count(*) AS n FROM impressions_window GROUP BY ad_id",
    ),
    (
        "count per country, 60 minutes every minute",
        ["impressions"],
        "country STRING, n BIGINT",
        f"SELECT window_start, country, count(*) FROM TABLE({HOP.format('impressions')}) "
        "GROUP BY window_start, window_end, country",
        'type = "hopping"\nsize = "60m"\nslide = "1m"',
        "SELECT window_start() AS at, country, count(*) AS n FROM impressions_window GROUP BY country",
    ),
]
COLUMNS = {
    "impressions": ["impression_id", "ad_id", "country"],
    "clicks": ["click_id", "impression_id", "ad_id"],
}


def write_rows(directory, rows):
    """Impressions in order of event time, evenly over MINUTES, and a click on every third."""
    step = datetime.timedelta(minutes=MINUTES) / rows
    with open(directory / "impressions.jsonl", "w") as impressions, open(directory / "clicks.jsonl", "w") as clicks:
        for row in range(rows):
            at = (START + row * step).isoformat(" ", "milliseconds")
            # Ads and countries are visited in a scattered order, as in life.
            ad = row * 2_654_435_761 % ADS
            country = chr(65 + ad % 16) * 2
            ids = f'"impression_id":"00000000-0000-4000-8000-{row:012x}","ad_id":"aaaaaaaa-0000-4000-8000-{ad:012x}"'
            impressions.write(f'{{{ids},"country":"{country}","occurred_at":"{at}"}}\n')
            if row % 3 == 0:
                clicks.write(f'{{"click_id":"cccccccc-0000-4000-8000-{row:012x}",{ids},"occurred_at":"{at}"}}\n')
    return {"impressions": rows, "clicks": (rows + 2) // 3}


class Flink:
    name = "Flink SQL"

    def __init__(self, directory):
        from pyflink.table import EnvironmentSettings, TableEnvironment

        self.directory = directory
        self.runs = 0
        self.tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
        for key, value in {
            "parallelism.default": "1",
            "pipeline.object-reuse": "true",
            "table.local-time-zone": "UTC",
        }.items():
            self.tables.get_config().set(key, value)
        for source, columns in COLUMNS.items():
            declared = ", ".join(f"{column} STRING" for column in columns)
            self.tables.execute_sql(
                f"CREATE TABLE {source} ({declared}, occurred_at TIMESTAMP(3), WATERMARK FOR occurred_at AS "
                f"occurred_at - INTERVAL '{OUT_OF_ORDER}' SECOND) WITH ('connector' = 'filesystem', "
                f"'path' = 'file://{directory}/{source}.jsonl', 'format' = 'json', "
                "'json.timestamp-format.standard' = 'SQL')"
            )

    def run(self, query):
        """Seconds and results."""
        _, _, types, sql, _, _ = query
        self._once(types, sql)
        return self._once(types, sql)

    def _once(self, types, sql):
        self.runs += 1
        out = self.directory / f"flink-{self.runs}"
        self.tables.execute_sql(
            f"CREATE TABLE results_{self.runs} (`at` TIMESTAMP(3), {types}) WITH ('connector' = 'filesystem', "
            f"'path' = 'file://{out}', 'format' = 'json', 'json.timestamp-format.standard' = 'SQL')"
        )
        job = self.tables.execute_sql(f"INSERT INTO results_{self.runs} {sql}").get_job_client()
        seconds = job.get_job_execution_result().result().get_net_runtime() / 1e3
        lines = [line for part in out.iterdir() for line in part.read_text().splitlines()]
        return seconds, results(lines)

    def peak_bytes(self):
        """Of the JVM so far."""
        children = pathlib.Path(f"/proc/{os.getpid()}/task").glob("*/children")
        pids = [pid for listed in children for pid in listed.read_text().split()]
        peaks = [line for pid in pids for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM")]
        return max(int(line.split()[1]) * 1024 for line in peaks)


class Millstream:
    name = "Millstream"

    def __init__(self, directory):
        self.directory = directory
        self.peak = 0

    def run(self, query):
        _, files, _, _, window, sql = query
        pipeline = self.directory / "pipeline.toml"
        pipeline.write_text(toml(files, window, sql))
        inputs = [word for file in files for word in ("--input", f"{file}={self.directory}/{file}.jsonl")]
        command = [os.environ["MILLSTREAM"], "preview", pipeline, *inputs, "--stream", "result", "--format", "json"]
        started = time.perf_counter()
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds = time.perf_counter() - started
        return seconds, results(out.splitlines())

    def peak_bytes(self):
        """Of the largest run so far."""
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def toml(files, window, sql):
    parts = ['name = "bench"']
    for file in files:
        columns = "\n".join(f'{column} = "string not null"' for column in COLUMNS[file])
        parts.append(
            f'[source.{file}]\ntype = "http"\npath = "/{file}"\nevent_time = "occurred_at"\n'
            f'max_out_of_orderness = "{OUT_OF_ORDER}s"\n'
            f'[source.{file}.columns]\n{columns}\noccurred_at = "timestamp not null"\n'
            f'[window.{file}_window]\ninput = "{file}"\n{window}'
        )
    parts.append(f'[sql.result]\nquery = """\n{sql}\n"""\n[sink.out]\ntype = "console"\ninput = "result"')
    return "\n\n".join(parts) + "\n"


def results(lines):
    """Rows as sorted tuples, whatever the order and the spelling of times."""
    rows = []
    for line in lines:
        row = json.loads(line)
        at = row.pop("at").replace("T", " ")[:19]
        others = (round(value, 12) if isinstance(value, float) else value for value in row.values())
        rows.append((at, *others))
    return sorted(rows)


def main():
    rows = int(sys.argv[1])
    differ = False
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        counts = write_rows(directory, rows)
        # Millstream first: the memory of its children is then not mixed with the JVM's.
        runs = [(engine, [engine.run(query) for query in QUERIES], engine.peak_bytes())
                for engine in (make(directory) for make in (Millstream, Flink))]
        (_, ours, our_peak), (_, theirs, their_peak) = runs
        print("| query | Millstream rows/s | Flink SQL rows/s | ratio | results |\n|---|---|---|---|---|")
        for query, (our_seconds, our_rows), (their_seconds, their_rows) in zip(QUERIES, ours, theirs):
            taken = sum(counts[file] for file in query[1])
            same = our_rows == their_rows and len(our_rows) > 0
            differ |= not same
            verdict = f"{len(our_rows):,} rows, equal" if same else "**differ**"
            print(f"| {query[0]} | {taken / our_seconds:,.0f} | {taken / their_seconds:,.0f} "
                  f"| {their_seconds / our_seconds:.1f} | {verdict} |")
        print(f"\nPeak memory over all queries: Millstream {our_peak / 1e6:,.0f} MB, "
              f"the JVM of Flink {their_peak / 1e6:,.0f} MB.")
    sys.exit(differ)


if __name__ == "__main__":
    main()
