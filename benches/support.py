"""What the scripts of the suite share: where things are, building, servers pinned to a core, load, and tables."""

import json
import os
import pathlib
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "millstream"
TARGET = pathlib.Path(os.environ.setdefault("CARGO_TARGET_DIR", str(CACHE / "target")))
# Set in the environment when whoever calls has built already.
BIN = pathlib.Path(os.environ.get("BIN") or TARGET / "release")
SERVER_CORE, CLIENT_CORE = "0", "1"
PATIENCE = 60  # seconds a server may take to start


def build_binaries():
    """Builds `millstream`, `loadgen` and `bare`, unless BIN names a directory that has them."""
    if "BIN" not in os.environ:
        subprocess.run(["cargo", "build", "--release", "--workspace", "--bins"], cwd=ROOT, check=True)


def build_benches(names):
    """Names and paths of bench programs, built together with the binaries: what benches depend on has features that the
    binaries alone do not have, so one command for all compiles DataFusion once instead of twice. With BIN: the newest there."""
    if "BIN" in os.environ:
        programs = {name: [file for file in (BIN / "deps").glob(f"{name}-*") if not file.suffix] for name in names}
        if missing := [name for name, files in programs.items() if not files]:
            raise SystemExit(f"{BIN} has no bench {missing[0]}")
        return {name: str(max(files, key=os.path.getmtime)) for name, files in programs.items()}
    flags = [flag for name in names for flag in ("--bench", name)]
    built = subprocess.run(["cargo", "build", "--release", "--workspace", "--bins", *flags, "--message-format",
                            "json-render-diagnostics"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    made = [json.loads(line) for line in built.splitlines() if line.startswith('{"reason":"compiler-artifact"')]
    return {unit["target"]["name"]: unit["executable"] for unit in made
            if unit["executable"] and unit["target"]["kind"] == ["bench"]}


# Debian packages that are unpacked, not installed: nothing of the machine changes.
DEBIAN = CACHE / "peer-debian"


def unpack(programs, packages):
    """Sees to it that `programs` lie below DEBIAN; why they cannot be had, if so."""
    if all((DEBIAN / program).exists() for program in programs):
        return None
    note(f"  fetching {' '.join(packages)}")
    DEBIAN.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "-qq", *packages], cwd=DEBIAN, check=True, stderr=subprocess.DEVNULL)
        for package in DEBIAN.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, DEBIAN], check=True)
            package.unlink()
    except (OSError, subprocess.SubprocessError) as error:
        return error
    return None


def unpacked_libraries():
    """The environment in which unpacked programs find theirs."""
    return {"LD_LIBRARY_PATH": str(next(DEBIAN.glob("usr/lib/*-linux-gnu")))}


