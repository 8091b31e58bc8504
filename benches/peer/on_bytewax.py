"""bytewax: one worker in the process, lines decoded by orjson a batch at a time, EventClock 5 s behind, windows of its own
(count_window, join_window), results collected. A dataflow of Python functions: that is what bytewax is."""

import datetime
import importlib.metadata

import bytewax.operators as op
import bytewax.operators.windowing as w
import orjson
from bytewax.connectors.files import FileSource
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main
from common import OUT_OF_ORDER, main, write_rows

UTC = datetime.timezone.utc
MINUTE = datetime.timedelta(minutes=1)
START = datetime.datetime(2026, 1, 1, tzinfo=UTC)
TUMBLING = w.TumblingWindower(length=MINUTE, align_to=START)
HOPPING = w.SlidingWindower(length=60 * MINUTE, offset=MINUTE, align_to=START)


def clock():
    return w.EventClock(lambda row: row[1], wait_for_system_duration=datetime.timedelta(seconds=OUT_OF_ORDER))


def keyed(flow, directory, source, key):
    """Key and time of every row."""

    def decode(lines):
        for line in lines:
            row = orjson.loads(line)
            yield (row[key] if key else "all", datetime.datetime.fromisoformat(row["occurred_at"]).replace(tzinfo=UTC))

    lines = op.input(source, flow, FileSource(directory / f"{source}.jsonl"))
    return op.flat_map_batch(f"decode_{source}", lines, decode)


def counts(flow, directory, source, key, windower):
    rows = keyed(flow, directory, source, key)
    return w.count_window(f"count_{source}", rows, clock(), windower, key=lambda row: row[0])


def at(window, windower):
    start = START + window * (windower.offset if windower is HOPPING else windower.length)
    return start.strftime("%Y-%m-%d %H:%M:%S")


def run(query, directory, file):
    flow, found = Dataflow(query), []
    key = {"ad": "ad_id", "hop": "country"}.get(query)
    windower = HOPPING if query == "hop" else TUMBLING
    down = counts(flow, directory, "impressions", key, windower).down
    if query == "clickthrough":
        clicks = counts(flow, directory, "clicks", None, TUMBLING).down
        # By window: both have one count for each.
        sides = [op.map(f"by_window_{n}", side, lambda row: (str(row[1][0]), row[1][1])) for n, side in enumerate((down, clicks))]
        down = op.join("join", *sides)
    op.output("out", down, TestingSink(found))
    run_main(flow)
    if query == "clickthrough":
        rows = ({"at": at(int(window), TUMBLING), "impressions": i, "clicks": c, "clickthrough": c / i}
                for window, (i, c) in found)
    else:
        rows = ({"at": at(window, windower), **({key: name} if key else {}), "n": n} for name, (window, n) in found)
    write_rows(file, rows)


main(f"bytewax {importlib.metadata.version('bytewax')}", run)
