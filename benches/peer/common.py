"""What the programs of all engines share: the input, the names of the queries, and how each is called by benches/peers.

    on_ENGINE.py DIRECTORY OUT WARM_UPS RUNS QUERY …

DIRECTORY has `impressions.jsonl` and `clicks.jsonl`. A query's results are written to OUT/QUERY.jsonl, a JSON object for each,
`at` the start of its window. Prints a line of JSON with the version, and one for each query with the seconds of its runs.
"""

import json
import pathlib
import sys
import time

OUT_OF_ORDER = 5  # seconds a row may be behind the newest one
COLUMNS = {
    "impressions": ["impression_id", "ad_id", "country"],
    "clicks": ["click_id", "impression_id", "ad_id"],
}


def main(version, run):
    """`run` gets a query's name, the directory and the file for its results; it may say how many seconds count."""
    directory, out, warm_ups, runs, *queries = sys.argv[1:]
    print(json.dumps({"version": version}), flush=True)
    for query in queries:
        seconds = [timed(run, query, pathlib.Path(directory), pathlib.Path(out)) for _ in range(int(warm_ups) + int(runs))]
        print(json.dumps({"query": query, "seconds": seconds[int(warm_ups):]}), flush=True)


def timed(run, query, directory, out):
    file = out / f"{query}.jsonl"
    file.unlink(missing_ok=True)
    started = time.perf_counter()
    said = run(query, directory, file)
    return said if said is not None else time.perf_counter() - started


def write_rows(file, rows):
    """Rows as dicts; `at` may be a datetime."""
    with open(file, "w") as to:
        for row in rows:
            to.write(json.dumps(row, default=str) + "\n")