def free_port():
    """A port of 127.0.0.1 that nobody has now."""
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def raise_open_files():
    """As many open files as the system lets us have, for this process and what it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Server:
    """A process on one core, with a directory of its own; both are gone at the end."""

    def __init__(self, command, port, ready="/readyz", core=SERVER_CORE, env=None):
        """`command` is a function of the directory."""
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="millstream-bench-", dir=os.environ.get("BENCH_DIR")))
        self.port, self.ready = port, ready
        self.log = self.dir / "log"
        pin = ["taskset", "-c", core] if core else []
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([*pin, *map(str, command(self.dir))], cwd=self.dir, env=env,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)

    def __enter__(self):
        try:
            self.until(lambda: get(f"http://127.0.0.1:{self.port}{self.ready}") is not None, PATIENCE)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *failure):
        self.process.kill()
        self.process.wait()
        if failure[0]:
            print(self.log.read_text()[-2000:], file=sys.stderr)
        shutil.rmtree(self.dir, ignore_errors=True)

    def until(self, reached, seconds):
        """Waits until something is so; ends the script when it is not in time."""
        deadline = time.monotonic() + seconds
        while not reached():
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended: {self.log.read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise SystemExit(f"not within {seconds} s")
            time.sleep(0.01)

    def pids(self):
        """Of the process and all it has started."""
        found = [self.process.pid]
        for pid in found:
            for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found

    def rss(self):
        """Bytes of memory it has now."""
        return sum(status(pid, "VmRSS") for pid in self.pids())

    def cpu_seconds(self):
        """Seconds of processor time it has used."""
        ticks = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def status(pid, key):
    """A line of /proc/PID/status, in bytes; 0 for a process that has ended."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def get(url):
    """The body, or none while nobody answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.read().decode()
    except (OSError, urllib.error.URLError):
        return None


def millstream(pipelines, port, admin=0):
    """The command that runs pipelines (names and texts) in a directory."""
    def command(directory):
        files = []
        for name, text in pipelines.items():
            files.append(directory / f"{name}.toml")
            files[-1].write_text(text)
        return [BIN / "millstream", "--data-dir", directory / "data", "--listen", f"127.0.0.1:{port}",
                "--admin", f"127.0.0.1:{admin}", "run", *files]
    return command


def advertising(name="advertising", prefix="/advertising", ack="durable"):
    """pipelines/advertising.toml without dedup, under another name and path."""
    text = (ROOT / "pipelines" / "advertising.toml").read_text()
    text = re.sub(r"^dedup = .*$", f'ack = "{ack}"', text, flags=re.M)
    text = text.replace('name = "advertising"', f'name = "{name}"', 1).replace('"/advertising/', f'"{prefix}/')
    return text.replace("${LAKE:-data/lake}", f"data/lake/{name}")


def start_load(base, seconds, connections, batch, pipeline=1, more=("--prebuilt",)):
    """Starts loadgen in a closed loop, with bodies made before, so that it is not what is measured; `load_report` waits for it."""
    report = tempfile.NamedTemporaryFile(suffix=".json", delete=False)
    report.close()
    command = ["taskset", "-c", CLIENT_CORE, BIN / "loadgen", "--closed-loop", *more, "--threads", "1", "--connections", connections,
               "--batch", batch, "--pipeline", pipeline, "--base-url", base, "--duration", f"{seconds}s", "--json", report.name]
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    return process, pathlib.Path(report.name)


def load_report(started):
    """What loadgen found. A refused row ends it with code 1; the report says as much."""
    process, path = started
    _, said = process.communicate()
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise SystemExit(f"loadgen: {said[-2000:]}") from None
    finally:
        path.unlink()


def spread(values, form="{:.2f}"):
    """Median, lowest and highest: `1.23 (1.10–1.31)`."""
    if len(values) == 1:
        return form.format(values[0])
    low, high = form.format(min(values)), form.format(max(values))
    return f"{form.format(statistics.median(values))} ({low}–{high})"


def table(head, rows):
    """Prints a Markdown table."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)


def machine():
    """What it ran on, as a Markdown table."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / (1 << 20)
    disk = subprocess.run(["findmnt", "-no", "SOURCE,FSTYPE", "-T", os.environ.get("BENCH_DIR", tempfile.gettempdir())],
                          capture_output=True, text=True).stdout.strip()
    facts = {
        "processor": f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "disk": f"{' '.join(disk.split())}, {sync_micros():,.0f} µs for 4 KiB and fdatasync (median of 100)",
        "load at the start": f"{os.getloadavg()[0]:.2f} processes",
        "rustc": subprocess.run(["rustc", "--version"], cwd=ROOT, capture_output=True, text=True).stdout.strip(),
    }
    return "| machine | |\n|---|---|\n" + "".join(f"| {name} | {fact} |\n" for name, fact in facts.items())


def sync_micros():
    took = []
    with tempfile.TemporaryFile(dir=os.environ.get("BENCH_DIR")) as file:
        for _ in range(100):
            started = time.perf_counter()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - started) * 1e6)
    return statistics.median(took)


def criterion_as_table(printed):
    """What criterion prints as a table of the throughputs, if that is what it is: ours beside the others of its group."""
    found = re.findall(r"^(\S+)/(\S+)\s+time:.*\n\s+thrpt:\s+\[[\d.]+ \S+ ([\d.]+) (\S+) ", printed, re.M)
    scale = {"KiB/s": 1 / 1024, "MiB/s": 1, "GiB/s": 1024}
    groups = {}
    for group, function, number, unit in found:
        if unit in scale:
            groups.setdefault(group, {})[function] = float(number) * scale[unit]
    if not groups:
        return printed
    others = sorted({name for group in groups.values() for name in group} - {"millstream"})
    lines = ["| " + " | ".join(["bench", "Millstream MiB/s", *(f"{name} MiB/s | ratio to {name}" for name in others)]) + " |",
             "|" + "---|" * (2 + 2 * len(others))]
    for group, rates in groups.items():
        ours = rates.get("millstream", float("nan"))
        pairs = (f"{rates[o]:,.0f} | {ours / rates[o]:.2f}" if o in rates else "– | –" for o in others)
        lines.append("| " + " | ".join([group, f"{ours:,.0f}", *pairs]) + " |")
    return "\n".join(lines)


def note(text):
    """Tells whoever waits; not part of the results."""
    print(text, file=sys.stderr, flush=True)
