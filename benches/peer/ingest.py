"""Rows over HTTP to disk beside those who just write them down, and a table of it. See benches/peers."""

import pathlib
import socket
import subprocess
import tempfile
import time

import support
from support import BIN, SERVER_CORE, Server, free_port, load_report, note, spread, start_load

# Rows in a request, connections.
SHAPES = [(500, 16), (1, 256)]
PACKAGES = ["nginx", "rsyslog", "libestr0", "libfastjson4"]
LINES_PER_WRITE = 500
SYSLOG_BUFFER = 1 << 18

# One worker. A body is only there for the log where a request is passed on, so each is, without its body, to a server in
# the same worker that answers what Millstream would, from a file that stays open. The body is logged as it is, with a
# write(2) for each request; nothing is synced.
NGINX = """
daemon off; master_process off; worker_rlimit_nofile 20000; pid {dir}/pid; error_log {dir}/errors;
events {{ worker_connections 8000; }}
http {{
  client_body_buffer_size 4m; client_max_body_size 4m; client_body_in_single_buffer on; keepalive_requests 1000000000;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4;
  scgi_temp_path {dir}/t5;
  log_format body escape=none '$request_body'; access_log off; open_file_cache max=10; tcp_nodelay on;
  map $content_length $rows {{ default 500; "~^.{{1,3}}$" 1; }}
  upstream answer {{ server unix:{dir}/socket; keepalive 300; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location = /readyz {{ return 200; }}
    location / {{ access_log {dir}/rows body; proxy_method GET; proxy_pass_request_body off; proxy_pass_request_headers off;
      proxy_set_header Content-Length ""; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffers 8 16k; proxy_pass http://answer/$rows; }}
  }}
  server {{ listen unix:{dir}/socket; root {dir}/answers; location / {{ }} }}
}}
"""

# Lines over TCP, no answer at all, written by the thread that reads them; nothing is synced.
RSYSLOG = """
global(workDirectory="{dir}" maxMessageSize="8k")
module(load="imptcp" threads="1")
template(name="line" type="string" string="%rawmsg%\\n")
ruleset(name="rows" queue.type="direct") {{
  action(type="omfile" file="{dir}/rows" template="line" asyncWriting="off" flushOnTXEnd="off" ioBufferSize="{buffer}" sync="off") }}
input(type="imptcp" port="{port}" address="127.0.0.1" ruleset="rows")
"""


def measure(seconds, rounds):
    """Prints the tables."""
    support.raise_open_files()
    there = unpacked()
    kinds = {"bare hyper": bare, "Millstream, durable": durable} | ({"nginx, body to its log": nginx} if there else {})
    found = {}
    for _ in range(rounds):
        for batch, connections in SHAPES:
            for kind, serve in kinds.items():
                note(f"  {kind}, {batch} rows")
                found.setdefault((batch, connections), {}).setdefault(kind, []).append(
                    serve(batch, connections, seconds))
    print(f"Rows over HTTP to disk: one server core, loadgen on the other, a closed loop, {rounds} rounds of {seconds} s.\n")
    lines = []
    for (batch, connections), of in found.items():
        for kind, reports in of.items():
            rates = [report["requests"] / report["seconds"] for report in reports]
            limit = [report["requests"] / report["seconds"] for report in of["bare hyper"]]
            middle = sorted(reports, key=lambda report: report["rows_per_second"])[len(reports) // 2]
            lines.append([
                f"{batch} {'row' if batch == 1 else 'rows'}, {connections} connections", kind, spread(rates, "{:,.0f}"),
                f"{middle['rows_per_second']:,.0f}", f"{middle['latency']['p99_ms']:.2f}",
                f"{middle['server_busy']:.0%}", f"{(middle['cpu_seconds'] or 0) / middle['seconds']:.0%}",
                spread([rate / most for rate, most in zip(rates, limit)]),
            ])
    support.table(["requests", "server", "requests/s", "rows/s", "p99 ms", "server core busy", "client core busy", "of bare"], lines)
    print("Millstream answers when rows are on disk (fdatasync) and runs the whole pipeline of advertising.toml without dedup: "
          "decode, windows, SQL, Parquet. nginx answers when the kernel has them, decodes nothing and answers from a file: "
          "one worker, the body in its access log as it came; each request is passed on to a server in the same worker, as it "
          "has no body for the log else.\n")
    if there:
        rates = [syslog(seconds) for _ in range(rounds)]
        support.table(["lines over TCP", "rows/s"], [["rsyslog to a file, without answers, not synced", spread(rates, "{:,.0f}")]])
        print("Debian's rsyslog has no HTTP input (imhttp): this is imptcp to omfile, one connection, a direct queue.\n")


def loaded(command, port, batch, connections, seconds, check=None):
    """The report of loadgen, with how busy the server was."""
    with Server(command, port) as server:
        before = server.cpu_seconds()
        report = load_report(start_load(f"http://127.0.0.1:{port}/advertising", seconds, connections, batch))
        report["server_busy"] = (server.cpu_seconds() - before) / report["seconds"]
        if report["rows_acked"] == 0 or report["rows_failed"]:
            raise SystemExit(f"{report['rows_failed']} of {report['rows_sent']} rows failed: {report['reasons']}")
        if check:
            check(server.dir, report)
    return report


def bare(batch, connections, seconds):
    port = free_port()
    return loaded(lambda _: [BIN / "bare", port, 1], port, batch, connections, seconds)


def durable(batch, connections, seconds):
    port = free_port()
    return loaded(support.millstream({"bench": support.advertising()}, port), port, batch, connections, seconds)


def nginx(batch, connections, seconds):
    port = free_port()

    def command(directory):
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(dir=directory, port=port))
        (directory / "answers").mkdir()
        for rows in (1, 500):
            records = ",".join(['{"failed":false}'] * rows)
            (directory / "answers" / str(rows)).write_text(f'{{"failed_count":0,"records":[{records}]}}')
        return [support.DEBIAN / "usr/sbin/nginx", "-p", directory, "-c", config, "-e", directory / "errors"]

    def check(directory, report):
        written = (directory / "rows").stat().st_size
        if written < report["body_bytes"]:
            raise SystemExit(f"nginx has written {written} of {report['body_bytes']} bytes")

    return loaded(command, port, batch, connections, seconds, check)


