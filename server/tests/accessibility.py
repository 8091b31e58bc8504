"""What every page of the console must be for those who do not see it, or not well; used by console_loads.py.

Names and roles are those the browser computes (its accessibility tree), contrast is computed from what is drawn.
"""

import os

from browser import expect

CONTROLS = {"button", "link", "textbox", "searchbox", "combobox", "checkbox", "spinbutton", "Date", "listbox", "radio", "dialog", "region"}
LOOKS = [("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)]

STRUCTURE = r"""
const found = [];
const shown = (node) => node.checkVisibility({ visibilityProperty: true });
const modal = document.querySelector("dialog[open]");
const all = (selector) => [...document.querySelectorAll(selector)].filter(shown);
if (document.documentElement.lang !== "en") found.push("no language");
if (!document.title.includes("Millstream") || document.title.startsWith(" ")) found.push(`title ${document.title}`);
for (const landmark of ["header", "nav", "main", "footer"]) {
  if (all(landmark).length !== 1) found.push(`${all(landmark).length} × ${landmark}`);
}
if (document.querySelectorAll("nav [aria-current]").length > 1) found.push("several current pages");
if (all("main h1").length !== 1) found.push(`${all("main h1").length} × h1`);
let level = 0;
for (const heading of all("main :is(h1, h2, h3, h4)")) {
  const its = Number(heading.tagName[1]);
  if (its > level + 1) found.push(`h${its} “${heading.textContent}” after h${level}`);
  if (!heading.textContent.trim()) found.push(`an empty h${its}`);
  level = its;
}
for (const table of all("table")) {
  if (!table.caption?.textContent.trim()) found.push(`no caption: ${table.id || table.className}`);
  for (const head of table.querySelectorAll("th")) {
    if (!["col", "row"].includes(head.scope)) found.push(`no scope: ${head.textContent}`);
  }
}
for (const field of all("input, select, textarea")) {
  if (!field.labels?.length) found.push(`no label: ${field.id}`);
  for (const id of (field.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean)) {
    if (!document.getElementById(id)) found.push(`${field.id} is described by ${id}, which is not there`);
  }
}
const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
ids.filter((id, n) => ids.indexOf(id) !== n).forEach((id) => found.push(`id ${id} twice`));
if (!document.querySelector("[aria-live=polite]")) found.push("nothing tells changes");
if (document.documentElement.scrollWidth > innerWidth) found.push(`the page is ${document.documentElement.scrollWidth} wide on ${innerWidth}`);
for (const control of modal ? [] : all("main :is(button, a, input:not([type=checkbox]), select)")) {
  const box = control.getBoundingClientRect();
  const inText = getComputedStyle(control).display === "inline";
  if (!inText && Math.min(box.width, box.height) < 24) found.push(`${control.textContent || control.id} is ${box.width} × ${box.height}`);
}
return found;
"""

# WCAG 2.2, 1.4.3: each text against what lies behind it, alpha and opacity mixed in.
CONTRAST = r"""
const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const read = (colour) => {
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, below) => [0, 1, 2].map((n) => top[n] * top[3] + below[n] * (1 - top[3])).concat(1);
const light = (colour) => {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const page = read(getComputedStyle(document.documentElement).backgroundColor);
function behind(node) {
  if (node === document.documentElement || node === null) return page;
  const own = read(getComputedStyle(node).backgroundColor);
  return own[3] === 1 ? own : over(own, behind(node.parentElement));
}
const faded = (node) => (node === null ? 1 : Number(getComputedStyle(node).opacity) * faded(node.parentElement));
const root = document.querySelector("dialog[open]") ?? document.body;
const found = new Set();
let seen = 0;
function check(node, words, style) {
  const back = behind(node);
  const colour = read(style.color);
  colour[3] *= faded(node);
  const [one, two] = [light(over(colour, back)), light(back)].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (two + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  seen += 1;
  if (ratio < (large ? 3 : 4.5)) found.add(`“${words.trim().slice(0, 40)}” ${ratio.toFixed(2)}`);
}
const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.checkVisibility({ visibilityProperty: true })) continue;
  if (node.closest("option, noscript, .visually-hidden, button:disabled")) continue;
  check(node, walker.currentNode.data, getComputedStyle(node));
}
for (const field of root.querySelectorAll("input, textarea, select")) {
  if (!field.checkVisibility({ visibilityProperty: true })) continue;
  check(field, field.value || field.id, getComputedStyle(field));
  if (field.placeholder) check(field, field.placeholder, getComputedStyle(field, "::placeholder"));
}
return [seen, [...found]];
"""


def check(browser, name, screenshots=None):
    """Fails with everything that is wrong with the page."""
    wrong = [f"no name: {control}" for control in unnamed(browser)]
    for scheme, width in LOOKS:
        look(browser, scheme, width)
        wrong += [f"{scheme}, {width} px: {one}" for one in browser.execute_script(STRUCTURE)]
        seen, pale = browser.execute_script(CONTRAST)
        expect(seen > 3, f"{name}: only {seen} texts")
        wrong += [f"{scheme}, {width} px: contrast of {one}" for one in pale]
        if screenshots:
            picture(browser, os.path.join(screenshots, f"{name}-{scheme}-{width}.png"), width)
    look(browser, "light", None)
    expect(not wrong, f"{name} is not accessible:\n  " + "\n  ".join(dict.fromkeys(wrong)))


def unnamed(browser):
    """Controls without a name, as the browser tells screen readers."""
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    shown = [node for node in nodes if not node["ignored"] and node.get("role", {}).get("value") in CONTROLS]
    expect(shown, "the browser tells of no control")
    named = lambda node: node.get("name", {}).get("value", "").strip()
    return [f"{node['role']['value']} {node.get('backendDOMNodeId')}" for node in shown if not named(node)]


def look(browser, scheme, width):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    if width is None:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    else:
        resize(browser, width, 900)


def resize(browser, width, height):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def picture(browser, path, width):
    height = browser.execute_script("return document.documentElement.scrollHeight")
    resize(browser, width, min(max(height, 600), 3000))
    browser.save_screenshot(path)
