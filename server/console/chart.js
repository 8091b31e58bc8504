// The chart of a windowed stream, drawn by hand as SVG: counts as bars on the left axis from 0, a rate as a
// line on the right axis from 0 to 1. Pointer and arrow keys read single windows; the table beside the chart
// holds the same numbers for everyone else.

const NS = "http://www.w3.org/2000/svg";
const MARGIN = { top: 24, right: 46, bottom: 26, left: 54 };
// One window alone in a wide chart would be a wall; sixty bars still have room.
export const MOST_SLOTS = 60;
const FEWEST_SLOTS = 12;
// Dots that would touch each other say less than the line alone.
const MOST_DOTS = 31;

export function svg(name, attributes = {}, text) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Ticks from 0 to at least `max` at 1, 2 or 5 times a power of ten. */
export function ticks(max, about = 4) {
  const rough = Math.max(max, 1) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].find((n) => n * power >= rough) * power);
  const all = [];
  for (let n = 0; n * step < Math.max(max, 1) + step; n++) all.push(n * step);
  return all;
}

/**
 * A chart inside `root`. `draw(model)` takes
 * `{ windows: [{ at, values }], every, bars: [{ key, label }], rate: { key, label } | null }`,
 * times in milliseconds, windows in order.
 */
export class Chart {
  constructor(root, readout, format) {
    this.root = root;
    this.readout = readout;
    this.format = format;
    this.model = null;
    this.chosen = null; // start of the window that is read
    this.image = svg("svg", { tabindex: 0, role: "group", "aria-roledescription": "chart" });
    root.prepend(this.image);
    this.image.addEventListener("pointermove", (e) => this.point(e));
    this.image.addEventListener("pointerleave", () => this.choose(null));
    this.image.addEventListener("focus", () => this.image.matches(":focus-visible") && this.step(0));
    this.image.addEventListener("blur", () => this.choose(null));
    this.image.addEventListener("keydown", (e) => this.key(e));
    new ResizeObserver(() => this.render()).observe(root);
  }

  draw(model) {
    this.model = model;
    this.render();
  }

  render() {
    const { model } = this;
    this.image.replaceChildren();
    if (!model) return;
    const width = this.root.clientWidth, height = this.root.clientHeight;
    this.image.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.image.setAttribute("aria-label", this.describe());
    this.plot = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    this.slots();
    this.axes();
    this.cursor = this.image.appendChild(svg("rect", { class: "cursor", visibility: "hidden" }));
    this.bars();
    if (model.rate) this.line();
    this.show();
  }

  slots() {
    const { windows, every } = this.model;
    const last = windows.length ? windows[windows.length - 1].at : 0;
    this.shown = windows.filter((w) => w.at > last - MOST_SLOTS * every);
    const span = this.shown.length ? Math.round((last - this.shown[0].at) / every) + 1 : 0;
    this.count = Math.max(FEWEST_SLOTS, span);
    this.from = last - (this.count - 1) * every;
    this.slot = (this.plot.right - this.plot.left) / this.count;
  }

  middle(at) {
    return this.plot.left + ((at - this.from) / this.model.every + 0.5) * this.slot;
  }

