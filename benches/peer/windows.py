"""Windowed counts in every engine that can be had, over the same JSON lines, and a table of it. See benches/peers."""

import ast
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import support
from common import COLUMNS, OUT_OF_ORDER
from support import BIN, CACHE, SERVER_CORE, note, spread

HERE = pathlib.Path(__file__).resolve().parent
START = datetime.datetime(2026, 11, 23, 12)
MINUTES = 120
ADS = 1_000
ENGINE_SECONDS = 400

BATCH = ["datafusion==55.0.0", "duckdb==2.0.0", "pyarrow==26.0.1"]


class Engine(NamedTuple):
    """A peer. It gets one of `every` rows, of `every_hop` for hopping windows."""

    packages: list
    venv: str
    warm_ups: int = 0
    every: int = 1
    every_hop: int = 1

    def queries(self, every):
        return [query for query in QUERIES if every == (self.every_hop if query == "hop" else self.every)]


ENGINES = {
    "flink": Engine(["apache-flink==2.3.0"], "flink-venv", warm_ups=1),
    "spark": Engine(["pyspark==4.3.0"], "peer-spark", warm_ups=1),
    "bytewax": Engine(["bytewax==0.21.1", "orjson"], "peer-bytewax", every=20, every_hop=100),
    "pathway": Engine(["pathway==0.33.0"], "peer-pathway", every=10, every_hop=200),
    "datafusion": Engine(BATCH, "peer-batch", warm_ups=1),
    "duckdb": Engine(BATCH, "peer-batch", warm_ups=1),
}
TUMBLING = 'type = "tumbling"\nsize = "1m"'
HOPPING = 'type = "hopping"\nsize = "60m"\nslide = "1m"'
# A query: what it is, the files it reads, and the window and the query of Millstream's pipeline.
QUERIES = {
    "minute": (
        "count per minute",
        ["impressions"],
        TUMBLING,
        "SELECT window_start() AS at, count(*) AS n FROM impressions_window",
    ),
    "clickthrough": (
        "clickthrough per minute",
        ["impressions", "clicks"],
        TUMBLING,
        "SELECT window_start() AS at, i.n AS impressions, c.n AS clicks, c.n / CAST(i.n AS DOUBLE) AS clickthrough "
        "FROM (SELECT count(*) AS n FROM impressions_window) i CROSS JOIN (SELECT count(*) AS n FROM clicks_window) c",
    ),
    "ad": (
        "count per minute and ad, 1,000 ads",
        ["impressions"],
        TUMBLING,
        "SELECT window_start() AS at, ad_id, count(*) AS n FROM impressions_window GROUP BY ad_id",
    ),
    "hop": (
        "count per country, 60 minutes every minute",
        ["impressions"],
        HOPPING,
        "SELECT window_start() AS at, country, count(*) AS n FROM impressions_window GROUP BY country",
    ),
}


