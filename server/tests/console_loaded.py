#!/usr/bin/env python3
"""The console beside a load that is really made: dates turn green and red as the warehouse takes them.

    python server/tests/console_loaded.py http://127.0.0.1:9090 TOKEN S3 [--screenshots DIR]

Of the three dates of the load the first has rows and its marker, the second more bad lines than it may have, the third no
marker. `S3` is where the log lies, in the bucket `logs`; the cluster `small-one` is there already. Everything else is done in
the browser: the schema comes from a file, the second date is mended and tried again, the load is cancelled and taken up again,
the third date is started without its marker, the first one is made again.
"""

import argparse
import pathlib
import sys
import tempfile

import boto3
from selenium.webdriver.common.keys import Keys

from browser import expect, start
from console_loads import Console

SCHEMA = """version: 1
tables:
  people:
    src: ''
    src_type: dict
    columns:
    - {log_key: name, sql_attr: varchar(16)}
    - {log_key: height, sql_attr: int4}
"""
MOST_BAD = 2
FIRST, SECOND, THIRD = "2024-03-01", "2024-03-02", "2024-03-03"


class Log:
    def __init__(self, endpoint):
        self.client = boto3.client("s3", endpoint_url=endpoint)

    def put(self, date, name, text=""):
        self.client.put_object(Bucket="logs", Key=f"people/{date.replace('-', '/')}/{name}", Body=text.encode())

    def rows(self, date, rows, bad=0):
        lines = [f'{{"name": "{date}-{n}", "height": {n}}}\n' for n in range(rows)]
        self.put(date, "part.json", "".join(lines) + "not a line\n" * bad)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("admin")
    parser.add_argument("token")
    parser.add_argument("s3")
    parser.add_argument("--screenshots", help="a folder for pictures of every page")
    asked = parser.parse_args()
    asked.catalog = None
    log = Log(asked.s3)
    log.rows(FIRST, 4)
    log.put(FIRST, "COMPLETE")
    log.rows(SECOND, 4, bad=MOST_BAD + 1)
    log.put(SECOND, "COMPLETE")
    log.rows(THIRD, 4)
    with tempfile.TemporaryDirectory() as profile:
        browser = start(profile)
        try:
            console = Console(asked, browser)
            console.open("/schemas/new")
            console.until("the question for the token", lambda: console.id("login").is_displayed())
            console.id("token").send_keys(console.token + Keys.ENTER)
            from_a_file(console)
            uuid = posted(console)
            green_and_red(console, uuid)
            mended(console, log, uuid)
            taken_up_again(console, uuid)
            without_its_marker(console, uuid)
            made_again(console, log, uuid)
            signs_out(console)
        finally:
            browser.quit()
    print("the console shows what is loaded")


def from_a_file(console):
    console.until("the form", lambda: console.css("#y-file") and not console.id("login").is_displayed())
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "people.yaml")
        file.write_text(SCHEMA, encoding="utf-8")
        console.id("y-file").send_keys(str(file))
        console.sees("people.yaml is read.", "body")
    console.sees("No problems: ", "#problems-title")
    expect(console.id("y-yaml").get_property("value") == SCHEMA, "the editor does not hold the file")
    console.fill(**{"y-log": "people"})
    console.css("#schema .primary")[0].click()
    console.sees("people version 1", "h1")


def posted(console):
    made = console.api("POST", "/v1/jobs", dict(
        log_name="people", log_schema_version="1", s3_path="s3://logs/people", redshift_id="small-one", start_date=FIRST,
        end_date=THIRD, additional_arguments={"max_errors": MOST_BAD}))
    return made["post_accepted"]["uuid"]


def run(console, uuid, date):
    runs = console.api("GET", f"/v1/runs/{uuid}")["runs"]
    return next((run for run in runs if run["date"] == date), {})


def row(console, date):
    return console.text(f"#date-{date}")


def loaded(console, date, rows):
    """Its row is green, and has the rows."""
    green = lambda: console.css(f"#date-{date} .pill.good") and f"warehouse.people {rows}" in row(console, date)
    console.until(f"{date} to be loaded with {rows} rows", green)


def green_and_red(console, uuid):
    console.open(f"/loads/{uuid}")
    console.run("window.here = true")
    loaded(console, FIRST, 4)
    console.until(f"{SECOND} to be red", lambda: console.css(f"#date-{SECOND} .pill.bad"))
    why = run(console, uuid, SECOND)["error"]
    console.sees(why.splitlines()[0], "#runs .error-row")
    console.until("the button to start without a marker", lambda: button(console, f"Start {THIRD} now"))
    console.check("load-green-and-red")


def button(console, label):
    return next((b for b in console.css(f"[aria-label='{label}']") if b.is_displayed()), None)


def mended(console, log, uuid):
    log.rows(SECOND, 5)
    button(console, f"Retry {SECOND}").click()
    console.sees(f"{SECOND} is tried again.")
    loaded(console, SECOND, 5)
    expect(console.run("return window.here") is True, "the page was loaded again")


def taken_up_again(console, uuid):
    console.open("/loads")
    action = lambda name: next((b for b in console.css(f"tr[data-key='{uuid}'] [data-action={name}]") if b.is_displayed()), None)
    console.until("Cancel", lambda: action("cancel"))
    action("cancel").click()
    console.id("confirm-yes").click()
    console.until("Take up again", lambda: action("restart"))
    action("restart").click()
    console.until("it to go on", lambda: action("pause"))
    console.until("the date to wait again", lambda: run(console, uuid, THIRD).get("status") == "waiting")


def without_its_marker(console, uuid):
    console.open(f"/loads/{uuid}")
    console.until("the button", lambda: button(console, f"Start {THIRD} now"))
    button(console, f"Start {THIRD} now").click()
    console.id("confirm-yes").click()
    console.sees(f"{THIRD} is started without its marker.")
    loaded(console, THIRD, 4)


def made_again(console, log, uuid):
    log.rows(FIRST, 6)
    for name in ["b-from", "b-to"]:
        console.id(name).send_keys("03012024")
    console.css("#backfill .primary")[0].click()
    console.sees(f"To be made again: 1 date: {FIRST}.", "#answer")
    loaded(console, FIRST, 6)
    expect(run(console, uuid, FIRST)["attempt"] == 2, "the date was not made again")
    console.check("load-made")


def signs_out(console):
    console.id("sign-out").click()
    console.until("the question for the token", lambda: console.id("login").is_displayed())
    console.open("/loads")
    console.until("the question for the token", lambda: console.id("login").is_displayed())


if __name__ == "__main__":
    main()
    sys.exit(0)