  axes() {
    const { plot, model } = this;
    const counts = this.shown.flatMap((w) => model.bars.map((b) => w.values[b.key] ?? 0));
    const scale = ticks(Math.max(0, ...counts));
    const top = scale[scale.length - 1];
    this.height = (value) => (value / top) * (plot.bottom - plot.top);
    for (const tick of scale) {
      const y = plot.bottom - this.height(tick);
      this.image.append(
        svg("line", { class: tick === 0 ? "base" : "grid", x1: plot.left, x2: plot.right, y1: y, y2: y }),
        svg("text", { x: plot.left - 8, y: y + 4, "text-anchor": "end" }, this.format.count(tick)),
      );
    }
    if (model.rate) {
      for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
        const y = plot.bottom - tick * (plot.bottom - plot.top);
        this.image.append(svg("text", { x: plot.right + 8, y: y + 4 }, String(tick)));
      }
      this.image.append(svg("text", { x: plot.right + MARGIN.right, y: 10, "text-anchor": "end" }, model.rate.label));
    }
    const names = model.bars.map((b) => b.label).join(", ");
    this.image.append(svg("text", { x: 0, y: 10 }, names));
    this.times();
  }

  times() {
    if (!this.shown.length) return;
    // About one label per 80 pixels, on round windows.
    const wanted = Math.max(1, Math.ceil(80 / this.slot));
    const stride = [1, 2, 5, 10, 15, 20, 30, 60].find((n) => n >= wanted) ?? 60;
    const { every } = this.model;
    for (let n = 0; n < this.count; n++) {
      const at = this.from + n * every;
      if (Math.round(at / every) % stride !== 0) continue;
      this.image.append(
        svg("text", { x: this.middle(at), y: this.plot.bottom + 18, "text-anchor": "middle" }, this.format.time(at, every)),
      );
    }
  }

  /** The second series stands inside the first: a share of it is seen as a share. */
  bars() {
    const widths = this.model.bars.length > 1 ? [0.74, 0.38] : [0.74];
    for (const window of this.shown) {
      this.model.bars.forEach(({ key }, n) => {
        const value = window.values[key];
        if (!value) return;
        const width = Math.max(1, this.slot * widths[n]), height = Math.max(1, this.height(value));
        this.image.append(
          svg("rect", {
            class: `bar-${n + 1}`, x: this.middle(window.at) - width / 2, y: this.plot.bottom - height, width, height,
            rx: Math.min(3, width / 4),
          }),
        );
      });
    }
  }

  /** Broken where there is no rate. */
  line() {
    const { plot, model } = this;
    let path = "", before = null;
    const dots = [];
    for (const window of this.shown) {
      const rate = window.values[model.rate.key];
      if (rate === null || rate === undefined) {
        before = null;
        continue;
      }
      const x = this.middle(window.at), y = plot.bottom - Math.min(1, Math.max(0, rate)) * (plot.bottom - plot.top);
      path += `${before !== null && window.at - before <= model.every * 1.5 ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      before = window.at;
      dots.push(svg("circle", { class: "rate-dot", cx: x, cy: y, r: 4 }));
    }
    this.image.append(svg("path", { class: "rate", d: path }));
    if (dots.length <= MOST_DOTS) this.image.append(...dots);
    else if (dots.length) this.image.append(dots[dots.length - 1]);
  }

  describe() {
    const { windows, bars, rate } = this.model;
    const names = [...bars, ...(rate ? [rate] : [])].map((s) => s.label).join(", ");
    const latest = windows[windows.length - 1];
    const now = latest ? `; latest: ${this.words(latest).map(([, l, v]) => `${l} ${v}`).join(", ")}` : "";
    return `Chart of ${names} over ${windows.length} windows${now}. Arrow keys read single windows.`;
  }

  words(window) {
    const { bars, rate } = this.model;
    const words = bars.map((b, n) => [`bar-${n + 1}`, b.label, this.format.exact(window.values[b.key])]);
    if (rate) words.push(["rate", rate.label, this.format.share(window.values[rate.key])]);
    return words;
  }

  point(event) {
    if (!this.model || !this.shown.length) return;
    const x = event.clientX - this.image.getBoundingClientRect().left;
    const nearest = this.shown.reduce((a, b) => (Math.abs(this.middle(b.at) - x) < Math.abs(this.middle(a.at) - x) ? b : a));
    this.choose(nearest.at);
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") this.choose(null);
    else if (event.key in steps) this.step(steps[event.key]);
    else return;
    event.preventDefault();
  }

  step(by) {
    if (!this.model || !this.shown.length) return;
    const at = this.shown.findIndex((w) => w.at === this.chosen);
    const from = at < 0 ? this.shown.length - 1 : at;
    this.choose(this.shown[Math.min(this.shown.length - 1, Math.max(0, from + by))].at);
    this.readout.setAttribute("aria-live", "polite");
  }

  choose(at) {
    this.chosen = at;
    if (at === null) this.readout.removeAttribute("aria-live");
    this.show();
  }

  show() {
    const window = this.shown?.find((w) => w.at === this.chosen);
    this.readout.hidden = !window;
    this.cursor?.setAttribute("visibility", window ? "visible" : "hidden");
    if (!window) return;
    const middle = this.middle(window.at), { plot } = this;
    this.cursor.setAttribute("x", middle - this.slot / 2);
    this.cursor.setAttribute("y", plot.top);
    this.cursor.setAttribute("width", this.slot);
    this.cursor.setAttribute("height", plot.bottom - plot.top);
    const title = document.createElement("b");
    title.textContent = `${this.format.time(window.at, this.model.every)} – ${this.format.time(window.at + this.model.every, this.model.every)}`;
    this.readout.replaceChildren(title, ...this.words(window).map(line));
    const right = middle > (plot.left + plot.right) / 2;
    const away = this.slot / 2 + 8;
    this.readout.style.left = right ? `${middle - away - this.readout.offsetWidth}px` : `${middle + away}px`;
  }
}

function line([kind, label, value]) {
  const row = document.createElement("div");
  const key = document.createElement("span");
  key.className = `key ${kind}`;
  const name = document.createElement("span");
  name.textContent = label;
  const number = document.createElement("span");
  number.textContent = value;
  row.append(key, name, number);
  return row;
}
