#!/usr/bin/env python3
"""The console's pages about loads in a real browser, against a running `millstream run`.

    python server/tests/console_loads.py http://127.0.0.1:9090 catalog.db TOKEN [--screenshots DIR]

Signs in, registers clusters, posts schemas, makes a load by keyboard alone, watches loads change without a reload, asks
everything of them, and reads a failed date. Every page it sees is checked by accessibility.py, in light, in dark, and 400
pixels wide. The catalog is the one given to `--catalog`: what another process would do to a run is written there.
"""

import argparse
import datetime
import json
import sqlite3
import sys
import tempfile
import time
import urllib.request

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import accessibility
from browser import expect, start, until

WAIT = 60
SAMPLE = '{"name": "Fred", "height": 72}\n{"name": "Wilma", "height": 64}\n'
WRONG = "version: 1\ntables:\n  people:\n    src: \"\"\n    src_type: dict\n    columns:\n    - {log_key: height, sql_attr: int3}\n"
FAILURE = "sink people: the cluster refused the rows\n  value too long for type character varying(7)\n  → widen the column, then retry the date"


class Console:
    """A browser at the console, and the API beside it."""

    def __init__(self, asked, browser):
        self.admin, self.catalog, self.token = asked.admin.rstrip("/"), asked.catalog, asked.token
        self.screenshots, self.browser = asked.screenshots, browser

    def open(self, path):
        self.browser.get(self.admin + path)

    def api(self, method, path, body=None):
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.admin + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def id(self, name):
        return self.browser.find_element(By.ID, name)

    def css(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script, *args):
        return self.browser.execute_script(script, *args)

    def text(self, selector="main"):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def focused(self):
        return self.run("return document.activeElement.id")

    def fill(self, **fields):
        for name, value in fields.items():
            field = self.id(name)
            field.clear()
            field.send_keys(value)

    def until(self, what, found):
        def look():
            try:
                return found()
            except StaleElementReferenceException:
                return False
        until(WAIT, what, look, lambda: f"at {self.browser.current_url}: {self.text('body')[:3000]}")

    def sees(self, words, selector="main"):
        self.until(f"{words!r} in {selector}", lambda: words in self.text(selector))

    def row(self, words):
        """The text of the load's row; nothing while it is not there."""
        return next((row.text for row in self.css("#loads tbody tr") if words in row.text), "")

    def check(self, name):
        """The page as it is now: accessible in every look, without complaints, on its own."""
        accessibility.check(self.browser, name, self.screenshots)
        origins = self.run("return [...new Set(performance.getEntriesByType('resource').map((e) => new URL(e.name).origin))]")
        expect(all(origin == self.admin for origin in origins), f"{name} asks {origins}")
        complaints = [entry["message"] for entry in self.browser.get_log("browser")]
        # What the API refuses, the browser notes; the pages show it.
        refused = ("status of 401", "status of 404", "status of 409", "status of 422")
        complaints = [message for message in complaints if not any(status in message for status in refused)]
        expect(not complaints, f"the browser complains at {name}: {complaints}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("admin")
    parser.add_argument("catalog")
    parser.add_argument("token")
    parser.add_argument("--screenshots", help="a folder for pictures of every page")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile:
        browser = start(profile)
        try:
            console = Console(asked, browser)
            signs_in(console)
            clusters(console)
            schemas(console)
            uuid = makes_a_load(console)
            watches(console, uuid)
            asks(console, uuid)
            details(console)
        finally:
            browser.quit()
    print("the pages about loads work")


def signs_in(console):
    console.open("/loads")
    console.until("the question for the token", lambda: console.id("login").is_displayed())
    expect(console.focused() == "token", f"the focus is at {console.focused()!r}")
    console.check("login")
    console.id("token").send_keys("wrong" + Keys.ENTER)
    console.sees("not the token", "#login")
    console.id("token").send_keys(console.token + Keys.ENTER)
    console.sees("No loads yet")
    console.sees("live", "#state")
    console.check("no-loads")


def clusters(console):
    console.open("/clusters")
    console.sees("No clusters yet")
    console.id("add").click()
    expect(console.focused() == "c-redshift-id", f"the focus is at {console.focused()!r}")
    console.fill(**{"c-redshift-id": "small--one", "c-port": "80"})
    console.id("edit-save").click()
    for name, words in [("redshift-id", "single - between"), ("host", "missing"), ("port", "from 1000"), ("staging", "missing")]:
        console.sees(words, f"#c-{name}-error")
    expect(console.focused() == "c-redshift-id", "the focus is not at the first field that is wrong")
    console.check("cluster-problems")
    console.id("c-dialect").send_keys("PostgreSQL")
    console.fill(**{"c-redshift-id": "small-one", "c-host": "127.0.0.1", "c-port": "5432", "c-database": "logs", "c-user": "loader"})
    console.id("c-user").send_keys(Keys.ENTER)
    console.sees("small-one is registered")
    console.sees("127.0.0.1:5432/logs", "#clusters")
    console.css("[aria-label='Edit small-one']")[0].click()
    console.fill(**{"c-namespace": "raw"})
    console.id("edit-save").click()
    console.sees("schema raw", "#clusters")
    console.api("POST", "/v1/clusters", dict(redshift_id="other", dialect="postgres", host="127.0.0.1", database="d", user="u"))
    console.open("/clusters")
    console.sees("other", "#clusters")
    console.css("[aria-label='Delete other']")[0].click()
    console.id("confirm-yes").click()
    console.sees("other is forgotten")
    console.until("its row to go", lambda: "other" not in console.text("#clusters"))
    console.check("clusters")


def schemas(console):
    console.open("/schemas/new")
    console.fill(**{"y-log": "people", "y-yaml": WRONG})
    expect(console.id("y-version").get_property("value") == "1", "no version is proposed")
    console.css("#schema .primary")[0].click()
    console.sees("1 problem", "#problems-title")
    expect(console.text("#problem-list").startswith("7:"), f"not at line 7: {console.text('#problem-list')!r}")
    console.check("schema-problems")
    console.css("#problem-list button")[0].click()
    at = console.run("const e = document.activeElement; return e.id + ':' + e.value.slice(0, e.selectionStart).split('\\n').length")
    expect(at == "y-yaml:7", f"the problem leads to {at}")
    console.css("#sampling summary")[0].click()
    console.fill(**{"s-lines": SAMPLE, "s-table": "people"})
    console.css("#sample .primary")[0].click()
    console.sees("No problems: ", "#problems-title")
    expect("varchar(" in console.id("y-yaml").get_property("value"), "the schema is not made of the sample")
    console.sees("height", "#tables")
    console.check("schema-inferred")
    console.css("#schema .primary")[0].click()
    console.sees("people version 1", "h1")
    console.sees("height", "#tables")
    console.sees("CREATE TABLE", "#ddl")
    console.check("schema")
    console.open("/schemas")
    console.sees("people", "#schemas")
    console.check("schemas")


def makes_a_load(console):
    """By keyboard alone, from the list."""
    console.open("/loads")
    console.sees("No loads yet")

    def press(*what):
        ActionChains(console.browser).send_keys(*what).perform()

    def go(name):
        for _ in range(80):
            if console.focused() == name or console.run("return document.activeElement.getAttribute('href')") == name:
                return
            press(Keys.TAB)
        expect(False, f"the keyboard does not reach {name}")

    press(Keys.TAB)
    expect(console.run("return document.activeElement.className") == "skip", "the first stop does not skip the navigation")
    go("/loads/new")
    press(Keys.ENTER)
    console.until("the form", lambda: console.css("#n-log-name option[value=people]"))
    go("n-s3-path")
    press("logs/people")
    go("n-start-date")
    press("11022026")
    go("n-end-date")
    press("11012026")
    go("n-contact-emails")
    press("ops@example.com, nobody")
    press(Keys.ENTER)
    for name, words in [("s3-path", "s3://bucket"), ("end-date", "before start_date"), ("contact-emails", "nobody")]:
        console.sees(words, f"#n-{name}-error")
    expect(console.focused() == "n-s3-path", f"the focus is at {console.focused()!r}, not at what is wrong")
    console.check("new-load-problems")
    press(*[Keys.BACKSPACE] * 20, "s3://logs/people/")
    go("n-start-date")
    press("01012999")
    go("n-end-date")
    press(Keys.DELETE, Keys.TAB, Keys.DELETE, Keys.TAB, Keys.DELETE)
    go("n-contact-emails")
    press(*[Keys.BACKSPACE] * 40, "ops@example.com")
    go("n-max-errors")
    press("100")
    go("n-on-paused")
    press(Keys.SPACE, Keys.ENTER)
    console.sees("people version 1", "h1")
    uuid = console.browser.current_url.rsplit("/", 1)[1]
    job = console.api("GET", f"/v1/jobs/job/{uuid}")
    expect(job["start_date"] == "2999-01-01" and job["end_date"] is None and job["s3_path"] == "s3://logs/people", f"made {job}")
    expect(job["additional_arguments"]["max_errors"] == 100 and "paused" not in job["additional_arguments"]["notify"], f"made {job}")
    console.sees("No date has been due yet")
    console.check("load-fresh")
    return uuid


def load(start, **more):
    # No two loads have a table and a date in common.
    more = {"end_date": start, **more}
    fields = dict(log_name="people", log_schema_version="1", s3_path="s3://logs/people", redshift_id="small-one", start_date=start)
    return {**fields, **more}


def watches(console, uuid):
    """Changes come without a reload, and leave alone what people do."""
    console.open("/loads")
    console.until("the load", lambda: console.row("people version 1"))
    console.run("window.here = true")
    search = console.id("f-text")
    search.send_keys("peop")
    console.api("POST", "/v1/jobs", load("2998-02-01"))
    console.until("the second load", lambda: len(console.css("#loads tbody tr")) == 2)
    expect(console.focused() == "f-text" and search.get_property("value") == "peop", "the update took what was typed")
    search.send_keys("le no such thing")
    console.sees("No load fits")
    console.css("#filters [type=reset]")[0].click()
    console.until("all loads", lambda: len(console.css("#loads tbody tr")) == 2)
    console.id("f-status").send_keys("paused")
    console.sees("0 of 2 loads", "#found")
    expect(console.browser.current_url.endswith("/loads?status=paused"), "the filter is not in the address")
    console.api("PUT", "/v1/jobs/job", {"uuid": uuid, "pause_requested": True})
    console.sees("people version 1: ", "#announce")
    console.css("#filters [type=reset]")[0].click()
    console.until("paused", lambda: "paused" in console.row("2999-01-01"))
    expect(console.run("return window.here") is True, "the page was loaded again")
    console.api("PUT", "/v1/jobs/job", {"uuid": uuid, "pause_requested": False})
    console.until("resumed", lambda: console.row("2999-01-01") and "paused" not in console.row("2999-01-01"))
    console.check("loads")
    loses_the_stream(console)


def loses_the_stream(console):
    """Without events it polls; without an answer it says so, and goes on by itself."""
    network = lambda command, **of: console.browser.execute_cdp_cmd(f"Network.{command}", of)
    conditions = lambda offline: network("emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    network("enable")
    network("setBlockedURLs", urls=["*/v1/events"])
    console.open("/loads")
    console.sees("every 3 s", "#state")
    last = console.api("GET", "/v1/jobs")["jobs"][-1]["uuid"]
    console.api("PUT", "/v1/jobs/job", {"uuid": last, "pause_requested": True})
    console.until("paused", lambda: "paused" in console.row("2998-02-01"))
    conditions(True)
    console.sees("No answer from Millstream since", "#banner")
    console.sees("no answer", "#state")
    console.api("PUT", "/v1/jobs/job", {"uuid": last, "pause_requested": False})
    network("setBlockedURLs", urls=[])
    conditions(False)
    console.until("resumed", lambda: console.row("2998-02-01") and "paused" not in console.row("2998-02-01"))
    console.sees("live", "#state")
    console.browser.get_log("browser")  # it has noted every request that was not let through


def asks(console, uuid):
    """Pause, resume, cancel, delete; what is not possible is not offered."""
    def button(action):
        return console.css(f"tr[data-key='{uuid}'] [data-action={action}]")[0]

    def offered():
        return [b.get_attribute("data-action") for b in console.css(f"tr[data-key='{uuid}'] [data-action]") if b.is_displayed()]

    console.until("what can be asked", lambda: offered() == ["pause", "cancel"])
    button("pause").send_keys(Keys.ENTER)
    console.sees("Pause: people version 1, asked for.")
    console.until("Resume", lambda: offered() == ["resume", "cancel"])
    at = console.run("return document.activeElement.dataset.action")
    expect(at == "resume", f"after Pause the focus is at {at}")
    console.until("paused", lambda: "paused" in console.row("2999-01-01"))
    button("resume").click()
    console.until("Pause", lambda: offered() == ["pause", "cancel"])
    button("cancel").send_keys(Keys.ENTER)
    console.until("the question", lambda: console.id("confirm").is_displayed())
    console.check("confirm")
    ActionChains(console.browser).send_keys(Keys.ESCAPE).perform()
    console.until("no question", lambda: not console.id("confirm").is_displayed())
    expect(console.run("return document.activeElement.dataset.action") == "cancel", "Escape does not lead back to the button")
    expect(not console.api("GET", f"/v1/jobs/job/{uuid}")["cancel_requested"], "Escape cancels the load")
    button("cancel").click()
    console.id("confirm-yes").click()
    ends(console, uuid)
    console.until("what can be asked of a cancelled load", lambda: offered() == ["restart", "delete"])
    button("delete").send_keys(Keys.ENTER)
    console.id("confirm-yes").send_keys(Keys.ENTER)
    goes(console, uuid)
    console.until("one load", lambda: len(console.css("#loads tbody tr")) == 1)
    expect(console.run("return document.activeElement !== document.body"), "the focus is lost with the row")


def details(console):
    """A load that stopped at a date, with all of its error; the date is tried again."""
    made = console.api("POST", "/v1/jobs", load("2998-03-01"))
    uuid = made["post_accepted"]["uuid"]
    stops(console, uuid)
    console.open("/loads")
    console.sees("3 loaded · 1 failed", "#loads")
    console.run("document.querySelector(`a[href='/loads/${arguments[0]}']`).click()", uuid)
    console.sees("people version 1", "h1")
    console.sees("Why it stopped")
    for line in FAILURE.split("\n"):
        console.sees(line, "#runs .error-row")
    for words in ["load failed, given up", "loaded", "70"]:
        console.sees(words, "#runs")
    console.check("load")
    console.css("[aria-label='2024-11-04: load failed']")[0].click()
    expect(console.focused() == "date-2024-11-04", f"the calendar leads to {console.focused()!r}")
    console.run("window.here = true")
    for name, day in [("b-from", "11022024"), ("b-to", "11032024")]:
        console.id(name).send_keys(day)
    console.id("dry").click()
    console.sees("It would make 2 dates: 2024-11-02, 2024-11-03. Nothing has been changed.", "#answer")
    console.id("b-to").send_keys("11012024")
    console.id("dry").click()
    console.sees("lies after", "#backfill")
    console.css("[aria-label='Retry 2024-11-04']")[0].click()
    console.sees("2024-11-04 is tried again.")
    # What comes next may fail in its own way.
    console.until("the date to be tried again", lambda: "given up" not in console.text("#runs") or "type character" not in console.text("#runs"))
    console.until("the load to go on", lambda: "the cluster refused" not in console.text("#trouble"))
    expect(console.run("return window.here") is True, "the page was loaded again")
    console.open("/loads/no-such-load")
    console.sees("no job", "#banner")
    console.check("no-such-load")


# ---- what another process with the same catalog does: here nothing is due, so nothing else does it first

def ends(console, uuid):
    """What is to be cancelled is."""
    console.until("the end of it", lambda: (job(console, uuid) or {}).get("status") == "cancelled")


def goes(console, uuid):
    """What is to be deleted is."""
    console.until("it to be gone", lambda: job(console, uuid) is None)


def job(console, uuid):
    jobs = {job["uuid"]: job for job in console.api("GET", "/v1/jobs")["jobs"]}
    return jobs.get(uuid)


def stops(console, uuid):
    """It had dates after all: three are loaded, one is given up."""
    catalog = sqlite3.connect(console.catalog, timeout=WAIT, isolation_level=None)
    columns = [row[1] for row in catalog.execute("PRAGMA table_info(runs)")]
    began = int(datetime.datetime(2024, 11, 6, 1, tzinfo=datetime.timezone.utc).timestamp() * 1_000_000)
    catalog.execute("BEGIN IMMEDIATE")
    for day in range(1, 5):
        failed = day == 4
        run = dict.fromkeys(columns)
        run.update(
            job=uuid, date=f"2024-11-0{day}", status="load_error" if failed else "load_success", attempt=3 if failed else 1,
            et_started_at=began, et_seconds=12.5, load_started_at=began + 60_000_000, load_seconds=1.5,
            rows=json.dumps({"people": 70}), invalid=0, worker="elsewhere", error=FAILURE if failed else None,
            failures=int(failed), failing_since=began if failed else None, given_up=int(failed), forced=0, backfill=0, extent="full")
        catalog.execute(f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * len(columns))})", [run[name] for name in columns])
    catalog.execute("UPDATE jobs SET start_date = '2024-11-01', status = 'error', error = ?, revision = revision + 1 WHERE uuid = ?", [FAILURE.split("\n")[0], uuid])
    catalog.execute("COMMIT")
    catalog.close()


if __name__ == "__main__":
    main()
    sys.exit(0)
