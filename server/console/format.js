// Numbers and times as people read them. All times are UTC.

const NOTHING = "–";
const EXACT = new Intl.NumberFormat("en");
const two = (n) => String(n).padStart(2, "0");

export function count(n) {
  if (n === null || n === undefined) return NOTHING;
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(n) >= size * 10 || (Math.abs(n) >= size && n % size === 0)) return `${trim(n / size)}${letter}`;
  }
  return Number.isInteger(n) ? EXACT.format(n) : trim(n);
}

export function rate(n) {
  if (n === null || n === undefined) return NOTHING;
  return n > 0 && n < 10 ? n.toFixed(1) : count(Math.round(n));
}

export function exact(n) {
  return n === null || n === undefined ? NOTHING : EXACT.format(n);
}

/** A share of one, as people say it. */
export function share(x) {
  return x === null || x === undefined || !Number.isFinite(x) ? NOTHING : x.toFixed(3);
}

export function span(seconds) {
  if (seconds < 0) return `−${span(-seconds)}`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

/** The time of day, with seconds where windows are shorter than a minute, with the day where longer than an hour. */
export function time(at, every = 1000) {
  const t = new Date(at);
  const minutes = `${two(t.getUTCHours())}:${two(t.getUTCMinutes())}`;
  if (every % 60000 !== 0) return `${minutes}:${two(t.getUTCSeconds())}`;
  return every < 3600000 ? minutes : `${two(t.getUTCMonth() + 1)}-${two(t.getUTCDate())} ${minutes}`;
}

/** What people call a window of this length. */
export function word(every) {
  return { 1000: "second", 60000: "minute", 3600000: "hour", 86400000: "day" }[every] ?? `${trim(every / 1000)}-second window`;
}

function trim(n) {
  return String(Number(n.toPrecision(3)));
}