def measure(rows, runs, names):
    """Prints the table; whether any results differ."""
    names = [name for name in names if installed(name)]
    with tempfile.TemporaryDirectory(prefix="millstream-peers-", dir=os.environ.get("BENCH_DIR")) as directory:
        directory = pathlib.Path(directory)
        note("  writing rows")
        shares = {1, *(every for name in names for every in (ENGINES[name].every, ENGINES[name].every_hop))}
        inputs = {every: Input(directory / f"every-{every}", rows // every) for every in shares}
        note("  millstream")
        ours = {every: millstream(given, runs if every == 1 else 1) for every, given in inputs.items()}
        found = {name: engine(name, inputs, runs) for name in names}
        return show(inputs, ours, {name: of for name, of in found.items() if of})


class Input:
    """Impressions in order of event time, evenly over MINUTES, and a click on every third."""

    def __init__(self, directory, rows):
        directory.mkdir()
        self.directory = directory
        self.counts = {"impressions": rows, "clicks": (rows + 2) // 3}
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

    def rows(self, query):
        return sum(self.counts[file] for file in QUERIES[query][1])


# The engines.


class Found:
    """What an engine did: seconds and results of each query, its version and the most memory it had."""

    def __init__(self, version=""):
        self.version, self.seconds, self.results, self.peak = version, {}, {}, 0


def millstream(given, runs):
    """`millstream preview`, a process for every run."""
    found = Found("Millstream")
    for query, (_, files, window, sql) in QUERIES.items():
        pipeline = given.directory / f"{query}.toml"
        pipeline.write_text(toml(files, window, sql))
        inputs = [word for file in files for word in ("--input", f"{file}={given.directory}/{file}.jsonl")]
        command = [BIN / "millstream", "preview", pipeline, *inputs, "--stream", "result", "--format", "json"]
        found.seconds[query] = []
        for _ in range(runs):
            started = time.perf_counter()
            printed = watched(command, found)
            found.seconds[query].append(time.perf_counter() - started)
        found.results[query] = results(printed)
    return found


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


def engine(name, inputs, runs):
    """An engine's program in its venv, once for each input it gets; none if it fails."""
    found, of = Found(), ENGINES[name]
    note(f"  {name}")
    for every, given in inputs.items():
        if not (queries := of.queries(every)):
            continue
        out = given.directory / f"out-{name}"
        out.mkdir()
        python = CACHE / of.venv / "bin" / "python"
        try:
            printed = watched([python, HERE / f"on_{name}.py", given.directory, out, of.warm_ups, runs, *queries], found)
        except subprocess.SubprocessError as error:
            print(f"{name} is left out: {error}\n", flush=True)
            return None
        for line in printed.splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            found.version = said.get("version", found.version)
            if "query" in said:
                found.seconds[said["query"]] = said["seconds"]
                found.results[said["query"]] = results((out / f"{said['query']}.jsonl").read_text())
        shutil.rmtree(out)
    return found


def watched(command, found):
    """What a command printed that ran on one core; notes the most memory it and its children had."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(["taskset", "-c", SERVER_CORE, *map(str, command)], stdout=subprocess.PIPE, stderr=errors,
                                   text=True)
        watcher = threading.Thread(target=watch, args=(process, found))
        watcher.start()
        try:
            printed, _ = process.communicate(timeout=ENGINE_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(process.pid)):
                os.kill(pid, 9)
            process.communicate()
            raise
        finally:
            watcher.join()
        if process.returncode:
            errors.seek(0)
            note(errors.read()[-2000:])
            raise subprocess.CalledProcessError(process.returncode, pathlib.Path(command[1]).name)
        return printed


def watch(process, found):
    while process.poll() is None:
        try:
            found.peak = max(found.peak, sum(support.status(pid, "VmRSS") for pid in tree(process.pid)))
        except OSError:
            pass  # One of them has just ended.
        time.sleep(0.05)


def tree(pid):
    """A process and all that it has started."""
    found = [pid]
    for one in found:
        for children in pathlib.Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def installed(name):
    """Whether an engine is there; installs it if not."""
    packages, venv = ENGINES[name].packages, CACHE / ENGINES[name].venv
    stamp = venv / "packages"
    wanted = "\n".join(packages)
    if stamp.exists() and stamp.read_text() == wanted:
        return True
    note(f"  installing {' '.join(packages)}")
    pip = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    for command in ([sys.executable, "-m", "venv", venv], pip):
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            print(f"{name} is left out: {' '.join(packages)} cannot be installed.\n", flush=True)
            return False
    stamp.write_text(wanted)
    return True


# The tables.


def results(text):
    """Rows as sorted tuples, whatever the order and the spelling of times; pathway adds columns of its own."""
    rows = []
    for line in text.splitlines():
        row = json.loads(line)
        at = row.pop("at").replace("T", " ")[:19]
        others = {name: value for name, value in row.items() if name not in ("diff", "time")}
        rows.append((at, *(round(value, 9) if isinstance(value, float) else value for value in others.values())))
    return sorted(rows)


def show(inputs, ours, found):
    """Prints a line for each query and engine, and what each engine is; whether results differ."""
    differ = False
    print(f"Windowed counts over {inputs[1].counts['impressions']:,} JSON lines on one core.\n")
    lines = []
    for query, (title, *_) in QUERIES.items():
        rates = {"Millstream": [inputs[1].rows(query) / s for s in ours[1].seconds[query]]}
        lines.append([title, "Millstream", f"{inputs[1].rows(query):,}", rate(rates["Millstream"]), "1.00",
                      f"{len(ours[1].results[query]):,} rows"])
        for name, of in found.items():
            if query not in of.seconds:
                continue
            every = ENGINES[name].every_hop if query == "hop" else ENGINES[name].every
            theirs = [inputs[every].rows(query) / s for s in of.seconds[query]]
            ratios = [mine / their for mine, their in zip(rates["Millstream"], theirs)]
            same = len(of.results[query]) > 0 and of.results[query] == ours[every].results[query]
            differ |= not same
            lines.append([title, of.version, f"{inputs[every].rows(query):,}", rate(theirs), spread(ratios, "{:.1f}"),
                          "equal" if same else "**differ**"])
    support.table(["query", "engine", "rows", "rows/s", "Millstream / it", "results"], lines)
    about = [["Millstream", f"{ours[1].peak / 1e6:,.0f}", "A whole `millstream preview`, start and planning included."]]
    for name, of in found.items():
        text = ast.get_docstring(ast.parse((HERE / f"on_{name}.py").read_text()))
        about.append([of.version, f"{of.peak / 1e6:,.0f}", " ".join(text.split())])
    support.table(["engine", "MB at most, over all queries", "how"], about)
    return differ


def rate(values):
    return spread([value / 1e6 for value in values], "{:.2f}").replace(" (", " M (", 1) + ("" if len(values) > 1 else " M")
