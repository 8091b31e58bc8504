#!/usr/bin/env python3
"""The console page in a real browser: does it show what the API says?

    python server/tests/browser.py http://127.0.0.1:9090 [--pipeline advertising] [--wait 150] [--screenshot page.png]

Needs Debian's chromium and chromium-driver and the Python package selenium. Waits until the chart has a
window, then compares every number of the page's data table with the API's JSON, works the page with the
keyboard, and fails on anything the browser complains about. Exits with 0, or with 1 and what differs.
"""

import argparse
import json
import sys
import tempfile
import time
import urllib.request

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

COLUMNS = ["at", "impressions", "clicks", "clickthrough"]
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1500",
]
CHART = "#chart svg"


def main():
    asked = arguments()
    with tempfile.TemporaryDirectory() as profile:
        browser = start(profile)
        try:
            browser.get(asked.admin + "/#" + asked.pipeline)
            check(asked, browser)
            if asked.screenshot:
                browser.save_screenshot(asked.screenshot)
        finally:
            browser.quit()
    print("the page shows what the API says")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("admin", help="address of the console, such as http://127.0.0.1:9090")
    parser.add_argument("--pipeline", default="advertising")
    parser.add_argument("--stream", default="clickthrough")
    parser.add_argument("--wait", type=float, default=150, help="seconds for the first window to close")
    parser.add_argument("--screenshot", help="where to keep a picture of the page")
    asked = parser.parse_args()
    asked.admin = asked.admin.rstrip("/")
    return asked


def start(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS + ["--user-data-dir=" + profile]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def check(asked, browser):
    until(asked.wait, "a window in the chart's table", lambda: table(browser))
    until(10, "the table to equal the API's rows", lambda: table(browser) == rows(asked),
          lambda: f"page {table(browser)[-3:]}\n  API  {rows(asked)[-3:]}")
    headline(browser, rows(asked))
    graph(asked, browser)
    keyboard(browser)
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    expect(not complaints, f"the browser complains: {complaints}")


def table(browser):
    """The chart's numbers as the page gives them to those who cannot see it."""
    script = """
      const text = (cells) => [...cells].map((c) => c.textContent);
      const table = document.querySelector("#clickthrough-data");
      return [[...table.tHead.rows].map((r) => text(r.cells))[0] ?? [], [...table.tBodies[0].rows].map((r) => text(r.cells))];
    """
    head, body = browser.execute_script(script)
    expect(not body or head == COLUMNS, f"columns {head}, not {COLUMNS}")
    return [[at] + [None if cell == "null" else float(cell) for cell in cells] for at, *cells in body]


def rows(asked):
    path = f"/api/v1/pipelines/{asked.pipeline}/streams/{asked.stream}?limit=60"
    return [[row["at"]] + [number(row[name]) for name in COLUMNS[1:]] for row in get(asked.admin + path)]


def number(value):
    return None if value is None else float(value)


def get(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)


def headline(browser, latest):
    rates = [row[3] for row in latest[-2:]]
    shown = browser.find_element(By.CSS_SELECTOR, "#tiles .number").text
    expect(shown in ["–" if rate is None else f"{rate:.3f}" for rate in rates], f"headline {shown}, API {rates}")
    state = browser.find_element(By.ID, "state-text").text
    expect(state.startswith("running"), f"state is {state!r}")


def graph(asked, browser):
    nodes = get(f"{asked.admin}/api/v1/pipelines/{asked.pipeline}")["graph"]["nodes"]
    # A rate needs two looks at a count.
    until(15, "a rate at every node", lambda: all("rows/s" in label for label in labels(browser)), lambda: labels(browser))
    for node in nodes:
        expect(any(f" {node['name']}," in label for label in labels(browser)), f"no box for {node['id']}: {labels(browser)}")


def labels(browser):
    script = "return [...document.querySelectorAll('#graph [role=listitem]')].map((g) => g.getAttribute('aria-label') ?? '')"
    return browser.execute_script(script)


def keyboard(browser):
    """Everything the pointer can do, the keyboard can."""
    chart = browser.find_element(By.CSS_SELECTOR, CHART)
    browser.execute_script("arguments[0].focus()", chart)
    chart.send_keys(Keys.END)
    readout = browser.find_element(By.ID, "readout")
    expect(readout.is_displayed(), "no readout at the last window")
    for word in COLUMNS[1:]:
        expect(word in readout.text, f"no {word} in the readout: {readout.text!r}")
    chart.send_keys(Keys.ESCAPE)
    expect(not readout.is_displayed(), "the readout stays after Escape")
    button = browser.find_element(By.ID, "as-table")
    button.send_keys(Keys.ENTER)
    expect(browser.find_element(By.ID, "clickthrough-data").is_displayed(), "no table after the button")
    expect(not browser.find_element(By.ID, "chart").is_displayed(), "the chart stays beside the table")
    button.send_keys(Keys.ENTER)


def until(seconds, what, found, detail=lambda: ""):
    end = time.monotonic() + seconds
    while not found():
        expect(time.monotonic() < end, f"waited {seconds:.0f} s for {what} {detail()}")
        time.sleep(0.5)


def expect(holds, otherwise):
    if not holds:
        raise SystemExit(f"FAIL: {otherwise}")


if __name__ == "__main__":
    main()
    sys.exit(0)