def syslog(seconds):
    """Rows/s from the first byte sent until the file has all of them."""
    port = free_port()
    row = '{"impression_id":"00000000-0000-4000-8000-%012x","ad_id":"aaaaaaaa-0000-4000-8000-%012x",' \
          '"occurred_at":"2026-11-23 12:00:00.000"}\n'
    block = "".join(row % (n, n % 1_000) for n in range(LINES_PER_WRITE)).encode()
    with tempfile.TemporaryDirectory(prefix="millstream-bench-") as directory:
        directory = pathlib.Path(directory)
        config = directory / "rsyslog.conf"
        config.write_text(RSYSLOG.format(dir=directory, port=port, buffer=SYSLOG_BUFFER))
        command = [support.DEBIAN / "usr/sbin/rsyslogd", "-n", "-f", config, "-i", directory / "pid", "-M", modules()]
        process = subprocess.Popen(["taskset", "-c", SERVER_CORE, *map(str, command)], env=support.unpacked_libraries(),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            connection = connected(port)
            rows, started = 0, time.monotonic()
            while time.monotonic() < started + seconds:
                connection.sendall(block)
                rows += LINES_PER_WRITE
            connection.close()
            # It has read all but its buffer, which it writes when it ends.
            until(lambda: (directory / "rows").stat().st_size >= rows * len(block) / LINES_PER_WRITE - SYSLOG_BUFFER)
            process.terminate()
            process.wait(60)
            took = time.monotonic() - started
            written = (directory / "rows").read_bytes().count(b"\n")
            if written != rows:
                raise SystemExit(f"rsyslog has written {written} of {rows} lines")
            return written / took
        finally:
            process.kill()
            process.wait()


def connected(port):
    """A connection, as soon as somebody listens."""
    made = []

    def attempt():
        try:
            made.append(socket.create_connection(("127.0.0.1", port)))
        except OSError:
            pass
        return made

    until(attempt)
    return made[0]


def until(reached):
    deadline = time.monotonic() + support.PATIENCE
    while not reached():
        if time.monotonic() > deadline:
            raise SystemExit(f"rsyslog: not within {support.PATIENCE} s")
        time.sleep(0.02)


def unpacked():
    """Whether the Debian packages are there; fetches and unpacks them if not."""
    if error := support.unpack(["usr/sbin/nginx", "usr/sbin/rsyslogd"], PACKAGES):
        print(f"nginx and rsyslog are left out: {error}\n", flush=True)
    return not error


def modules():
    return next(support.DEBIAN.glob("usr/lib/*-linux-gnu/rsyslog"))
